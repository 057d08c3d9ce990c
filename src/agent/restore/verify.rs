//! Step `verify`: the restored database against the manifest. Rows of every table are counted, and indexes and
//! constraints that were good at the source must be good here. Nothing that was not looked at is called verified.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::error::SqlState;

use super::attempt::Attempt;
use super::workers;
use crate::api::conditions::DATA_VERIFIED;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::connection::Session;
use crate::postgres::quote::{identifier, qualified};
use crate::postgres::sqlstate;
use crate::store::manifest::{DatabaseManifest, RelationManifest};

/// A table by schema and name.
type Table = (String, String);

/// What was found out about one table.
enum Count {
    Rows(u64),
    /// The restoring role may not read it.
    Hidden,
}

/// Checks, and sets the condition `DataVerified`.
pub(super) async fn run(attempt: &Attempt<'_>) -> Result<String, Refusal> {
    let database = attempt.source.manifest_database()?;
    let counts = if attempt.steps.has_data() {
        count(attempt, database).await?
    } else {
        BTreeMap::new()
    };
    let (mut wrong, hidden) = compare(database, &counts);
    let session = attempt.target.connect().await?;
    let failed = |error: tokio_postgres::Error| session.refusal(&error, "checking the restored database", None);
    if attempt.steps.has_data() {
        wrong.extend(check_large_objects(&session, database).await.map_err(failed)?);
    }
    wrong.extend(invalid_indexes(&session, database).await.map_err(failed)?);
    wrong.extend(unvalidated_constraints(&session, database).await.map_err(failed)?);
    if !wrong.is_empty() {
        let message = format!("The restored database is not what was backed up: {}.", wrong.join("; "));
        attempt
            .context
            .reporter
            .condition(DATA_VERIFIED, Some(false), reasons::VERIFICATION_FAILED, &message);
        return Err(Refusal::permanent(reasons::VERIFICATION_FAILED, message)
            .object(&attempt.target.database)
            .hint("Restore another backup, and check the disks of the source and the target."));
    }
    Ok(report(attempt, counts.len() - hidden.len(), &hidden))
}

fn report(attempt: &Attempt<'_>, counted: usize, hidden: &[String]) -> String {
    let reporter = &attempt.context.reporter;
    if hidden.is_empty() {
        let message = format!("{counted} tables counted, no invalid index, no unvalidated constraint");
        reporter.condition(DATA_VERIFIED, Some(true), reasons::SUCCEEDED, format!("{message}."));
        return message;
    }
    let message = format!(
        "{counted} tables counted; the rows of {} tables arrived whole, but the role may not count them now: {}",
        hidden.len(),
        hidden.join(", ")
    );
    reporter.condition(DATA_VERIFIED, None, reasons::PERMISSION_DENIED, format!("{message}."));
    message
}

/// Counts the rows of every table that should have some, each by itself, without its children.
async fn count(attempt: &Attempt<'_>, database: &DatabaseManifest) -> Result<BTreeMap<Table, Count>, Refusal> {
    let session = attempt.target.connect().await?;
    let conditions = extension_conditions(&session).await;
    let conditions = conditions.map_err(|error| session.refusal(&error, "reading the tables of extensions", None))?;
    let tables: Vec<(Table, String)> = database
        .relations
        .iter()
        .filter(|relation| is_counted(relation))
        .map(|relation| {
            let owner = attempt
                .plan
                .role_mapping
                .get(&relation.owner)
                .unwrap_or(&relation.owner);
            ((relation.schema.clone(), relation.name.clone()), owner.clone())
        })
        .collect();
    let counts = workers::for_each(attempt, tables, async |session, (table, owner)| {
        let condition = conditions.get(&table).map_or("", String::as_str);
        let count = count_one(session, &table, condition, &owner).await.map_err(|error| {
            let name = qualified(&table.0, &table.1);
            session.refusal(&error, &format!("counting the rows of {name}"), Some(&name))
        })?;
        Ok((table, count))
    })
    .await?;
    Ok(counts.into_iter().collect())
}

/// Tables whose rows were stored; the ledger of the source is not restored.
fn is_counted(relation: &RelationManifest) -> bool {
    relation.rows.is_some() && !super::ledger::is_own(&relation.schema, &relation.name)
}

/// Which rows of an extension's tables are a user's: the `WHERE` that the extension gave (manual,
/// `pg_extension_config_dump`). pg_dump stores these rows alone; the others come with the extension.
async fn extension_conditions(session: &Session) -> Result<BTreeMap<Table, String>, tokio_postgres::Error> {
    let sql = "SELECT nspname::text, relname::text, condition FROM pg_extension, \
                   unnest(extconfig, extcondition) AS config (oid, condition) \
               JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = relnamespace";
    let rows = session.query(sql, &[]).await?;
    rows.iter()
        .map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?)))
        .collect()
}

