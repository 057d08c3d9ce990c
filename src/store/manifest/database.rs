//! One database: how it was made, and what it holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ForeignDataWrapperManifest, ForeignServerManifest, RelationManifest};
use crate::postgres::foreign::StrippedCredential;

/// A database of the backup.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseManifest {
    /// OID.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: String,
    /// Encoding and locale.
    pub locale: LocaleManifest,
    /// Default tablespace.
    pub tablespace: String,
    /// `CONNECTION LIMIT`; -1 is none.
    pub connection_limit: i32,
    /// Whether it is a template.
    pub is_template: bool,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Grants on it; `None` are PostgreSQL's own (owner everything, PUBLIC `CONNECT` and `TEMPORARY`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<GrantManifest>>,
    /// `ALTER DATABASE … SET`.
    pub settings: Vec<SettingManifest>,
    /// Bytes on the server's disk; `None` where it may not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Extensions, by name.
    pub extensions: Vec<ExtensionManifest>,
    /// Schemas, by name.
    pub schemas: Vec<SchemaManifest>,
    /// Relations, by schema and name; those of PostgreSQL itself are left out.
    pub relations: Vec<RelationManifest>,
    /// Foreign data wrappers, by name.
    pub foreign_data_wrappers: Vec<ForeignDataWrapperManifest>,
    /// Foreign servers, by name.
    pub foreign_servers: Vec<ForeignServerManifest>,
    /// Subscriptions, by name; `None` where they may not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Vec<SubscriptionManifest>>,
    /// What was taken out of the archive because it may be a secret.
    pub stripped_credentials: Vec<StrippedCredential>,
    /// Large objects stored.
    pub large_objects: u64,
    /// Rows stored, all tables.
    pub rows: u64,
    /// Tables whose rows are stored.
    pub tables: u64,
    /// Bytes of the rows before compression.
    pub uncompressed_bytes: u64,
}

/// Encoding and locale of a database.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LocaleManifest {
    /// Encoding, by PostgreSQL's name for it.
    pub encoding: String,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Locale of the providers `icu` and `builtin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Rules of the provider `icu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// Version of the collation that the database was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_version: Option<String>,
}

/// One item of an access control list.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GrantManifest {
    /// Role that has the privilege; `None` is PUBLIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grantee: Option<String>,
    /// Role that granted it.
    pub grantor: String,
    /// The privilege, such as `CONNECT`.
    pub privilege: String,
    /// `WITH GRANT OPTION`.
    pub grantable: bool,
}

/// `ALTER DATABASE … SET`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SettingManifest {
    /// Name of the setting.
    pub name: String,
    /// Value; `None` where it may be a secret: then it stands in the archive alone (entry `DATABASE PROPERTIES`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// An extension.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionManifest {
    /// Name.
    pub name: String,
    /// Installed version.
    pub version: String,
    /// Schema of its objects.
    pub schema: String,
    /// Owner.
    pub owner: String,
}

/// A schema.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SchemaManifest {
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: String,
    /// Extension that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
}

/// A subscription of logical replication. Its connection string is not here.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionManifest {
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: String,
    /// Whether it was enabled.
    pub enabled: bool,
    /// Publications that it asks for.
    pub publications: Vec<String>,
    /// Replication slot on the other server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
}
