//! How far a restore from chunks is, noted in the target database: where an attempt failed for a while, the next one
//! goes on from there. The notes go with the last attempt, whatever its end.

use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use super::attempt::Attempt;
use super::definitions::Definitions;
use super::mark::Mark;
use super::{database_state, ledger};
use crate::api::reasons;
use crate::api::status::FailureClass;
use crate::plan::Refusal;
use crate::postgres::quote::{identifier, literal};

/// What a later attempt finds done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Definitions and the archive's own data are there. Of the chunks, those that are noted; of the indexes over them,
    /// those that are found.
    Rows,
    /// Constraints, triggers and the like are half made: nobody can tell which.
    PostDataBegun,
    /// Everything is there but the checks.
    PostDataDone,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Rows => "Rows",
            Self::PostDataBegun => "PostDataBegun",
            Self::PostDataDone => "PostDataDone",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Rows, Self::PostDataBegun, Self::PostDataDone]
            .into_iter()
            .find(|stage| stage.name() == name)
    }

    /// Whether the next attempt can go on from here.
    pub(super) const fn can_go_on(self) -> bool {
        match self {
            Self::Rows | Self::PostDataDone => true,
            Self::PostDataBegun => false,
        }
    }
}

/// The tables of the notes. A note of a chunk is committed with its rows, and stands in a table that a crash of the
/// server empties where it empties the rows too: one that is unlogged. The row of `since_crash` shows whether the
/// server crashed.
const CREATE: &str = "
CREATE TABLE pgrescue.restore_progress (
    run text PRIMARY KEY,
    manifest_sha256 text NOT NULL,
    definitions_sha256 text NOT NULL,
    stage text NOT NULL
);
CREATE UNLOGGED TABLE pgrescue.since_crash (run text PRIMARY KEY);
CREATE TABLE pgrescue.loaded_chunks (relation oid, ordinal int, PRIMARY KEY (relation, ordinal));
CREATE UNLOGGED TABLE pgrescue.loaded_chunks_unlogged (relation oid, ordinal int, PRIMARY KEY (relation, ordinal))";

/// Drops the tables of the notes.
pub(super) const DROP: &str = "
DROP TABLE IF EXISTS pgrescue.restore_progress, pgrescue.since_crash, pgrescue.loaded_chunks, pgrescue.loaded_chunks_unlogged";

/// Forgets how far the restore is. The table stays where the restore ends well: a statement that drops it could be
/// forbidden or written down by the event triggers that were just restored.
pub(super) const CLEAR: &str = "DELETE FROM pgrescue.restore_progress";

/// Drops what notes chunks: before post-data, whose event triggers could forbid it or write it down.
const DROP_NOTES_OF_CHUNKS: &str =
    "DROP TABLE pgrescue.since_crash, pgrescue.loaded_chunks, pgrescue.loaded_chunks_unlogged";

/// Whether a crash emptied something that the notes of chunks do not show: unlogged sequences; unlogged tables whose
/// rows came with the archive (`$1`, `$2`); trees of partitions where a row of an unlogged one may stand in a logged
/// one.
const LOST_UNNOTED: &str = "
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE relpersistence = 'u' AND nspname <> 'pgrescue' AND (relkind = 'S' OR (relkind = 'r' AND EXISTS (
            SELECT FROM unnest($1::text[], $2::text[]) AS archived (schema, name)
            WHERE schema = nspname AND name = relname))))
    OR EXISTS (SELECT pg_partition_root(oid) FROM pg_class WHERE relispartition AND relkind = 'r'
        GROUP BY 1 HAVING count(DISTINCT relpersistence) > 1)";

/// Whether a crash may have emptied anything at all.
const HAS_UNLOGGED: &str = "
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relpersistence = 'u' AND relkind IN ('r', 'S', 'm') AND nspname <> 'pgrescue')";

/// Makes the tables of the notes, before the archive's data is loaded.
pub(super) async fn begin(attempt: &Attempt<'_>) -> Result<(), Refusal> {
    let session = attempt.target.connect().await?;
    let sql = format!(
        "BEGIN; {DROP}; {CREATE}; INSERT INTO pgrescue.since_crash VALUES ({}); COMMIT",
        literal(&attempt.plan.run.uid)
    );
    session.batch_execute(&sql).await.map_err(|error| {
        session.refusal(
            &error,
            "making the notes of the restore",
            Some(&attempt.target.database),
        )
    })
}

