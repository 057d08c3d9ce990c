//! Roles that an archive names: owners, grantees, grantors, and whom policies are for.

use std::collections::{BTreeMap, BTreeSet};

use pg_query::protobuf::RoleSpecType;
use serde_json::Value;

use super::error::ForeignError;
use super::statement::{Dialect, forget_locations};
use crate::postgres::archive::{Text, Toc, TocEntry};
use crate::postgres::quote;

/// Entries whose statements name roles.
const NAMING_ROLES: [&str; 3] = ["ACL", "DEFAULT ACL", "POLICY"];

/// Gives the place of roles to others: in owners, grants, default privileges and policies. User mappings follow the
/// rules of their servers. Only the names change; the rest of every statement stays byte for byte.
pub fn map_roles(toc: &mut Toc, mapping: &BTreeMap<String, String>) -> Result<(), ForeignError> {
    if mapping.is_empty() {
        return Ok(());
    }
    let dialect = Dialect::of(toc);
    for entry in &mut toc.entries {
        let mapped = entry
            .owner
            .as_ref()
            .and_then(Text::to_str)
            .and_then(|owner| mapping.get(owner));
        if let Some(mapped) = mapped {
            entry.owner = Some(mapped.as_str().into());
        }
        if NAMING_ROLES.iter().any(|kind| entry.description == *kind)
            && let Some(changed) = map_statement(entry, mapping, &dialect)?
        {
            entry.definition = Some(changed);
        }
    }
    Ok(())
}

/// Every role that the archive's owners, grants, default privileges and policies name.
pub fn named_roles(toc: &Toc) -> Result<BTreeSet<String>, ForeignError> {
    let dialect = Dialect::of(toc);
    let mut roles = BTreeSet::new();
    for entry in &toc.entries {
        let owner = entry.owner.as_ref().filter(|owner| !owner.is_empty());
        roles.extend(owner.map(|owner| owner.lossy().into_owned()));
        if NAMING_ROLES.iter().any(|kind| entry.description == *kind) {
            let definition = dialect.parse(entry)?;
            let mut tree = serde_json::to_value(&definition.tree).unwrap_or_default();
            visit_roles(&mut tree, &mut |name, _| {
                roles.insert(name.clone());
            });
        }
    }
    Ok(roles)
}

fn map_statement(
    entry: &TocEntry,
    mapping: &BTreeMap<String, String>,
    dialect: &Dialect,
) -> Result<Option<Text>, ForeignError> {
    let definition = dialect.parse(entry)?;
    let mut tree = serde_json::to_value(&definition.tree).unwrap_or_default();
    let mut places = BTreeMap::new();
    visit_roles(&mut tree, &mut |name, location| {
        if let Some(mapped) = mapping.get(name.as_str()) {
            places.insert(location, mapped.clone());
            name.clone_from(mapped);
        }
    });
    if places.is_empty() {
        return Ok(None);
    }
    let failed = || ForeignError::RewriteChangesMore { object: entry.label() };
    let sql = entry.definition.as_ref().and_then(Text::to_str).ok_or_else(failed)?;
    for mapped in places.values() {
        definition.check_encoding(mapped)?;
    }
    let changed = splice(sql, &places).ok_or_else(failed)?;
    let again = dialect.parse_sql(&changed).map_err(|_| failed())?;
    let mut expected = tree;
    forget_locations(&mut expected);
    let mut found = serde_json::to_value(&again).unwrap_or_default();
    forget_locations(&mut found);
    if expected == found {
        Ok(Some(changed.into()))
    } else {
        Err(failed())
    }
}

/// Replaces the tokens that begin at the given places by identifiers.
fn splice(sql: &str, places: &BTreeMap<usize, String>) -> Option<String> {
    let tokens = pg_query::scan(sql).ok()?.tokens;
    let mut changed = String::with_capacity(sql.len());
    let mut done = 0;
    for (place, name) in places {
        let token = tokens.iter().find(|token| usize::try_from(token.start) == Ok(*place))?;
        let end = usize::try_from(token.end).ok()?;
        changed.push_str(sql.get(done..*place)?);
        changed.push_str(&quote::identifier(name));
        done = end;
    }
    changed.push_str(sql.get(done..)?);
    Some(changed)
}

/// Calls `visit` with the name and the place of every role of a tree: those that the grammar knows as roles, and the
/// one of `SET SESSION AUTHORIZATION`, with which `pg_dump` writes grants of other grantors.
fn visit_roles(value: &mut Value, visit: &mut impl FnMut(&mut String, usize)) {
    match value {
        Value::Object(fields) => {
            if fields.get("roletype").and_then(Value::as_i64) == Some(RoleSpecType::RolespecCstring as i64) {
                visit_name(fields, "rolename", visit);
            }
            let authorization = fields.get("name").and_then(Value::as_str) == Some("session_authorization");
            if let Some(arguments) = fields.get_mut("args").filter(|_| authorization) {
                visit_constants(arguments, visit);
            }
            fields.values_mut().for_each(|value| visit_roles(value, visit));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| visit_roles(value, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn visit_name(fields: &mut serde_json::Map<String, Value>, key: &str, visit: &mut impl FnMut(&mut String, usize)) {
    let place = fields
        .get("location")
        .and_then(Value::as_u64)
        .and_then(|place| usize::try_from(place).ok());
    if let (Some(place), Some(Value::String(name))) = (place, fields.get_mut(key)) {
        visit(name, place);
    }
}

fn visit_constants(arguments: &mut Value, visit: &mut impl FnMut(&mut String, usize)) {
    for argument in arguments.as_array_mut().into_iter().flatten() {
        let Some(constant) = argument.pointer_mut("/node/AConst") else {
            continue;
        };
        let place = constant
            .get("location")
            .and_then(Value::as_u64)
            .and_then(|place| usize::try_from(place).ok());
        if let (Some(place), Some(Value::String(name))) = (place, constant.pointer_mut("/val/Sval/sval")) {
            visit(name, place);
        }
    }
}
