//! Finds the foreign objects and subscriptions of an archive.

use std::collections::{BTreeMap, BTreeSet};

use pg_query::protobuf::{AlterTableType, CreateForeignTableStmt, RoleSpec, RoleSpecType};
use pg_query::{Node, NodeEnum};

use super::error::ForeignError;
use super::secrecy::{OptionOf, is_secret};
use super::server::{ForeignServer, ForeignTable, LocalUser, ShownOptions, UserMapping};
use super::statement::{Definition, Dialect, option};
use super::stripped::{CredentialHolder, StrippedCredential, with_stripped};
use crate::postgres::archive::{Toc, TocEntry};

/// `desc` of the entries that `pg_dump` writes for foreign objects and subscriptions.
pub(super) const WRAPPER: &str = "FOREIGN DATA WRAPPER";
pub(super) const SERVER: &str = "SERVER";
pub(super) const USER_MAPPING: &str = "USER MAPPING";
pub(super) const FOREIGN_TABLE: &str = "FOREIGN TABLE";
pub(super) const SUBSCRIPTION: &str = "SUBSCRIPTION";

/// Which object an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Wrapper {
        name: String,
    },
    Server {
        name: String,
        wrapper: String,
    },
    UserMapping {
        server: String,
        user: LocalUser,
    },
    ForeignTable {
        server: String,
        schema: String,
        name: String,
    },
    Subscription {
        name: String,
    },
}

/// An entry that is a foreign object or a subscription, parsed.
pub(super) struct Found {
    pub(super) dump_id: i32,
    pub(super) owner: Option<String>,
    pub(super) object: Object,
    pub(super) definition: Definition,
}

/// Every foreign object and subscription, in the order of the archive.
pub(super) fn find(toc: &Toc) -> Result<Vec<Found>, ForeignError> {
    let dialect = Dialect::of(toc);
    let kinds = [WRAPPER, SERVER, USER_MAPPING, FOREIGN_TABLE, SUBSCRIPTION];
    toc.entries
        .iter()
        .filter(|entry| kinds.iter().any(|kind| entry.description == *kind))
        .map(|entry| {
            let definition = dialect.parse(entry)?;
            let object = identify(entry, &definition).ok_or_else(|| definition.unexpected())?;
            Ok(Found {
                dump_id: entry.dump_id,
                owner: entry
                    .owner
                    .as_ref()
                    .filter(|owner| !owner.is_empty())
                    .map(|owner| owner.lossy().into_owned()),
                object,
                definition,
            })
        })
        .collect()
}

/// The object by its first statement, which must be the one that belongs to the kind of entry.
fn identify(entry: &TocEntry, definition: &Definition) -> Option<Object> {
    let statement = definition.statements().next()?;
    match (entry.description.to_str()?, statement) {
        (WRAPPER, NodeEnum::CreateFdwStmt(create)) => Some(Object::Wrapper {
            name: create.fdwname.clone(),
        }),
        (SERVER, NodeEnum::CreateForeignServerStmt(create)) => Some(Object::Server {
            name: create.servername.clone(),
            wrapper: create.fdwname.clone(),
        }),
        (USER_MAPPING, NodeEnum::CreateUserMappingStmt(create)) => Some(Object::UserMapping {
            server: create.servername.clone(),
            user: local_user(create.user.as_ref()?)?,
        }),
        (FOREIGN_TABLE, NodeEnum::CreateForeignTableStmt(create)) => {
            let relation = create.base_stmt.as_ref()?.relation.as_ref()?;
            Some(Object::ForeignTable {
                server: create.servername.clone(),
                schema: relation.schemaname.clone(),
                name: relation.relname.clone(),
            })
        }
        (SUBSCRIPTION, NodeEnum::CreateSubscriptionStmt(create)) => Some(Object::Subscription {
            name: create.subname.clone(),
        }),
        _ => None,
    }
}

fn local_user(role: &RoleSpec) -> Option<LocalUser> {
    match role.roletype() {
        RoleSpecType::RolespecPublic => Some(LocalUser::Public),
        RoleSpecType::RolespecCurrentUser | RoleSpecType::RolespecCurrentRole | RoleSpecType::RolespecSessionUser => {
            Some(LocalUser::CurrentUser)
        }
        RoleSpecType::RolespecCstring => Some(LocalUser::Role(role.rolename.clone())),
        RoleSpecType::Undefined => None,
    }
}

/// Everything of an archive that a restore may have to rewrite, without a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The foreign servers.
    pub servers: Vec<ForeignServer>,
    /// Options of the foreign data wrappers that belong to no extension.
    pub wrappers: BTreeMap<String, ShownOptions>,
    /// User mappings, by server, of which could not be seen whether they have options.
    pub unknown: BTreeSet<(String, LocalUser)>,
}