/// Forgets how far the restore is: nobody goes on with what is about to be undone. Sessions that still load rows are not
/// waited for.
pub(super) async fn forget(inside: &Client) -> Result<(), tokio_postgres::Error> {
    if is_noted(inside).await? {
        inside.batch_execute(CLEAR).await?;
    }
    Ok(())
}

async fn is_noted(inside: &Client) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT to_regclass('pgrescue.restore_progress') IS NOT NULL";
    inside.query_one(sql, &[]).await?.try_get(0)
}

/// Notes a stage. It holds only where no other attempt took over, and, as long as chunks are noted, where the server did
/// not crash since the notes were made.
pub(super) async fn note(attempt: &mut Attempt<'_>, stage: Stage) -> Result<(), Refusal> {
    let (run, name) = (literal(&attempt.plan.run.uid), literal(&attempt.name));
    let ours =
        format!("EXISTS (SELECT FROM pgrescue.runs WHERE runs.run = {run} AND attempt = {name} AND state = 'Started')");
    let sql = match stage {
        Stage::Rows => format!(
            "INSERT INTO pgrescue.restore_progress SELECT run, {}, {}, {} FROM pgrescue.since_crash \
             WHERE since_crash.run = {run} AND {ours}",
            literal(&attempt.source.manifest_sha256),
            literal(&definitions_sha256(&attempt.definitions)),
            literal(stage.name())
        ),
        Stage::PostDataBegun => format!(
            "UPDATE pgrescue.restore_progress SET stage = {} WHERE run = {run} AND {ours} \
             AND EXISTS (SELECT FROM pgrescue.since_crash)",
            literal(stage.name())
        ),
        Stage::PostDataDone => format!(
            "UPDATE pgrescue.restore_progress SET stage = {} WHERE run = {run} AND {ours}",
            literal(stage.name())
        ),
    };
    let mut session = attempt.target.connect().await?;
    let noted = async {
        let transaction = session.transaction().await?;
        let noted = transaction.execute(&sql, &[]).await?;
        if noted == 1 {
            if stage == Stage::PostDataBegun {
                transaction.batch_execute(DROP_NOTES_OF_CHUNKS).await?;
            }
            transaction.commit().await?;
        }
        Ok::<_, tokio_postgres::Error>(noted)
    }
    .await
    .map_err(|error| session.refusal(&error, "noting how far the restore is", Some(&attempt.target.database)))?;
    if noted == 0 {
        let message = format!(
            "The target server crashed while the database {:?} was restored, or another attempt took over.",
            attempt.target.database
        );
        return Err(Refusal::temporary(reasons::CONNECTION_LOST, message)
            .object(&attempt.target.database)
            .hint("Look into the server's log; the next attempt comes by itself."));
    }
    attempt.stage = Some(stage);
    Ok(())
}

