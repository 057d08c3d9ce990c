//! Foreign data wrappers, servers and user mappings, without what may be a secret.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::postgres::foreign::{LocalUser, ShownOptions};

/// A foreign data wrapper.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ForeignDataWrapperManifest {
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: String,
    /// Extension that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// Whether it checks options. Without, any name may carry a secret.
    pub has_validator: bool,
    /// Options by name; null where the value may be a secret.
    pub options: ShownOptions,
}

/// A foreign server.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ForeignServerManifest {
    /// Name.
    pub name: String,
    /// Foreign data wrapper.
    pub wrapper: String,
    /// Owner.
    pub owner: String,
    /// `TYPE`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub server_type: Option<String>,
    /// `VERSION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Extension that it belongs to: then neither it nor its user mappings are dumped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Options by name; null where the value may be a secret.
    pub options: ShownOptions,
    /// User mappings, PUBLIC's first.
    pub user_mappings: Vec<UserMappingManifest>,
    /// Foreign tables.
    pub foreign_tables: u64,
}

/// A user mapping.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UserMappingManifest {
    /// Local role, or `PUBLIC`.
    pub user: LocalUser,
    /// Options by name; null where the role of the backup may not see them: then whether there are any is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<ShownOptions>,
}
