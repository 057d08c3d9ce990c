//! `PgBackup`: one backup run and its artefact.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::job::JobSettings;
use super::status::{Artifact, RunStatus};
use super::storage::Storage;

/// What to back up, from where, to where.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "pgrescue.dev",
    version = "v1alpha1",
    kind = "PgBackup",
    namespaced,
    status = "PgBackupStatus",
    shortname = "pgb",
    category = "pgrescue",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Percent","type":"integer","jsonPath":".status.progress.percent"}"#,
    printcolumn = r#"{"name":"Bytes","type":"integer","jsonPath":".status.artifact.bytes"}"#,
    printcolumn = r#"{"name":"New","type":"integer","jsonPath":".status.artifact.newBytes"}"#,
    printcolumn = r#"{"name":"Rows","type":"integer","jsonPath":".status.artifact.rows"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Succeeded\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Succeeded\")].message","priority":1}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!(self.?schemaOnly.orValue(false) && self.?dataOnly.orValue(false))",
        "message": "schemaOnly and dataOnly together leave nothing to back up; set one of them"
    },
    {
        "rule": "!has(self.parallelism) || self.?dataFormat.orValue('Chunks') == 'Chunks'",
        "message": "parallelism is the number of sessions that read chunks: set dataFormat to Chunks, or leave parallelism out"
    },
    {
        "rule": "self.?dataFormat.orValue('Chunks') != 'Chunks' || !has(self.compression) || self.compression.method == 'Zstd'",
        "message": "chunks are compressed by Zstd: set compression.method to Zstd, or leave compression out"
    }
]))]
pub struct PgBackupSpec {
    /// The server to back up.
    pub connection: Connection,
    /// Which databases. Left out: the one that the connection names, or, where it names none or `*`, all that allow
    /// connections but `template0` and `rdsadmin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<DatabaseSelection>,
    /// Where the artefact goes.
    pub storage: Storage,
    /// Leaves out the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_only: Option<bool>,
    /// Leaves out the definitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_only: Option<bool>,
    /// Which schemas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schemas: Option<NameSelection>,
    /// Which tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<TableSelection>,
    /// Rows of unlogged tables. Default: `Exclude`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlogged_table_data: Option<UnloggedTableData>,
    /// How rows are stored: `Custom` in the archive of pg_dump, `Chunks` as chunks that all backups of the storage share,
    /// so that the next backup sends what changed. Default: `Chunks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_format: Option<DataFormat>,
    /// Sessions that read rows at the same time, with `dataFormat: Chunks`. Default: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub parallelism: Option<u8>,
    /// How rows are compressed. Default: `Zstd`, level 1; `Gzip` for servers before PostgreSQL 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Credentials of user mappings and subscriptions. Default: `Strip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_credentials: Option<ForeignCredentials>,
    /// Password verifiers of roles in `globals.sql`. Default: `Keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_passwords: Option<RolePasswords>,
    /// What becomes of the artefact when the resource is deleted. Default: `Retain`. May be changed at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
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

/// Databases by name: `include` or `exclude`, not both.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!(has(self.include) && has(self.exclude))", "message": "give include or exclude, not both"}
]))]
pub struct DatabaseSelection {
    /// Exactly these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1, max = 63)))]
    pub include: Vec<String>,
    /// All but these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1, max = 63)))]
    pub exclude: Vec<String>,
}

/// Schemas by name: `include` or `exclude`, not both.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!(has(self.include) && has(self.exclude))", "message": "give include or exclude, not both"}
]))]
pub struct NameSelection {
    /// Exactly these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1, max = 63)))]
    pub include: Vec<String>,
    /// All but these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1, max = 63)))]
    pub exclude: Vec<String>,
}

/// A table by schema and name, exactly: no patterns, no quoting.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableName {
    /// Schema of the table.
    #[schemars(length(min = 1, max = 63))]
    pub schema: String,
    /// Name of the table.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// Tables by name: `include` or `exclude`, not both; `excludeData` keeps the definition and leaves out the rows.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!(has(self.include) && has(self.exclude))", "message": "give include or exclude, not both"}
]))]
pub struct TableSelection {
    /// Exactly these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub include: Vec<TableName>,
    /// All but these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub exclude: Vec<TableName>,
    /// Tables whose rows are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub exclude_data: Vec<TableName>,
}

/// How the rows of a backup are stored: in the archive of pg_dump, or as chunks of the repository with an archive of all
/// that is not the rows of ordinary tables.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum DataFormat {
    Custom,
    #[default]
    Chunks,
}

/// Compression of the rows.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.level) || (self.method == 'Zstd' ? self.level >= 1 && self.level <= 22 : self.method == 'Gzip' ? self.level >= 1 && self.level <= 9 : self.method == 'Lz4' ? self.level >= 1 && self.level <= 12 : false)",
        "message": "level is 1 to 22 for Zstd, 1 to 9 for Gzip, 1 to 12 for Lz4, and None has none"
    }
]))]
pub struct Compression {
    /// The method.
    pub method: CompressionMethod,
    /// Level of the method: Zstd 1 to 22, Gzip 1 to 9, Lz4 1 to 12. Left out: 1 for Zstd, the method's default else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
}

/// Compression methods of pg_dump.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the names are pg_dump's; a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum CompressionMethod {
    #[default]
    Zstd,
    Gzip,
    Lz4,
    None,
}

/// Whether credentials of user mappings and subscriptions are stored.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum ForeignCredentials {
    #[default]
    Strip,
    Keep,
}

/// Whether password verifiers of roles are stored.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum RolePasswords {
    #[default]
    Keep,
    Omit,
}

/// Whether rows of unlogged tables are stored.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum UnloggedTableData {
    Include,
    #[default]
    Exclude,
}

/// What becomes of the artefact when its resource is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

/// Verbosity of the agent's log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// Status of a backup run: the shared run status and the artefact.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PgBackupStatus {
    /// What every run reports.
    #[serde(flatten)]
    pub run: RunStatus,
    /// The finished artefact. Written by the controller with the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
}
