//! Places in which credentials stand that pgrescue does not take out: they are listed, by name and without a value.

use super::inventory::{FOREIGN_TABLE, SERVER, SUBSCRIPTION, USER_MAPPING, WRAPPER};
use super::secrecy::{looks_secret, names_a_secret};
use crate::postgres::archive::{Text, Toc, TocEntry};

/// Objects of an archive whose definitions look as if they held a credential: connection strings in functions, views,
/// comments and so on, and settings of the database. A sentence for each.
#[must_use]
pub fn plain_credentials(toc: &Toc) -> Vec<String> {
    toc.entries.iter().filter_map(warning).collect()
}

fn warning(entry: &TocEntry) -> Option<String> {
    let handled = [WRAPPER, SERVER, USER_MAPPING, FOREIGN_TABLE, SUBSCRIPTION];
    if handled.iter().any(|kind| entry.description == *kind) {
        return None;
    }
    let definition = entry.definition.as_ref().map(Text::lossy)?;
    let settings = entry.description == "DATABASE PROPERTIES";
    let suspicious = looks_secret(&definition) || (settings && definition.lines().any(sets_a_secret));
    suspicious.then(|| {
        format!(
            "{} holds what looks like a credential; it is stored as it is",
            entry.label()
        )
    })
}

/// `ALTER … SET name TO value`, with a name that announces a secret.
fn sets_a_secret(line: &str) -> bool {
    line.split_once(" SET ").is_some_and(|(_, assignment)| {
        let name = assignment.split(['=', ' ']).next().unwrap_or_default();
        is_custom(name) || names_a_secret(name)
    })
}

/// Whether a setting belongs to an extension or an application: only such settings can hold what PostgreSQL does not
/// know (`app.token`).
fn is_custom(name: &str) -> bool {
    name.contains('.')
}

/// A warning about a setting of a role (`ALTER ROLE … SET`) or of a database, as `pg_db_role_setting` has it, if it may
/// hold a credential. `holder` names role and database.
#[must_use]
pub fn setting_credential(holder: &str, name: &str, value: &str) -> Option<String> {
    let suspicious = is_custom(name) || names_a_secret(name) || looks_secret(value);
    suspicious.then(|| format!("the setting {name} of {holder} may hold a credential; it is stored as it is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_may_hold_a_credential_are_named_without_their_value() {
        let warning = setting_credential("role app", "app.jwt", "canary").unwrap();
        assert_eq!(
            warning,
            "the setting app.jwt of role app may hold a credential; it is stored as it is"
        );
        assert_eq!(setting_credential("role app", "work_mem", "64MB"), None);
        assert!(setting_credential("role app", "search_path", "a, password=x").is_some());
        assert!(sets_a_secret("ALTER DATABASE x SET app.secret TO 'y';"));
        assert!(!sets_a_secret("ALTER DATABASE x SET work_mem TO '64MB';"));
    }
}
