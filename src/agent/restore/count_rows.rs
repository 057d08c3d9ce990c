//! The rows of the restored tables, counted: what the step `verify` holds against the manifest.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tokio_postgres::error::SqlState;

use super::attempt::Attempt;
use crate::plan::Refusal;
use crate::postgres::connection::Session;
use crate::postgres::quote::{identifier, qualified};
use crate::postgres::sqlstate;
use crate::store::manifest::RelationManifest;

/// A table by schema and name.
pub(super) type Table = (String, String);

/// What was found out about one table.
pub(super) enum Count {
    Rows(u64),
    /// The restoring role may not read it.
    Hidden,
}

/// What was found out about each.
pub(super) type Counts = BTreeMap<Table, Count>;

/// A table whose rows are to be counted, by itself, without its children.
pub(super) struct TableToCount {
    pub table: Table,
    /// `WHERE …`, or nothing.
    condition: String,
    owner: String,
}

/// Every table that should have rows, those with most of them first.
pub(super) async fn tables(attempt: &Attempt<'_>, session: &Session) -> Result<Vec<TableToCount>, Refusal> {
    let database = attempt.source.manifest_database()?;
    let mut conditions = extension_conditions(session)
        .await
        .map_err(|error| session.refusal(&error, "reading the tables of extensions", None))?;
    let mut relations: Vec<_> = database.relations.iter().filter(|it| is_counted(it)).collect();
    relations.sort_by_key(|relation| Reverse(relation.rows));
    let to_count = relations.into_iter().map(|relation| {
        let owner = attempt.plan.role_mapping.get(&relation.owner);
        let table = (relation.schema.clone(), relation.name.clone());
        TableToCount {
            condition: conditions.remove(&table).unwrap_or_default(),
            table,
            owner: owner.unwrap_or(&relation.owner).clone(),
        }
    });
    Ok(to_count.collect())
}

/// Tables whose rows were stored; the ledger of the source is not restored.
pub(super) fn is_counted(relation: &RelationManifest) -> bool {
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

/// Counts the rows of a table.
pub(super) async fn count(session: &Session, to_count: &TableToCount) -> Result<Count, Refusal> {
    let name = qualified(&to_count.table.0, &to_count.table.1);
    try_count(session, &name, to_count)
        .await
        .map_err(|error| session.refusal(&error, &format!("counting the rows of {name}"), Some(&name)))
}

async fn try_count(session: &Session, name: &str, to_count: &TableToCount) -> Result<Count, tokio_postgres::Error> {
    let sql = format!("SELECT count(*) FROM ONLY {name} {}", to_count.condition);
    // With row_security off, a policy that would hide rows is an error instead of a smaller count.
    let before =
        "BEGIN READ ONLY; SET LOCAL row_security = off; SET LOCAL jit = off; SET LOCAL search_path = pg_catalog";
    let as_owner = format!("{before}; SET LOCAL ROLE {}", identifier(&to_count.owner));
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
