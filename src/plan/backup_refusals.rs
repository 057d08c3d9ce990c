//! The sentences of a backup that is refused or goes on with a warning.

use super::backup::{BackupPlan, Choice};
use super::backup_findings::{Client, Database};
use super::listing::few;
use super::refusal::Refusal;
use crate::api::backup::{CompressionMethod, TableName};
use crate::api::reasons;

/// Names in a sentence before it breaks off.
const LISTED: usize = 5;

/// At most a few names, quoted, and how many more there are.
pub(super) fn list<T: AsRef<str>>(names: &[T]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{:?}", name.as_ref())).collect();
    shortened(&quoted)
}

/// At most a few tables, and how many more there are.
pub(super) fn tables(tables: &[TableName]) -> String {
    shortened(&tables.iter().map(table).collect::<Vec<_>>())
}

fn table(table: &TableName) -> String {
    let TableName { schema, name } = table;
    format!("{schema:?}.{name:?}")
}

fn shortened(names: &[String]) -> String {
    few(names, LISTED)
}

pub(super) fn database_missing(name: &str, databases: &[Database]) -> Refusal {
    let there: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
    Refusal::permanent(
        reasons::DATABASE_MISSING,
        format!("The database {name:?} does not exist on the server."),
    )
    .object(name)
    .hint(format!("The server has {}; names are case-sensitive.", list(&there)))
}

pub(super) fn no_connections(name: &str) -> Refusal {
    Refusal::permanent(
        reasons::DATABASE_MISSING,
        format!("The database {name:?} does not allow connections, so it cannot be read."),
    )
    .object(name)
    .hint("Leave it out, or run ALTER DATABASE … ALLOW_CONNECTIONS true.")
}

pub(super) fn may_not_connect(name: &str, role: &str) -> Refusal {
    Refusal::permanent(
        reasons::PERMISSION_DENIED,
        format!("The role {role:?} may not connect to the database {name:?}."),
    )
    .object(name)
    .hint("GRANT CONNECT ON DATABASE … to the role, or leave the database out by databases.exclude.")
}

pub(super) fn no_database_left() -> Refusal {
    Refusal::permanent(reasons::DATABASE_MISSING, "No database is left to back up.")
        .hint("Take a name out of databases.exclude.")
}

/// A newer client is no way out: what it writes for an older server does not restore there as it was
/// (`ClientTools::for_dump`).
pub(super) fn client_without_compression(method: CompressionMethod, client: &Client) -> Refusal {
    Refusal::permanent(
        reasons::INVALID_SPEC,
        format!(
            "spec.compression.method is {method:?}, which pg_dump {} does not have: servers up to version 15 are dumped by \
             clients of their own version, and {method:?} came with 16.",
            client.version
        ),
    )
    .object("spec.compression.method")
    .hint("Set compression.method to Gzip or None, or leave compression out for the best that fits the server.")
}

pub(super) fn compressed_by_gzip(client: &Client) -> String {
    format!(
        "The rows are compressed by Gzip: pg_dump {}, which fits the server, does not have Zstd. Set compression.method to \
         Gzip to choose this yourself.",
        client.version
    )
}

pub(super) fn schema_missing(schema: &str, databases: &[&str]) -> Refusal {
    Refusal::permanent(
        reasons::INVALID_SPEC,
        format!(
            "The schema {schema:?}, which spec.schemas names, does not exist in {}.",
            list(databases)
        ),
    )
    .object(schema)
    .hint("Names are taken exactly: no patterns, no quotes, case-sensitive. System schemas cannot be chosen.")
}

pub(super) fn table_missing(name: &TableName, databases: &[&str]) -> Refusal {
    let name = table(name);
    Refusal::permanent(
        reasons::INVALID_SPEC,
        format!("The table {name}, which spec.tables names, does not exist in {}.", list(databases)),
    )
    .object(name)
    .hint("Names are taken exactly: no patterns, no quotes, case-sensitive. Tables of extensions and of system schemas cannot be chosen.")
}

pub(super) fn nothing_included(database: &str) -> Refusal {
    Refusal::permanent(
        reasons::INVALID_SPEC,
        format!("The database {database:?} has none of the schemas or tables that the backup includes."),
    )
    .object(database)
    .hint("Leave the database out, or make a backup of its own for it.")
}