async fn count_one(
    session: &Session,
    table: &Table,
    condition: &str,
    owner: &str,
) -> Result<Count, tokio_postgres::Error> {
    let sql = format!(
        "SELECT count(*) FROM ONLY {} {condition}",
        qualified(&table.0, &table.1)
    );
    // With row_security off, a policy that would hide rows is an error instead of a smaller count.
    let before = "BEGIN READ ONLY; SET LOCAL row_security = off; SET LOCAL search_path = pg_catalog";
    let as_owner = format!("{before}; SET LOCAL ROLE {}", identifier(owner));
    for begin in [before, as_owner.as_str()] {
        let result = async {
            session.batch_execute(begin).await?;
            session.query_one(&sql, &[]).await
        }
        .await;
        session.batch_execute("ROLLBACK").await?;
        match result {
            Ok(row) => {
                return Ok(Count::Rows(
                    u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default(),
                ));
            }
            Err(error) if sqlstate::is(&error, &SqlState::INSUFFICIENT_PRIVILEGE) => {}
            // The owner may be another one, or none that the role can take on.
            Err(error)
                if sqlstate::is(&error, &SqlState::INVALID_PARAMETER_VALUE)
                    || sqlstate::is(&error, &SqlState::UNDEFINED_OBJECT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Count::Hidden)
}

/// Holds counts against the manifest: what is wrong, and what could not be counted. The leaves of one partitioned table
/// are taken together, since a row may stand in another hash partition after a restore.
fn compare(database: &DatabaseManifest, counts: &BTreeMap<Table, Count>) -> (Vec<String>, Vec<String>) {
    let roots = roots(database);
    let mut sums: BTreeMap<Table, (u64, Option<u64>)> = BTreeMap::new();
    for relation in database.relations.iter().filter(|relation| is_counted(relation)) {
        let table = (relation.schema.clone(), relation.name.clone());
        let Some(count) = counts.get(&table) else { continue };
        let root = roots.get(&table).cloned().unwrap_or(table);
        let (expected, found) = sums.entry(root).or_insert((0, Some(0)));
        *expected += relation.rows.unwrap_or_default();
        *found = match count {
            Count::Rows(rows) => found.map(|sum| sum + rows),
            Count::Hidden => None,
        };
    }
    let mut wrong = Vec::new();
    let mut hidden = Vec::new();
    for ((schema, name), (expected, found)) in sums {
        let name = qualified(&schema, &name);
        match found {
            None => hidden.push(name),
            Some(found) if found != expected => wrong.push(format!("{name} has {found} rows of {expected}")),
            Some(_) => {}
        }
    }
    (wrong, hidden)
}

/// The topmost table of each partition.
fn roots(database: &DatabaseManifest) -> BTreeMap<Table, Table> {
    let parents: BTreeMap<Table, Table> = database
        .relations
        .iter()
        .filter_map(|relation| {
            let partitioning = relation.partitioning.as_ref()?;
            let parent = (partitioning.parent_schema.clone()?, partitioning.parent_name.clone()?);
            Some(((relation.schema.clone(), relation.name.clone()), parent))
        })
        .collect();
    parents
        .keys()
        .map(|table| {
            let mut root = table;
            while let Some(parent) = parents.get(root) {
                root = parent;
            }
            (table.clone(), root.clone())
        })
        .collect()
}

async fn check_large_objects(
    session: &Session,
    database: &DatabaseManifest,
) -> Result<Option<String>, tokio_postgres::Error> {
    let row = session
        .query_one("SELECT count(*) FROM pg_largeobject_metadata", &[])
        .await?;
    let found = u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default();
    let expected = database.large_objects;
    Ok((found != expected).then(|| format!("{found} large objects of {expected}")))
}

/// Indexes that queries may not use here although they could at the source.
async fn invalid_indexes(session: &Session, database: &DatabaseManifest) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "SELECT n.nspname::text, t.relname::text, i.relname::text FROM pg_index \
               JOIN pg_class i ON i.oid = indexrelid JOIN pg_class t ON t.oid = indrelid \
               JOIN pg_namespace n ON n.oid = t.relnamespace WHERE NOT (indisvalid AND indisready)";
    let known: BTreeSet<_> = parts(database, |relation| {
        let invalid = relation.indexes.iter().filter(|index| !index.valid);
        invalid.map(|index| index.name.clone()).collect()
    });
    new_parts(session, sql, &known, "the index").await
}

/// Constraints that were not checked here although they were at the source.
async fn unvalidated_constraints(
    session: &Session,
    database: &DatabaseManifest,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "SELECT n.nspname::text, t.relname::text, conname::text FROM pg_constraint c \
               JOIN pg_class t ON t.oid = conrelid JOIN pg_namespace n ON n.oid = t.relnamespace WHERE NOT convalidated";
    let known: BTreeSet<_> = parts(database, |relation| {
        let unvalidated = relation.constraints.iter().filter(|constraint| !constraint.validated);
        unvalidated.map(|constraint| constraint.name.clone()).collect()
    });
    new_parts(session, sql, &known, "the constraint").await
}

fn parts(
    database: &DatabaseManifest,
    names: impl Fn(&RelationManifest) -> Vec<String>,
) -> BTreeSet<(String, String, String)> {
    let relations = database.relations.iter();
    relations
        .flat_map(|relation| {
            let names = names(relation).into_iter();
            names.map(|name| (relation.schema.clone(), relation.name.clone(), name))
        })
        .collect()
}

async fn new_parts(
    session: &Session,
    sql: &str,
    known: &BTreeSet<(String, String, String)>,
    what: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = session.query(sql, &[]).await?;
    let found = rows.iter().map(|row| {
        let part: (String, String, String) = (row.get(0), row.get(1), row.get(2));
        part
    });
    Ok(found
        .filter(|part| !known.contains(part))
        .map(|(schema, table, name)| {
            let table = qualified(&schema, &table);
            format!("{what} {} of {table} is not valid", identifier(&name))
        })
        .collect())
}
