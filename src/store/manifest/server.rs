//! What the whole server has: versions, settings, roles, tablespaces.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What made the backup.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ToolManifest {
    /// Version of pgrescue.
    pub pgrescue: String,
    /// Version of pg_dump and pg_dumpall, such as `16.4`.
    pub client_version: String,
    /// Its major version: pg_restore must be at least as new.
    pub client_major: u32,
}

/// How the database was reached.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Connector {
    /// The protocol of PostgreSQL.
    #[default]
    Postgresql,
}

/// The server that was backed up.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ServerManifest {
    /// How it was reached.
    pub connector: Connector,
    /// Host that answered, as the connection names it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Role that made the backup.
    pub user: String,
    /// Whether the connection was encrypted.
    pub encrypted: bool,
    /// Version as `server_version` tells it.
    pub version: String,
    /// `server_version_num`.
    pub version_number: u32,
    /// What `version()` tells: also compiler and platform.
    pub version_text: String,
    /// System identifier of the cluster of databases; `None` where it may not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Whether it was a standby.
    pub in_recovery: bool,
    /// Settings that describe it, in the server's units. None holds a secret.
    pub settings: BTreeMap<String, String>,
}

impl ServerManifest {
    /// Major version.
    #[must_use]
    pub const fn major(&self) -> u32 {
        self.version_number / 10_000
    }
}

/// A role. Its password is not here; `globals.sql` has its verifier where it was asked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[allow(
    clippy::struct_excessive_bools,
    reason = "they are PostgreSQL's attributes of a role"
)]
pub struct RoleManifest {
    /// OID.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// `SUPERUSER`.
    pub superuser: bool,
    /// `INHERIT`.
    pub inherit: bool,
    /// `CREATEROLE`.
    pub create_role: bool,
    /// `CREATEDB`.
    pub create_database: bool,
    /// `LOGIN`.
    pub login: bool,
    /// `REPLICATION`.
    pub replication: bool,
    /// `BYPASSRLS`.
    pub bypass_row_level_security: bool,
    /// `CONNECTION LIMIT`; -1 is none.
    pub connection_limit: i32,
    /// `VALID UNTIL`, as PostgreSQL writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether PostgreSQL made it (`pg_…`).
    pub built_in: bool,
}

/// A membership of a role in a role.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MembershipManifest {
    /// The role that has members.
    pub role: String,
    /// The member.
    pub member: String,
    /// Who granted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grantor: Option<String>,
    /// `WITH ADMIN OPTION`.
    pub admin: bool,
    /// `WITH INHERIT`; `None` before PostgreSQL 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherit: Option<bool>,
    /// `WITH SET`; `None` before PostgreSQL 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<bool>,
}

/// A setting of a role, in all databases or in one.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RoleSettingManifest {
    /// The role.
    pub role: String,
    /// The database; `None` is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Name of the setting.
    pub name: String,
    /// Value; `None` where it may be a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A tablespace.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TablespaceManifest {
    /// OID.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: String,
    /// Folder; empty for `pg_default` and `pg_global`.
    pub location: String,
    /// Options, such as `random_page_cost`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Bytes; `None` where it may not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}