fn missing_privilege(database: &str, role: &str, kind: &str, names: &[String], grant: &str) -> Refusal {
    let (listed, first) = (shortened(names), names.first().cloned().unwrap_or_default());
    Refusal::permanent(
        reasons::PERMISSION_DENIED,
        format!("The role {role:?} may not read the {kind} {listed} of the database {database:?}."),
    )
    .object(first)
    .hint(grant)
}

pub(super) fn closed_schemas(database: &str, names: &[String], role: &str) -> Refusal {
    missing_privilege(
        database,
        role,
        if names.len() == 1 { "schema" } else { "schemas" },
        names,
        "GRANT USAGE ON SCHEMA … to the role, or make it a member of pg_read_all_data (PostgreSQL 14 and later), or leave the schema out.",
    )
}

pub(super) fn unreadable_tables(database: &str, names: &[String], role: &str) -> Refusal {
    missing_privilege(
        database,
        role,
        if names.len() == 1 { "table" } else { "tables" },
        names,
        "GRANT SELECT ON … to the role, or make it a member of pg_read_all_data (PostgreSQL 14 and later), or leave the table out by tables.exclude.",
    )
}

pub(super) fn unreadable_sequences(database: &str, names: &[String], role: &str) -> Refusal {
    missing_privilege(
        database,
        role,
        if names.len() == 1 { "sequence" } else { "sequences" },
        names,
        "GRANT SELECT ON SEQUENCE … to the role, or make it a member of pg_read_all_data (PostgreSQL 14 and later).",
    )
}

pub(super) fn unreadable_large_objects(database: &str, count: u64, role: &str) -> Refusal {
    Refusal::permanent(
        reasons::PERMISSION_DENIED,
        format!("The role {role:?} may not read {count} large objects of the database {database:?}."),
    )
    .object(database)
    .hint("GRANT SELECT ON LARGE OBJECT … to the role, or connect as their owner or a superuser.")
}

pub(super) fn row_security(database: &str, names: &[String], role: &str) -> Refusal {
    Refusal::permanent(
        reasons::PERMISSION_DENIED,
        format!(
            "Row security hides rows of {} of the database {database:?} from the role {role:?}; its backup would be a part.",
            shortened(names)
        ),
    )
    .object(names.first().cloned().unwrap_or_default())
    .hint("ALTER ROLE … BYPASSRLS, or connect as a superuser; an owner needs it too where FORCE ROW LEVEL SECURITY is set. Or leave the table's rows out by tables.excludeData.")
}

pub(super) fn unlogged_on_standby(database: &str) -> Refusal {
    Refusal::permanent(
        reasons::INVALID_SPEC,
        format!("The server is a standby, where the unlogged tables of the database {database:?} cannot be read."),
    )
    .object(database)
    .hint("Set unloggedTableData to Exclude, or connect to the primary.")
}

pub(super) fn too_few_locks(database: &str, tables: u64, needed: u64, slots: u64) -> Refusal {
    Refusal::permanent(
        reasons::TOO_FEW_LOCKS,
        format!(
            "The database {database:?} has {tables} tables, which two sessions lock: {needed} locks. The server is laid \
             out for {slots}; the backup could make other sessions fail with \"out of shared memory\"."
        ),
    )
    .object(database)
    .hint(format!(
        "Raise max_locks_per_transaction to {} times its value or more and restart the server, or choose fewer schemas.",
        needed.div_ceil(slots.max(1))
    ))
}

pub(super) fn lock_table_half_full(database: &str, needed: u64, slots: u64) -> String {
    format!(
        "The backup of {database:?} holds {needed} locks, and the server is laid out for {slots}: consider a larger \
         max_locks_per_transaction."
    )
}

pub(super) fn subscriptions_left_out(database: &str, names: &[String], role: &str) -> String {
    format!(
        "The subscriptions {} of {database:?} are not in the backup: pg_dump reads them for superusers alone, and {role:?} is none.",
        list(names)
    )
}

pub(super) fn role_passwords_left_out(role: &str) -> String {
    format!("The roles are stored without passwords: {role:?} may not read pg_authid.")
}

/// pg_dump takes what belongs to no schema only along with everything.
pub(super) fn part_of_a_database(plan: &BackupPlan) -> Option<String> {
    let by = match (&plan.schemas, &plan.tables) {
        (_, Choice::Include(_)) => "tables",
        (Choice::Include(_), _) => "schemas",
        _ => return None,
    };
    Some(format!(
        "The backup holds the chosen {by} alone: extensions, foreign servers, publications, event triggers and large \
         objects are not in it, nor what the chosen objects need from elsewhere."
    ))
}