/// What an archive holds, with what was stripped from it as the database had it.
pub fn inventory(toc: &Toc, stripped: &[StrippedCredential]) -> Result<Inventory, ForeignError> {
    let found = find(toc)?;
    let of_wrapper = |found: &Found| match &found.object {
        Object::Wrapper { name } => Some((name.clone(), shown(OptionOf::Wrapper, own_options(&found.definition)))),
        _ => None,
    };
    let mut inventory = Inventory {
        servers: with_stripped(&describe(&found), stripped),
        wrappers: found.iter().filter_map(of_wrapper).collect(),
        unknown: BTreeSet::new(),
    };
    for credential in stripped {
        match &credential.holder {
            CredentialHolder::Wrapper { name } => {
                let options = inventory.wrappers.entry(name.clone()).or_default();
                options.extend(credential.options.iter().map(|option| (option.clone(), None)));
            }
            CredentialHolder::UserMapping { server, user } if credential.unknown => {
                inventory.unknown.insert((server.clone(), user.clone()));
            }
            _ => {}
        }
    }
    Ok(inventory)
}

/// The names of the subscriptions of an archive.
pub fn subscriptions(toc: &Toc) -> Result<Vec<String>, ForeignError> {
    Ok(subscription_names(&find(toc)?))
}

pub(super) fn subscription_names(found: &[Found]) -> Vec<String> {
    found
        .iter()
        .filter_map(|found| match &found.object {
            Object::Subscription { name } => Some(name.clone()),
            _ => None,
        })
        .collect()
}

pub(super) fn describe(found: &[Found]) -> Vec<ForeignServer> {
    let mut servers: Vec<ForeignServer> = Vec::new();
    for found in found {
        match &found.object {
            Object::Server { name, wrapper } => servers.push(ForeignServer {
                name: name.clone(),
                wrapper: wrapper.clone(),
                owner: found.owner.clone(),
                options: shown(OptionOf::Server(wrapper), own_options(&found.definition)),
                user_mappings: Vec::new(),
                foreign_tables: Vec::new(),
            }),
            Object::UserMapping { server, user } => {
                let mapping = UserMapping {
                    user: user.clone(),
                    options: shown(OptionOf::UserMapping, own_options(&found.definition)),
                };
                if let Some(server) = servers.iter_mut().find(|candidate| candidate.name == *server) {
                    server.user_mappings.push(mapping);
                }
            }
            Object::ForeignTable { server, schema, name } => {
                let table = ForeignTable {
                    schema: schema.clone(),
                    name: name.clone(),
                    options: shown(OptionOf::Table, own_options(&found.definition)),
                    column_options: column_options(&found.definition)
                        .map(|(column, options)| (column.to_owned(), shown(OptionOf::Table, options)))
                        .collect(),
                };
                if let Some(server) = servers.iter_mut().find(|candidate| candidate.name == *server) {
                    server.foreign_tables.push(table);
                }
            }
            Object::Wrapper { .. } | Object::Subscription { .. } => {}
        }
    }
    servers
}

fn shown(of: OptionOf<'_>, options: &[Node]) -> ShownOptions {
    let visible = |name: &str, value: &str| (!is_secret(of, name, value)).then(|| value.to_owned());
    options
        .iter()
        .filter_map(option)
        .map(|(name, value)| (name.to_owned(), visible(name, value)))
        .collect()
}

/// The options of the object itself.
pub(super) fn own_options(definition: &Definition) -> &[Node] {
    match definition.statements().next() {
        Some(NodeEnum::CreateFdwStmt(create)) => &create.options,
        Some(NodeEnum::CreateForeignServerStmt(create)) => &create.options,
        Some(NodeEnum::CreateUserMappingStmt(create)) => &create.options,
        Some(NodeEnum::CreateForeignTableStmt(create)) => &create.options,
        _ => &[],
    }
}

/// The options of the object itself, to be changed.
pub(super) fn own_options_mut(definition: &mut Definition) -> Option<&mut Vec<Node>> {
    match definition.statements_mut().next()? {
        NodeEnum::CreateFdwStmt(create) => Some(&mut create.options),
        NodeEnum::CreateForeignServerStmt(create) => Some(&mut create.options),
        NodeEnum::CreateUserMappingStmt(create) => Some(&mut create.options),
        NodeEnum::CreateForeignTableStmt(create) => Some(&mut create.options),
        _ => None,
    }
}

/// Options of a foreign table's columns. `pg_dump` writes them as `ALTER FOREIGN TABLE … ALTER COLUMN … OPTIONS`.
pub(super) fn column_options(definition: &Definition) -> impl Iterator<Item = (&str, &[Node])> {
    definition
        .statements()
        .filter_map(|statement| match statement {
            NodeEnum::AlterTableStmt(alter) => Some(&alter.cmds),
            _ => None,
        })
        .flatten()
        .filter_map(|command| match command.node.as_ref()? {
            NodeEnum::AlterTableCmd(command) if command.subtype() == AlterTableType::AtAlterColumnGenericOptions => {
                match command.def.as_ref()?.node.as_ref()? {
                    NodeEnum::List(list) => Some((command.name.as_str(), list.items.as_slice())),
                    _ => None,
                }
            }
            _ => None,
        })
}

/// Whether a foreign table has the column.
pub(super) fn has_column(create: &CreateForeignTableStmt, column: &str) -> bool {
    let columns = create.base_stmt.iter().flat_map(|base| &base.table_elts);
    columns.into_iter().any(|element| match element.node.as_ref() {
        Some(NodeEnum::ColumnDef(definition)) => definition.colname == column,
        _ => false,
    })
}
