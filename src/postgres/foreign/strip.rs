//! Takes credentials out of an archive before it is stored.

use super::columns::edit_columns;
use super::error::ForeignError;
use super::inventory::{Found, Object, find, own_options, own_options_mut};
use super::secrecy::{OptionOf, is_secret};
use super::statement::{Definition, option};
use super::stripped::{CredentialHolder, StrippedCredential};
use super::subscription::strip_connection;
use crate::postgres::archive::Toc;

/// Removes the secret options of wrappers, servers, user mappings and foreign tables, and what is secret in the
/// connection strings of subscriptions; returns what was removed, by name. What holds no secret stays byte for byte.
pub fn strip_credentials(toc: &mut Toc) -> Result<Vec<StrippedCredential>, ForeignError> {
    let mut stripped = Vec::new();
    let mut changed = Vec::new();
    for mut found in find(toc)? {
        let before = stripped.len();
        strip_one(&mut found, &mut stripped)?;
        if stripped.len() > before {
            changed.push((found.dump_id, found.definition.to_sql()?));
        }
    }
    for (dump_id, sql) in changed {
        if let Some(entry) = toc.entries.iter_mut().find(|entry| entry.dump_id == dump_id) {
            entry.definition = Some(sql);
        }
    }
    Ok(stripped)
}

fn strip_one(found: &mut Found, stripped: &mut Vec<StrippedCredential>) -> Result<(), ForeignError> {
    let definition = &mut found.definition;
    let mut note = |holder, options: Vec<String>| {
        if !options.is_empty() {
            stripped.push(StrippedCredential {
                holder,
                options,
                unknown: false,
            });
        }
    };
    match &found.object {
        Object::Wrapper { name } => note(
            CredentialHolder::Wrapper { name: name.clone() },
            strip_own(definition, OptionOf::Wrapper),
        ),
        Object::Server { name, wrapper } => note(
            CredentialHolder::Server { name: name.clone() },
            strip_own(definition, OptionOf::Server(wrapper)),
        ),
        Object::UserMapping { server, user } => note(
            CredentialHolder::UserMapping {
                server: server.clone(),
                user: user.clone(),
            },
            strip_own(definition, OptionOf::UserMapping),
        ),
        Object::Subscription { name } => note(
            CredentialHolder::Subscription { name: name.clone() },
            strip_connection(definition)?,
        ),
        Object::ForeignTable { server, schema, name } => {
            let holder = |column: Option<&str>| CredentialHolder::ForeignTable {
                server: server.clone(),
                schema: schema.clone(),
                name: name.clone(),
                column: column.map(str::to_owned),
            };
            note(holder(None), strip_own(definition, OptionOf::Table));
            edit_columns(definition, |column, options| {
                note(holder(Some(column)), strip_list(options, OptionOf::Table));
            });
        }
    }
    Ok(())
}

fn strip_own(definition: &mut Definition, of: OptionOf<'_>) -> Vec<String> {
    own_options_mut(definition).map_or_else(Vec::new, |options| strip_list(options, of))
}

fn strip_list(options: &mut Vec<pg_query::Node>, of: OptionOf<'_>) -> Vec<String> {
    let mut names = Vec::new();
    options.retain(|node| match option(node) {
        Some((name, value)) if is_secret(of, name, value) => {
            names.push(name.to_owned());
            false
        }
        _ => true,
    });
    names
}

/// User mappings without options, as `pg_dump` also writes those whose options the dumping role may not see: they are
/// unknown unless that role may read `pg_user_mapping`.
pub fn mappings_without_options(toc: &Toc) -> Result<Vec<StrippedCredential>, ForeignError> {
    Ok(find(toc)?
        .into_iter()
        .filter(|found| own_options(&found.definition).is_empty())
        .filter_map(|found| match found.object {
            Object::UserMapping { server, user } => Some(StrippedCredential {
                holder: CredentialHolder::UserMapping { server, user },
                options: Vec::new(),
                unknown: true,
            }),
            _ => None,
        })
        .collect())
}
