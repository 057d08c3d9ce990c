//! Which databases of a server a backup takes.

use super::backup::DatabaseChoice;
use super::backup_findings::Database;
use super::backup_refusals as refusals;
use super::refusal::Refusal;

/// Databases that nobody means by "all": the pristine template, and the one that RDS keeps to itself.
const NEVER_ALL: [&str; 2] = ["template0", "rdsadmin"];

/// What stands for all databases where a connection names one.
const ALL: &str = "*";

/// The databases to back up, sorted. `of_connection` is the one that the connection names, `role` the one that asks.
pub fn choose_databases(
    choice: &DatabaseChoice,
    of_connection: Option<&str>,
    databases: &[Database],
    role: &str,
) -> Result<Vec<String>, Refusal> {
    let all_but = |exclude: &[String]| {
        let open = databases.iter().filter(|database| database.allows_connections);
        open.map(|database| database.name.clone())
            .filter(|name| !NEVER_ALL.contains(&name.as_str()) && !exclude.contains(name))
            .collect::<Vec<_>>()
    };
    let mut chosen = match (choice, of_connection) {
        (DatabaseChoice::Include(names), _) => names.clone(),
        (DatabaseChoice::Exclude(names), _) => {
            for name in names {
                find(databases, name)?;
            }
            all_but(names)
        }
        (DatabaseChoice::OfConnection, None | Some(ALL)) => all_but(&[]),
        (DatabaseChoice::OfConnection, Some(name)) => vec![name.to_owned()],
    };
    if chosen.is_empty() {
        return Err(refusals::no_database_left());
    }
    chosen.sort();
    for name in &chosen {
        let database = find(databases, name)?;
        if !database.allows_connections {
            return Err(refusals::no_connections(name));
        }
        if !database.may_connect {
            return Err(refusals::may_not_connect(name, role));
        }
    }
    Ok(chosen)
}

fn find<'a>(databases: &'a [Database], name: &str) -> Result<&'a Database, Refusal> {
    let found = databases.iter().find(|database| database.name == name);
    found.ok_or_else(|| refusals::database_missing(name, databases))
}
