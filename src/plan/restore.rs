//! The plan of a restore, and the steps that follow from what the agent found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::connection::ConnectionPlan;
use super::run::Run;
use super::storage::StoragePlan;
use crate::api::foreign_servers::{ForeignServerRule, UnmatchedForeignServers};
use crate::api::restore::Globals;

/// A validated restore request.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestorePlan {
    /// The resource that asked.
    pub run: Run,
    /// The snapshot to restore.
    pub source: SnapshotSource,
    /// The server to restore into.
    pub target: ConnectionPlan,
    /// Database to create or to fill; `None` is its name in the backup.
    pub database: Option<String>,
    /// How foreign servers are rewritten. Validated: each matcher says something, each mapping rule one thing.
    pub foreign_servers: Vec<ForeignServerRule>,
    /// What to do with a foreign server that no rule selects.
    pub unmatched_foreign_servers: UnmatchedForeignServers,
    /// Leaves subscriptions without a connection string out.
    pub drop_subscriptions: bool,
    /// Secret with the key `conninfo`, by subscription.
    pub subscription_secrets: BTreeMap<String, String>,
    /// Connections that build indexes and constraints.
    pub jobs: u8,
    /// Gives every object to the restoring role.
    pub no_owner: bool,
    /// Leaves out grants.
    pub no_privileges: bool,
    /// Roles of the backup by the roles that take their place.
    pub role_mapping: BTreeMap<String, String>,
    /// Roles that do not exist on the target.
    pub globals: Globals,
    /// Shows the steps and changes nothing.
    pub dry_run: bool,
    /// SHA-256 in hex of what was asked (the spec without `dryRun` and what does not change the result), for the
    /// ledger: the same name with the same hash on the same target database is the same request.
    pub request_hash: String,
}

/// Which snapshot, and which database of it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotSource {
    /// Where the artefact is.
    pub storage: StoragePlan,
    /// Snapshot id; `None` (only outside Kubernetes) is the newest one that the named backup made.
    pub snapshot: Option<String>,
    /// Namespace and name of the `PgBackup`, held against the manifest.
    pub backup_namespace: String,
    /// Name of the `PgBackup`.
    pub backup_name: String,
    /// SHA-256 of `manifest.json` in hex, as the backup's status has it.
    pub manifest_sha256: Option<String>,
    /// Database in the backup; may be left out where it has one.
    pub database: Option<String>,
}

/// Removes the database that a restore had created and could not finish. It drops nothing that the restore's own
/// mark does not name.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CleanUpRestorePlan {
    /// The resource whose restore failed.
    pub run: Run,
    /// The server.
    pub target: ConnectionPlan,
    /// The database; `None` is to be found by the restore's mark.
    pub database: Option<String>,
}
