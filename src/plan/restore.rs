//! The plan of a restore, and the steps that follow from what the agent found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::connection::{self, ConnectionPlan, check_text, invalid};
use super::encryption;
use super::foreign_rules;
use super::refusal::Refusal;
use super::run::Run;
use super::storage::StoragePlan;
use crate::api::connection::KeyRef;
use crate::api::foreign_servers::{ForeignServerRule, UnmatchedForeignServers};
use crate::api::restore::{Decryption, Globals, PgRestoreSpec, RestoreSource, RestoreTarget, Subscriptions};

/// A validated restore request.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a choice of its own in the manifest"
)]
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

impl RestorePlan {
    /// Whether somebody begins another attempt after one that failed for a while, and removes what the last one left.
    /// In Kubernetes, where the snapshot is pinned, the Job and its clean-up do; behind `pgrescue run` nobody does.
    #[must_use]
    pub const fn is_retried(&self) -> bool {
        self.source.snapshot.is_some()
    }
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
    /// Key of a Secret with the identity that opens an encrypted backup.
    pub identity: Option<KeyRef>,
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

/// Longest name that PostgreSQL keeps whole, in bytes (`NAMEDATALEN` - 1).
const LONGEST_NAME_BYTES: usize = 63;
/// Connections where the spec does not say.
const DEFAULT_JOBS: u8 = 2;
/// More connections than this are a mistake: each is a backend on the target.
const MOST_JOBS: u8 = 64;

/// Validates a restore request. `source` is what `spec.source` was resolved to.
pub fn plan(spec: &PgRestoreSpec, run: Run, source: SnapshotSource) -> Result<RestorePlan, Refusal> {
    let request_hash = request_hash(spec)?;
    let PgRestoreSpec {
        source: RestoreSource { backup, decryption },
        target: RestoreTarget {
            connection: target,
            database,
        },
        foreign_servers,
        unmatched_foreign_servers,
        subscriptions,
        jobs,
        no_owner,
        no_privileges,
        role_mapping,
        globals,
        dry_run,
        job: _,
        log_level: _,
    } = spec;
    check_text(&backup.name, "spec.source.backup.name")?;
    if let Some(database) = &backup.database {
        check_name(database, "spec.source.backup.database")?;
    }
    if let Some(database) = database {
        check_target_database(database, "spec.target.database")?;
    }
    foreign_rules::check(foreign_servers, "spec.foreignServers")?;
    let Subscriptions { drop, connections } = subscriptions.clone().unwrap_or_default();
    for (subscription, secret) in &connections {
        check_name(subscription, "spec.subscriptions.connections")?;
        check_text(
            &secret.name,
            &format!("spec.subscriptions.connections.{subscription}.name"),
        )?;
    }
    let jobs = jobs.unwrap_or(DEFAULT_JOBS);
    if jobs == 0 || jobs > MOST_JOBS {
        return Err(invalid("spec.jobs", &format!("is {jobs}")).hint(format!("Give a number from 1 to {MOST_JOBS}.")));
    }
    for (from, to) in role_mapping {
        check_name(from, "spec.roleMapping")?;
        check_name(to, &format!("spec.roleMapping.{from}"))?;
    }
    let identity = identity(decryption.as_ref(), &source.storage)?;
    Ok(RestorePlan {
        run,
        source: SnapshotSource { identity, ..source },
        target: connection::plan(target, "spec.target.connection")?,
        database: database.clone(),
        foreign_servers: foreign_servers.clone(),
        unmatched_foreign_servers: unmatched_foreign_servers.unwrap_or_default(),
        drop_subscriptions: drop.unwrap_or(false),
        subscription_secrets: connections
            .into_iter()
            .map(|(subscription, secret)| (subscription, secret.name))
            .collect(),
        jobs,
        no_owner: no_owner.unwrap_or(false),
        no_privileges: no_privileges.unwrap_or(false),
        role_mapping: role_mapping.clone(),
        globals: globals.unwrap_or_default(),
        dry_run: dry_run.unwrap_or(false),
        request_hash,
    })
}

/// Where the identity is that opens an encrypted backup; `None` where the request names none.
pub fn identity(decryption: Option<&Decryption>, storage: &StoragePlan) -> Result<Option<KeyRef>, Refusal> {
    decryption
        .map(|given| encryption::identity(given, storage, "spec.source.decryption"))
        .transpose()
}

/// What makes two requests the same: everything that changes what the target holds afterwards. The snapshot is not
/// part of it: a request that is applied again from Git stays the same when its backup was made anew.
fn request_hash(spec: &PgRestoreSpec) -> Result<String, Refusal> {
    let mut asked = spec.clone();
    asked.dry_run = None;
    asked.job = None;
    asked.log_level = None;
    asked.jobs = None;
    asked.source.decryption = None;
    let json =
        serde_json::to_vec(&asked).map_err(|error| invalid("spec", &format!("cannot be written as JSON: {error}")))?;
    Ok(hex::encode(Sha256::digest(json)))
}

/// Refuses what can never be the database that a restore makes or fills. The agent asks again, for a name that comes
/// from the backup.
pub fn check_target_database(name: &str, field: &str) -> Result<(), Refusal> {
    check_name(name, field)?;
    if matches!(name, "template0" | "template1") {
        return Err(
            invalid(field, &format!("is {name:?}, the template of every new database"))
                .hint("Name another database in spec.target.database."),
        );
    }
    Ok(())
}

fn check_name(name: &str, field: &str) -> Result<(), Refusal> {
    check_text(name, field)?;
    if name.len() > LONGEST_NAME_BYTES {
        return Err(invalid(
            field,
            &format!(
                "is {} bytes long; PostgreSQL cuts names after {LONGEST_NAME_BYTES} bytes",
                name.len()
            ),
        )
        .hint("Give a shorter name."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::RunKind;

    fn planned(yaml: &str) -> Result<RestorePlan, Refusal> {
        let spec: PgRestoreSpec = serde_saphyr::from_str(yaml).unwrap();
        let run = Run {
            name: "orders-copy".into(),
            uid: "11111111-2222-3333-4444-555555555555".into(),
            ..Run::sample(RunKind::PgRestore)
        };
        let source = SnapshotSource {
            storage: StoragePlan::Folder { path: "/x".into() },
            snapshot: Some("s".into()),
            backup_namespace: "shop".into(),
            backup_name: "orders".into(),
            manifest_sha256: None,
            database: None,
            identity: None,
        };
        plan(&spec, run, source)
    }

    fn with(rest: &str) -> String {
        format!("{{source: {{backup: {{name: orders}}}}, target: {{connection: {{host: db}}}}, {rest}}}")
    }

    fn refused(rest: &str) -> String {
        planned(&with(rest)).unwrap_err().sentence()
    }

    #[test]
    fn the_sentences_of_a_refused_restore_help() {
        insta::assert_snapshot!(
            [
                planned("{source: {backup: {name: ''}}, target: {connection: {}}}").unwrap_err().sentence(),
                planned("{source: {backup: {name: a}}, target: {connection: {}, database: template0}}").unwrap_err().sentence(),
                planned(&format!("{{source: {{backup: {{name: a}}}}, target: {{connection: {{}}, database: {}}}}}", "x".repeat(64))).unwrap_err().sentence(),
                refused("jobs: 0"),
                refused("jobs: 65"),
                refused("roleMapping: {app: ''}"),
                refused("subscriptions: {connections: {feed: {name: ''}}}"),
                refused("foreignServers: [{match: {}}]"),
                refused("foreignServers: [{match: {name: ''}}]"),
                refused("foreignServers: [{match: {name: a}, options: {set: {host: x}, drop: [host]}}]"),
                refused("foreignServers: [{match: {name: a}, options: {drop: [host, host]}}]"),
                refused("foreignServers: [{match: {name: a}, userMappings: [{localUser: app}]}]"),
                refused("foreignServers: [{match: {name: a}, userMappings: [{localUser: app, keep: true, drop: true}]}]"),
                refused("foreignServers: [{match: {name: a}, userMappings: [{localUser: app, drop: true, renameTo: b}]}]"),
                refused("foreignServers: [{match: {name: a}, userMappings: [{localUser: '', drop: true}]}]"),
                refused("foreignServers: [{match: {name: a}, userMappings: [{localUser: a, keep: true}, {localUser: a, drop: true}]}]"),
                refused("foreignServers: [{match: {name: a}, userMappings: [{localUser: a, keep: true, renameTo: c}, {localUser: b, keep: true, renameTo: c}]}]"),
                refused("foreignServers: [{match: {name: a}}, {match: {name: a}}]"),
            ]
            .join("\n")
        );
    }

    #[test]
    fn the_same_request_has_the_same_hash_whatever_does_not_change_its_result() {
        let hash = |rest: &str| planned(&with(rest)).unwrap().request_hash;
        let plain = hash("noOwner: false");
        assert_eq!(
            plain,
            hash("noOwner: false, dryRun: true, jobs: 7, logLevel: Debug, job: {deadlineSeconds: 5}")
        );
        let decrypting = with("noOwner: false").replacen(
            "{name: orders}",
            "{name: orders}, decryption: {age: {identitySecretRef: {name: k, key: i}}}",
            1,
        );
        assert_eq!(plain, planned(&decrypting).unwrap().request_hash);
        assert_ne!(plain, hash("noOwner: true"));
        assert_ne!(plain, hash("noOwner: false, roleMapping: {a: b}"));
    }

    #[test]
    fn what_the_spec_leaves_out_has_the_documented_defaults() {
        let plan = planned(&with("noOwner: true")).unwrap();
        assert_eq!(plan.jobs, 2);
        assert_eq!(plan.globals, Globals::Skip);
        assert_eq!(plan.unmatched_foreign_servers, UnmatchedForeignServers::Fail);
        assert!(plan.no_owner && !plan.no_privileges && !plan.dry_run && !plan.drop_subscriptions);
    }
}
