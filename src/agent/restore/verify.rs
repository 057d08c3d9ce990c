//! Step `verify`: the restored database against the manifest. The rows of every table were counted, and indexes and
//! constraints that were good at the source must be good here. Nothing that was not looked at is called verified.

use std::collections::{BTreeMap, BTreeSet};

use super::attempt::Attempt;
use super::count_rows::{Count, Counts, Table, is_counted};
use crate::api::conditions::DATA_VERIFIED;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::connection::Session;
use crate::postgres::quote::{identifier, qualified};
use crate::store::manifest::{DatabaseManifest, RelationManifest};

/// Checks, and sets the condition `DataVerified`.
pub(super) async fn run(attempt: &Attempt<'_>) -> Result<String, Refusal> {
    let database = attempt.source.manifest_database()?;
    let (mut wrong, hidden) = if attempt.steps.has_data() {
        compare(database, &attempt.counts)
    } else {
        (Vec::new(), Vec::new())
    };
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
    Ok(report(attempt, attempt.counts.len() - hidden.len(), &hidden))
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

/// Holds counts against the manifest: what is wrong, and what could not be counted. The leaves of one partitioned table
/// are taken together, since a row may stand in another hash partition after a restore.
fn compare(database: &DatabaseManifest, counts: &Counts) -> (Vec<String>, Vec<String>) {
    let roots = roots(database);
    let mut wrong = Vec::new();
    let mut sums: BTreeMap<Table, (u64, Option<u64>)> = BTreeMap::new();
    for relation in database.relations.iter().filter(|relation| is_counted(relation)) {
        let table = (relation.schema.clone(), relation.name.clone());
        let Some(count) = counts.get(&table) else {
            wrong.push(format!(
                "the rows of {} were not counted",
                qualified(&table.0, &table.1)
            ));
            continue;
        };
        let root = roots.get(&table).cloned().unwrap_or(table);
        let (expected, found) = sums.entry(root).or_insert((0, Some(0)));
        *expected += relation.rows.unwrap_or_default();
        *found = match count {
            Count::Rows(rows) => found.map(|sum| sum + rows),
            Count::Hidden => None,
        };
    }
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
