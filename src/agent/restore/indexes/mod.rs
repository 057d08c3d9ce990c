//! Step `indexes`: the indexes of tables with rows, the largest first, each in a transaction of its own. So a retry
//! builds those that are missing.

mod build;
mod order;
mod queue;

use std::collections::BTreeSet;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio_postgres::error::SqlState;

use super::attempt::Attempt;
use super::build_limits::BuildLimits;
use super::count_rows::Table;
use super::target::PASS_AUTOVACUUM;
use super::{failure, pg_restore};
use crate::plan::Refusal;
use crate::plan::restore_steps::names;
use crate::postgres::connection::Session;
use crate::postgres::program::without_secrets;
use crate::postgres::wire::{WireError, WireSession};
use build::IndexBuild;
use queue::Queue;

/// Valid indexes by schema and name of the table and name of the index.
const VALID_INDEXES: &str = "
SELECT nspname::text, t.relname::text, i.relname::text FROM pg_index
JOIN pg_class t ON t.oid = indrelid JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_class i ON i.oid = indexrelid
WHERE indisvalid";

/// Builds them.
pub(super) async fn run(attempt: &mut Attempt<'_>) -> Result<String, Refusal> {
    let session = attempt.target.connect().await?;
    let limits = BuildLimits::read(&session, attempt.steps.jobs).await?;
    let builds = build::of_archive(&attempt.definitions.toc, &attempt.source.manifest_database()?.relations);
    attempt.built_indexes = builds.iter().map(|build| build.dump_id).collect();
    let there = find(&session).await?;
    let wanted = builds.len();
    let missing: Vec<_> = builds
        .into_iter()
        .filter(|build| !there.contains(&(build.table.clone(), build.index.clone())))
        .collect();
    let found = wanted - missing.len();
    build_all(attempt, limits, missing, found).await?;
    Ok(message(wanted - found, found))
}

fn message(built: usize, found: usize) -> String {
    match found {
        0 => format!("{built} indexes built"),
        found => format!("{built} indexes built, {found} were there from an earlier attempt"),
    }
}

/// What an earlier attempt built. The tables are this restore's, so their indexes are too.
async fn find(session: &Session) -> Result<BTreeSet<(Table, String)>, Refusal> {
    let rows = session.query(VALID_INDEXES, &[]).await;
    let rows = rows.map_err(|error| session.refusal(&error, "reading which indexes are built", None))?;
    let found = rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2)));
    Ok(found.collect())
}

async fn build_all(
    attempt: &Attempt<'_>,
    limits: BuildLimits,
    missing: Vec<IndexBuild>,
    found: usize,
) -> Result<(), Refusal> {
    let wanted = found + missing.len();
    let mut idle = Vec::new();
    for _ in 0..missing.len().min(attempt.steps.jobs.into()) {
        idle.push(open(attempt).await?);
    }
    let mut queue = Queue::new(missing, attempt.steps.jobs, limits.parallel_workers);
    let mut running = FuturesUnordered::new();
    let mut built = found;
    loop {
        while let Some(session) = idle.pop() {
            let Some((build, workers)) = queue.take() else {
                idle.push(session);
                break;
            };
            running.push(build_one(attempt, session, build, limits, workers));
        }
        let Some(done) = running.next().await else {
            return Ok(());
        };
        let (session, dump_id) = done?;
        queue.done(dump_id);
        idle.push(session);
        built += 1;
        let message = format!("{built} of {wanted} indexes built");
        attempt.context.reporter.step_message(names::INDEXES, message);
    }
}

/// A session with the settings of the archive.
async fn open(attempt: &Attempt<'_>) -> Result<WireSession, Refusal> {
    let mut session = WireSession::connect(&attempt.target.settings()).await?;
    let strings = if attempt.definitions.toc.standard_conforming_strings() {
        "on"
    } else {
        "off"
    };
    let sql = format!(
        "{}; {PASS_AUTOVACUUM}; SET standard_conforming_strings = {strings}",
        pg_restore::SESSION
    );
    let set = session.execute(&sql).await;
    set.map_err(|error| error.refusal("preparing a session that builds indexes", None))?;
    Ok(session)
}

async fn build_one(
    attempt: &Attempt<'_>,
    mut session: WireSession,
    build: IndexBuild,
    limits: BuildLimits,
    workers: u64,
) -> Result<(WireSession, i32), Refusal> {
    let in_order = is_in_order(attempt, &mut session, &build).await?;
    let built = session.execute(&build.sql(limits, workers, in_order)).await;
    built.map_err(|error| failed(attempt, &build, &error))?;
    Ok((session, build.dump_id))
}

/// Whether the rows are known to stand in the order of the index. The role may not be allowed to read them, and not every
/// kind of table can be sampled.
async fn is_in_order(attempt: &Attempt<'_>, session: &mut WireSession, build: &IndexBuild) -> Result<bool, Refusal> {
    let Some(question) = &build.order_question else {
        return Ok(false);
    };
    match session.query(question).await {
        Ok(rows) => Ok(rows.first().and_then(|row| row.first()?.as_deref()) == Some("t")),
        Err(WireError::Server(error)) if session.is_idle() && *error.code() != SqlState::QUERY_CANCELED => Ok(false),
        Err(error) => Err(failed(attempt, build, &error)),
    }
}

/// A failure of one index. What the server says of a row's values is left out.
fn failed(attempt: &Attempt<'_>, build: &IndexBuild, error: &WireError) -> Refusal {
    let mut refusal = failure::of_restore(error.refusal("building the index", Some(&build.label)));
    let said = error.message().map_or_else(|| error.to_string(), str::to_owned);
    let message = format!("Building {} failed: {}.", build.label, said.trim_end_matches('.'));
    refusal.message = without_secrets(&attempt.secrets, &message);
    if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
        refusal = refusal.hint(
            "The table has rows twice that the index allows once. At the source its index is damaged, as after an update of the operating system's collations: remove these rows there, REINDEX, and back up again.",
        );
    }
    refusal
}
