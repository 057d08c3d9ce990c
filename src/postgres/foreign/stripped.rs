//! What was kept out of a backup, and where it belongs.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::server::{ForeignServer, LocalUser, ShownOptions};

/// Secret options that are not in the backup. A restore must be given them, or be told to leave them out.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StrippedCredential {
    /// The object that had them.
    #[serde(flatten)]
    pub holder: CredentialHolder,
    /// Names of the options.
    #[serde(default)]
    pub options: Vec<String>,
    /// The dumping role was not allowed to see whether the object has options at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

/// An object that can hold credentials.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum CredentialHolder {
    /// A foreign data wrapper.
    Wrapper {
        /// Its name.
        name: String,
    },
    /// A foreign server.
    Server {
        /// Its name.
        name: String,
    },
    /// A user mapping.
    UserMapping {
        /// Its server.
        server: String,
        /// Whom it is for.
        user: LocalUser,
    },
    /// A foreign table.
    ForeignTable {
        /// Its server.
        server: String,
        /// Its schema.
        schema: String,
        /// Its name.
        name: String,
        /// The column, where the options are a column's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        column: Option<String>,
    },
    /// A subscription.
    Subscription {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for CredentialHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrapper { name } => write!(formatter, "foreign data wrapper {name:?}"),
            Self::Server { name } => write!(formatter, "foreign server {name:?}"),
            Self::UserMapping { server, user } => {
                write!(formatter, "user mapping of {user} on foreign server {server:?}")
            }
            Self::ForeignTable {
                schema, name, column, ..
            } => {
                if let Some(column) = column {
                    write!(formatter, "column {column:?} of ")?;
                }
                write!(formatter, "foreign table {schema:?}.{name:?}")
            }
            Self::Subscription { name } => write!(formatter, "subscription {name:?}"),
        }
    }
}

/// The servers of a stripped archive with the names of the options that were taken out, as the database had them.
#[must_use]
pub fn with_stripped(servers: &[ForeignServer], stripped: &[StrippedCredential]) -> Vec<ForeignServer> {
    let mut servers = servers.to_vec();
    for credential in stripped {
        for server in &mut servers {
            if let Some(options) = options_of(server, &credential.holder) {
                for option in &credential.options {
                    options.entry(option.clone()).or_insert(None);
                }
            }
        }
    }
    servers
}

/// The options of the holder, if it is the server or hangs on it.
fn options_of<'a>(server: &'a mut ForeignServer, holder: &CredentialHolder) -> Option<&'a mut ShownOptions> {
    match holder {
        CredentialHolder::Server { name } => (*name == server.name).then_some(&mut server.options),
        CredentialHolder::UserMapping { server: name, user } if *name == server.name => {
            let mapping = server.user_mappings.iter_mut().find(|mapping| mapping.user == *user)?;
            Some(&mut mapping.options)
        }
        CredentialHolder::ForeignTable {
            server: of,
            schema,
            name,
            column,
        } if *of == server.name => {
            let mut tables = server.foreign_tables.iter_mut();
            let table = tables.find(|table| table.schema == *schema && table.name == *name)?;
            Some(match column {
                None => &mut table.options,
                Some(column) => table.column_options.entry(column.clone()).or_default(),
            })
        }
        CredentialHolder::UserMapping { .. }
        | CredentialHolder::ForeignTable { .. }
        | CredentialHolder::Wrapper { .. }
        | CredentialHolder::Subscription { .. } => None,
    }
}
