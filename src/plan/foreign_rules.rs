//! What the rules for foreign servers must hold before anything looks at a server: each matcher says something, each
//! mapping rule says one thing, and no rule contradicts itself or repeats another.

use std::collections::BTreeSet;

use super::connection::{check_text, invalid};
use super::refusal::Refusal;
use crate::api::foreign_servers::{
    ForeignServerMatch, ForeignServerRule, ForeignTableRule, OptionChanges, UserMappingRule,
};

/// Checks all rules. `field` is their path in the manifest.
pub fn check(rules: &[ForeignServerRule], field: &str) -> Result<(), Refusal> {
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("{field}[{at}]");
        let ForeignServerRule {
            matches,
            options,
            user_mappings,
            foreign_tables,
            wrapper_options,
        } = rule;
        check_match(matches, &format!("{path}.match"))?;
        if let Some(twin) = rules[..at].iter().position(|other| other.matches == *matches) {
            return Err(
                invalid(&path, &format!("has the same match as {field}[{twin}]")).hint("Put both rules into one.")
            );
        }
        if let Some(changes) = options {
            check_options(changes, &format!("{path}.options"))?;
        }
        check_mappings(user_mappings, &format!("{path}.userMappings"))?;
        check_tables(foreign_tables, &format!("{path}.foreignTables"))?;
        if let Some(changes) = wrapper_options {
            check_options(changes, &format!("{path}.wrapperOptions"))?;
        }
    }
    Ok(())
}

fn check_match(matches: &ForeignServerMatch, field: &str) -> Result<(), Refusal> {
    let ForeignServerMatch { name, wrapper, option } = matches;
    if name.is_none() && wrapper.is_none() && option.is_empty() {
        return Err(invalid(field, "selects nothing")
            .hint("Give the name of a server, a wrapper, or an option with its value."));
    }
    for (key, text) in [("name", name), ("wrapper", wrapper)] {
        if let Some(text) = text {
            check_text(text, &format!("{field}.{key}"))?;
        }
    }
    for (name, value) in option {
        check_option_name(name, &format!("{field}.option"))?;
        check_value(value, &format!("{field}.option.{name}"))?;
    }
    Ok(())
}

fn check_options(changes: &OptionChanges, field: &str) -> Result<(), Refusal> {
    let OptionChanges { set, secret_ref, drop } = changes;
    for (name, value) in set {
        check_option_name(name, &format!("{field}.set"))?;
        check_value(value, &format!("{field}.set.{name}"))?;
    }
    if let Some(secret) = secret_ref {
        check_text(&secret.name, &format!("{field}.secretRef.name"))?;
    }
    let mut seen = BTreeSet::new();
    for name in drop {
        check_option_name(name, &format!("{field}.drop"))?;
        if set.contains_key(name) {
            return Err(invalid(field, &format!("sets and drops the option {name:?}"))
                .hint("An option that is set needs no drop: its old value is replaced."));
        }
        if !seen.insert(name) {
            return Err(invalid(
                &format!("{field}.drop"),
                &format!("names the option {name:?} twice"),
            ));
        }
    }
    Ok(())
}

fn check_tables(rules: &[ForeignTableRule], field: &str) -> Result<(), Refusal> {
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("{field}[{at}]");
        let ForeignTableRule {
            schema,
            name,
            column,
            options,
        } = rule;
        for (key, text) in [("schema", schema), ("name", name), ("column", column)] {
            if let Some(text) = text {
                check_text(text, &format!("{path}.{key}"))?;
            }
        }
        check_options(options, &format!("{path}.options"))?;
    }
    Ok(())
}

fn check_mappings(rules: &[UserMappingRule], field: &str) -> Result<(), Refusal> {
    let mut users = BTreeSet::new();
    let mut results = BTreeSet::new();
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("{field}[{at}]");
        let UserMappingRule {
            local_user,
            secret_ref,
            rename_to,
            keep,
            drop,
        } = rule;
        check_text(local_user, &format!("{path}.localUser"))?;
        if let Some(secret) = secret_ref {
            check_text(&secret.name, &format!("{path}.secretRef.name"))?;
        }
        if let Some(role) = rename_to {
            check_text(role, &format!("{path}.renameTo"))?;
        }
        let drop = *drop == Some(true);
        let choices = usize::from(secret_ref.is_some()) + usize::from(*keep == Some(true)) + usize::from(drop);
        if choices != 1 {
            return Err(invalid(
                &path,
                &format!(
                    "says {} about the mapping of {local_user:?}",
                    if choices == 0 { "nothing" } else { "several things" }
                ),
            )
            .hint("Give exactly one of secretRef, keep: true and drop: true."));
        }
        if drop && rename_to.is_some() {
            return Err(
                invalid(&path, &format!("drops the mapping of {local_user:?} and renames it"))
                    .hint("Leave out renameTo, or give secretRef or keep: true in place of drop."),
            );
        }
        if !users.insert(local_user) {
            return Err(
                invalid(&path, &format!("is the second rule for the mapping of {local_user:?}"))
                    .hint("Put both rules into one."),
            );
        }
        let result = rename_to.as_ref().unwrap_or(local_user);
        if !drop && !results.insert(result) {
            return Err(
                invalid(&path, &format!("gives {result:?} a second mapping on the same server"))
                    .hint("Each role has at most one mapping on a server."),
            );
        }
    }
    Ok(())
}

fn check_option_name(name: &str, field: &str) -> Result<(), Refusal> {
    check_text(name, &format!("an option's name in {field}"))?;
    // PostgreSQL keeps options as name=value (transformGenericOptions, option names may not hold "=").
    if name.contains('=') {
        return Err(invalid(
            field,
            &format!("names the option {name:?}; an option's name holds no \"=\""),
        ));
    }
    Ok(())
}

/// An option's value may be empty.
fn check_value(value: &str, field: &str) -> Result<(), Refusal> {
    if value.contains('\0') {
        return Err(invalid(field, "contains a NUL character"));
    }
    Ok(())
}
