//! Rules that rewrite foreign servers and user mappings between environments.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connection::ObjectRef;

/// One rule. It applies to every foreign server that all given matchers select; no two rules may select the same.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForeignServerRule {
    /// Which servers.
    #[serde(rename = "match")]
    pub matches: ForeignServerMatch,
    /// Changes to the server's options. Options not named here stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<OptionChanges>,
    /// What becomes of the server's user mappings. A mapping that no entry names must hold no stripped secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_mappings: Vec<UserMappingRule>,
    /// Changes to options of the server's foreign tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_tables: Vec<ForeignTableRule>,
    /// Changes to the options of the server's foreign data wrapper, where that belongs to no extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapper_options: Option<OptionChanges>,
}

/// Changes to options of the foreign tables that `schema` and `name` select; left out, all of the server.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForeignTableRule {
    /// Schema of the tables, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Name of the table, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Changes the options of this column in place of the table's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The changes. Options not named here stay.
    pub options: OptionChanges,
}

/// Selects foreign servers. Every field that is given must hold; at least one must be given.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.name) || has(self.wrapper) || has(self.option)",
        "message": "a match needs name, wrapper or option"
    }
]))]
pub struct ForeignServerMatch {
    /// Name of the server, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the foreign data wrapper, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapper: Option<String>,
    /// Options of the server with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub option: BTreeMap<String, String>,
}

/// Changes to a set of options.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OptionChanges {
    /// Options to add or to give another value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Options whose values come from the keys of this Secret; every key is an option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectRef>,
    /// Options to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// What becomes of the mapping of one local role; `PUBLIC` is the public mapping. Exactly one of `secretRef`,
/// `keep: true` and `drop: true`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.secretRef), self.?keep.orValue(false), self.?drop.orValue(false)].filter(given, given).size() == 1",
        "message": "a user mapping needs exactly one of secretRef, keep: true and drop: true"
    }
]))]
pub struct UserMappingRule {
    /// Local role of the mapping, as in the backup.
    pub local_user: String,
    /// Secret whose keys become the mapping's options (`user`, `password`, …), replacing all of them.
    /// A mapping that does not exist is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectRef>,
    /// Local role that the mapping is given to instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rename_to: Option<String>,
    /// Keeps the mapping's options as they are in the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<bool>,
    /// Leaves the mapping out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<bool>,
}

/// What to do with a foreign server that no rule selects.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum UnmatchedForeignServers {
    #[default]
    Fail,
    Keep,
    Drop,
}