/// What an earlier attempt of this run left that this one can go on with; takes it over. Nothing is left where the
/// backup or what is made of it differs, where the attempt stopped in the middle of what cannot be told apart, or where
/// a crash of the server took rows away that no note shows.
pub(super) async fn take_over(attempt: &mut Attempt<'_>) -> Result<Option<Stage>, Refusal> {
    let database = attempt.target.database.clone();
    if attempt.source.repository.is_none() {
        return Ok(None);
    }
    let Some(row) = database_state::find_row(attempt.guard.session(), &database).await? else {
        return Ok(None);
    };
    let of_another = |mark: &Mark| mark.run != attempt.plan.run.uid;
    if !row.connectable || row.mark.as_ref().is_some_and(of_another) {
        return Ok(None);
    }
    let inside = match attempt.target.connect().await {
        Ok(inside) => inside,
        Err(refusal) if refusal.class == FailureClass::Permanent => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    let failed = |error: tokio_postgres::Error| {
        inside.refusal(&error, "looking for what an earlier attempt restored", Some(&database))
    };
    let Some(stage) = find(attempt, &inside).await.map_err(failed)? else {
        return Ok(None);
    };
    if row.mark.is_some() {
        let mark = Mark::new(&attempt.plan.run, &attempt.name).to_comment();
        let sql = format!("COMMENT ON DATABASE {} IS {}", identifier(&database), literal(&mark));
        let session = attempt.guard.session();
        let taken = session.batch_execute(&sql).await;
        taken.map_err(|error| session.refusal(&error, "taking over the unfinished database", Some(&database)))?;
    }
    let (run, name) = (literal(&attempt.plan.run.uid), literal(&attempt.name));
    let after_crash = if stage == Stage::Rows {
        format!("INSERT INTO pgrescue.since_crash VALUES ({run}) ON CONFLICT DO NOTHING;")
    } else {
        String::new()
    };
    let sql = format!(
        "BEGIN; UPDATE pgrescue.runs SET attempt = {name} WHERE run = {run} AND state = 'Started'; {after_crash} COMMIT"
    );
    inside.batch_execute(&sql).await.map_err(failed)?;
    attempt.stage = Some(stage);
    Ok(Some(stage))
}

async fn find(attempt: &Attempt<'_>, inside: &Client) -> Result<Option<Stage>, tokio_postgres::Error> {
    let run = &attempt.plan.run.uid;
    let begun = ledger::read(inside).await?;
    if !begun.iter().any(|row| row.applied_at.is_none() && row.run == *run) {
        return Ok(None);
    }
    if !is_noted(inside).await? {
        return Ok(None);
    }
    let sql = "SELECT stage FROM pgrescue.restore_progress \
               WHERE run = $1 AND manifest_sha256 = $2 AND definitions_sha256 = $3";
    let definitions = definitions_sha256(&attempt.definitions);
    let row = inside
        .query_opt(sql, &[run, &attempt.source.manifest_sha256, &definitions])
        .await?;
    let Some(row) = row else { return Ok(None) };
    let stage = Stage::of_name(row.try_get(0)?).filter(|stage| stage.can_go_on());
    let Some(stage) = stage else { return Ok(None) };
    if lost_rows(attempt, inside, stage).await? {
        tracing::info!("a crash of the server may have emptied unlogged tables: the restore begins anew");
        return Ok(None);
    }
    Ok(Some(stage))
}

/// Whether rows may be gone that no note shows. Once chunks are no longer noted, nobody knows whether the server crashed.
async fn lost_rows(attempt: &Attempt<'_>, inside: &Client, stage: Stage) -> Result<bool, tokio_postgres::Error> {
    if stage != Stage::Rows {
        return inside.query_one(HAS_UNLOGGED, &[]).await?.try_get(0);
    }
    let sql = "SELECT NOT EXISTS (SELECT FROM pgrescue.since_crash WHERE run = $1)";
    let crashed: bool = inside.query_one(sql, &[&attempt.plan.run.uid]).await?.try_get(0)?;
    if !crashed {
        return Ok(false);
    }
    let relations = attempt.source.manifest_database().map(|database| &database.relations);
    let archived = relations
        .into_iter()
        .flatten()
        .filter(|relation| relation.data.is_some());
    let (schemas, names): (Vec<_>, Vec<_>) = archived
        .map(|relation| (relation.schema.clone(), relation.name.clone()))
        .unzip();
    inside.query_one(LOST_UNNOTED, &[&schemas, &names]).await?.try_get(0)
}

/// What the target was made from. Secrets of the rules are in it, so it is forgotten at the end.
fn definitions_sha256(definitions: &Definitions) -> String {
    let mut hash = Sha256::new();
    hash.update(definitions.toc.to_bytes());
    let texts = definitions.set_aside.iter().map(|part| &part.sql);
    for text in texts.chain(&definitions.settings) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_made_post_data_is_the_only_stage_that_nobody_can_go_on_from() {
        for stage in [Stage::Rows, Stage::PostDataBegun, Stage::PostDataDone] {
            assert_eq!(Stage::of_name(stage.name()), Some(stage));
            assert_eq!(stage.can_go_on(), stage != Stage::PostDataBegun);
        }
        assert_eq!(Stage::of_name("Later"), None);
    }

    #[test]
    fn every_table_of_the_notes_is_forgotten_and_known_as_ours() {
        for table in ledger::TABLES.iter().filter(|table| **table != "runs") {
            assert!(CREATE.contains(&format!("TABLE pgrescue.{table} (")), "{table}");
            assert!(DROP.contains(&format!("pgrescue.{table}")), "{table}");
        }
    }
}
