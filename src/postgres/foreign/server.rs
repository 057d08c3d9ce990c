//! A foreign server as a catalog, a manifest or an archive describes it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options by name. `None` is a value that is secret: it is not shown, and may have been stripped.
pub type ShownOptions = BTreeMap<String, Option<String>>;

/// A foreign server, what hangs on it, and no secret.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ForeignServer {
    /// Name of the server.
    pub name: String,
    /// Name of its foreign data wrapper.
    pub wrapper: String,
    /// Role that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Options of the server.
    #[serde(default)]
    pub options: ShownOptions,
    /// Its user mappings.
    #[serde(default)]
    pub user_mappings: Vec<UserMapping>,
    /// Its foreign tables.
    #[serde(default)]
    pub foreign_tables: Vec<ForeignTable>,
}

/// A user mapping of a foreign server.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UserMapping {
    /// Local role that it is for.
    pub user: LocalUser,
    /// Its options.
    #[serde(default)]
    pub options: ShownOptions,
}

/// A foreign table.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ForeignTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Options of the table.
    #[serde(default)]
    pub options: ShownOptions,
    /// Options of its columns, by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub column_options: BTreeMap<String, ShownOptions>,
}

/// Whom a user mapping is for. In text, `PUBLIC` and `CURRENT_USER` are keywords; roles that are really called so are
/// written as SQL writes them, `"PUBLIC"` and `"CURRENT_USER"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum LocalUser {
    /// Every role without a mapping of its own.
    Public,
    /// The role that restores.
    CurrentUser,
    /// A role.
    Role(String),
}

const PUBLIC: &str = "PUBLIC";
const CURRENT_USER: &str = "CURRENT_USER";

impl LocalUser {
    /// The role's name, where it is a role.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        match self {
            Self::Role(name) => Some(name),
            Self::Public | Self::CurrentUser => None,
        }
    }
}

impl From<&str> for LocalUser {
    fn from(text: &str) -> Self {
        match text {
            // PostgreSQL reserves the name "public": no role has it.
            PUBLIC | "public" => Self::Public,
            CURRENT_USER => Self::CurrentUser,
            "\"PUBLIC\"" => Self::Role(PUBLIC.into()),
            "\"CURRENT_USER\"" => Self::Role(CURRENT_USER.into()),
            role => Self::Role(role.into()),
        }
    }
}

impl From<String> for LocalUser {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl FromStr for LocalUser {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.into())
    }
}

impl From<LocalUser> for String {
    fn from(user: LocalUser) -> Self {
        user.to_string()
    }
}

impl fmt::Display for LocalUser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => formatter.write_str(PUBLIC),
            Self::CurrentUser => formatter.write_str(CURRENT_USER),
            Self::Role(name) if name == PUBLIC || name == CURRENT_USER => write!(formatter, "\"{name}\""),
            Self::Role(name) => formatter.write_str(name),
        }
    }
}

impl JsonSchema for LocalUser {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LocalUser".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::LocalUser;

    #[test]
    fn roles_that_are_called_like_keywords_are_told_apart_from_them() {
        for user in [
            LocalUser::Public,
            LocalUser::CurrentUser,
            LocalUser::Role("PUBLIC".into()),
            LocalUser::Role("CURRENT_USER".into()),
            LocalUser::Role("app \"x\"".into()),
        ] {
            assert_eq!(LocalUser::from(user.to_string()), user);
        }
        assert_eq!(LocalUser::from("public"), LocalUser::Public);
    }
}
