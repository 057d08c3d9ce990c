//! Step `analyze`: statistics for the planner, and the counts of rows. A table whose statistics cannot be collected is a
//! warning: no data depends on them.

use tokio_postgres::error::SqlState;

use super::attempt::Attempt;
use super::count_rows::{self, TableToCount};
use super::workers;
use crate::plan::Refusal;
use crate::postgres::connection::Session;
use crate::postgres::quote::qualified;
use crate::postgres::sqlstate;

/// Tables on their own, roots of partitions (which take their leaves along), and materialized views. Where a foreign
/// table is among the children, each local one is named instead: ANALYZE of the root would ask the foreign server.
const TABLES: &str = "
WITH RECURSIVE child (root, relid) AS (
    SELECT oid, oid FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
    UNION ALL SELECT root, inhrelid FROM child JOIN pg_inherits ON inhparent = relid
), far AS (
    SELECT DISTINCT root FROM child JOIN pg_class ON pg_class.oid = relid WHERE relkind = 'f'
)
SELECT nspname::text, relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE (relkind = 'm' OR (relkind IN ('r', 'p') AND NOT relispartition AND c.oid NOT IN (SELECT root FROM far))
    OR (relkind = 'r' AND EXISTS (SELECT FROM child JOIN far USING (root) WHERE relid = c.oid)
        AND NOT EXISTS (SELECT FROM pg_inherits JOIN child f ON f.relid = inhrelid WHERE inhparent = c.oid)))
  AND nspname NOT IN ('pg_catalog', 'information_schema', 'pgrescue') AND nspname NOT LIKE 'pg\\_%'
ORDER BY relpages DESC, c.oid";

/// What a session does.
enum Work {
    Analyze(String),
    Count(TableToCount),
}

/// Collects statistics of every table, and counts their rows for the step `verify`: the statistics of a large table are
/// the work of one connection, beside which the others would wait.
pub(super) async fn run(attempt: &mut Attempt<'_>) -> Result<String, Refusal> {
    let session = attempt.target.connect().await?;
    let rows = session.query(TABLES, &[]).await;
    let rows = rows.map_err(|error| session.refusal(&error, "listing the tables to analyze", None))?;
    let analyzed = rows.len();
    let mut work: Vec<Work> = rows
        .iter()
        .map(|row| Work::Analyze(qualified(row.get(0), row.get(1))))
        .collect();
    if attempt.steps.has_data() {
        let to_count = count_rows::tables(attempt, &session).await?;
        work.extend(to_count.into_iter().map(Work::Count));
    }
    let counts = workers::for_each(attempt, work, async |session, work| match work {
        Work::Analyze(table) => analyze(attempt, session, &table).await.map(|()| None),
        Work::Count(to_count) => {
            let count = count_rows::count(session, &to_count).await?;
            Ok(Some((to_count.table, count)))
        }
    })
    .await?;
    attempt.counts = counts.into_iter().flatten().collect();
    Ok(format!("{analyzed} tables analyzed"))
}

async fn analyze(attempt: &Attempt<'_>, session: &Session, table: &str) -> Result<(), Refusal> {
    match session.batch_execute(&format!("ANALYZE {table}")).await {
        Ok(()) => Ok(()),
        Err(error) if error.as_db_error().is_some() && !session.is_closed() => {
            attempt.context.reporter.warn(format!(
                "Statistics of {table} could not be collected: {} (SQLSTATE {}).",
                sqlstate::text(&error).trim_end_matches('.'),
                error.code().map(SqlState::code).unwrap_or_default()
            ));
            Ok(())
        }
        Err(error) => Err(session.refusal(&error, &format!("analyzing {table}"), Some(table))),
    }
}
