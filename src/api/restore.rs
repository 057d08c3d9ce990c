//! `PgRestore`: one restore of a whole database.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backup::LogLevel;
use super::connection::{Connection, KeyRef, ObjectRef};
use super::foreign_servers::{ForeignServerRule, UnmatchedForeignServers};
use super::job::JobSettings;
use super::status::RunStatus;

/// What to restore, from where, to where.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "pgrescue.dev",
    version = "v1alpha1",
    kind = "PgRestore",
    namespaced,
    status = "PgRestoreStatus",
    shortname = "pgr",
    category = "pgrescue",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Percent","type":"integer","jsonPath":".status.progress.percent"}"#,
    printcolumn = r#"{"name":"Rows","type":"integer","jsonPath":".status.progress.rows"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Succeeded\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Succeeded\")].message","priority":1}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PgRestoreSpec {
    /// Where the rows come from.
    pub source: RestoreSource,
    /// Where they go.
    pub target: RestoreTarget,
    /// How foreign servers are rewritten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_servers: Vec<ForeignServerRule>,
    /// What to do with a foreign server that no rule selects. Default: `Fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmatched_foreign_servers: Option<UnmatchedForeignServers>,
    /// What to do with subscriptions, whose connection strings were stripped. Default: `Fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Subscriptions>,
    /// Connections that load rows and build indexes and constraints in parallel, 1 to 64. Each keeps about one of the
    /// server's processors busy. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub jobs: Option<u8>,
    /// Gives every object to the restoring role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_owner: Option<bool>,
    /// Leaves out grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_privileges: Option<bool>,
    /// Roles of the backup by the roles of the target that take their place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub role_mapping: BTreeMap<String, String>,
    /// Roles that do not exist on the target. Default: `Skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub globals: Option<Globals>,
    /// Shows the steps and changes nothing. May be changed from `true` to `false` once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// How the Job is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobSettings>,
    /// Verbosity of the agent's log. Default: `Info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

/// Where the rows come from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreSource {
    /// A `PgBackup` of the same namespace.
    pub backup: BackupSource,
    /// What opens the backup, where it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decryption: Option<Decryption>,
}

/// What opens an encrypted backup.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decryption {
    /// Encryption with age.
    pub age: AgeDecryption,
}

/// What opens a backup that is encrypted with age.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgeDecryption {
    /// Key of a Secret with an identity file as `age-keygen` writes it. Mounted into the pods of this restore alone.
    pub identity_secret_ref: KeyRef,
}

/// A `PgBackup` of the same namespace, and which of its databases.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupSource {
    /// Name of the `PgBackup`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Database in the backup. May be left out where the backup has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// Where the rows go.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreTarget {
    /// The server to restore into.
    pub connection: Connection,
    /// Database to create, or an empty one. Left out: the database's name in the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// What to do with subscriptions whose connection strings were stripped.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subscriptions {
    /// Leaves every subscription that `connections` does not name out of the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<bool>,
    /// Connection strings by subscription name; key `conninfo` of each Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connections: BTreeMap<String, ObjectRef>,
}

/// What to do with roles of the backup that do not exist on the target.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum Globals {
    #[default]
    Skip,
    Missing,
}

/// Status of a restore run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PgRestoreStatus {
    /// What every run reports.
    #[serde(flatten)]
    pub run: RunStatus,
}
