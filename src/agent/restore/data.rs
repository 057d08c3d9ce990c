//! Step `data`: what the archive holds (rows, large objects, sequence values), in one stream from the store through
//! `pg_restore`, without scratch space; its rows are counted as they go by, and held against the manifest. Then the
//! rows that are stored as chunks. Loading the archive's data a second time would double it: a retry does that in a
//! fresh database alone.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, interrupted};
use super::chunks::{self, Loaded};
use super::pg_restore;
use super::resume::{self, Stage};
use crate::agent::progress::Reporter;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::archive::{ArchiveReader, DataProgress, DataSummary, Section};
use crate::store::manifest::DatabaseManifest;

/// Loads the rows.
pub(super) async fn run(attempt: &mut Attempt<'_>) -> Result<String, Refusal> {
    let database = attempt.source.manifest_database()?;
    attempt
        .context
        .reporter
        .expect(database.uncompressed_bytes, database.tables);
    let Some(repository) = attempt.source.repository.clone() else {
        let summary = load_archive(attempt).await?;
        return Ok(format!(
            "{} rows and {} large objects loaded",
            summary.rows(),
            summary.large_objects()
        ));
    };
    if attempt.stage.is_some() {
        report_archive(&attempt.context.reporter, database);
    } else {
        resume::begin(attempt).await?;
        load_archive(attempt).await?;
        resume::note(attempt, Stage::Rows).await?;
    }
    let Loaded { loaded, found } = chunks::run(attempt, &repository).await?;
    let found = match found {
        0 => String::new(),
        found => format!(", {found} were there from an earlier attempt"),
    };
    Ok(format!(
        "{} rows of {} tables loaded; {loaded} chunks{found}",
        attempt.steps.rows, attempt.steps.tables
    ))
}

/// Counts what an earlier attempt loaded from the archive.
fn report_archive(reporter: &Reporter, database: &DatabaseManifest) {
    let chunked = || chunks::relations(database);
    let chunks = || chunked().flat_map(|(_, rows)| &rows.chunks);
    let bytes: u64 = chunks().map(|chunk| chunk.bytes).sum();
    let rows: u64 = chunks().map(|chunk| chunk.rows).sum();
    reporter.add_bytes(database.uncompressed_bytes.saturating_sub(bytes));
    reporter.add_rows(database.rows.saturating_sub(rows));
    reporter.add_tables(database.tables.saturating_sub(chunked().count() as u64));
}

async fn load_archive(attempt: &Attempt<'_>) -> Result<DataSummary, Refusal> {
    let mut reader = attempt.source.open_archive().await?;
    let toc = &attempt.definitions.toc;
    // Where the archive has no data, it is read for its hash alone.
    let mut running = if toc.section(Section::Data).next().is_some() {
        let program = pg_restore::program(attempt, &attempt.target.settings(), "data").pipe_stdin();
        Some(
            program
                .spawn()
                .map_err(|error| error.refusal(reasons::RESTORE_FAILED))?,
        )
    } else {
        None
    };
    let mut feed = Feed {
        stdin: running.as_mut().and_then(|running| running.stdin.take()),
        reporter: &attempt.context.reporter,
        reported: DataProgress::default(),
    };
    let toc = Bytes::from(toc.to_bytes());
    // An error of the source kills pg_restore as `running` is dropped.
    let sent = feed.all(toc, &mut reader, &attempt.context.stop).await;
    let accepted = match sent {
        Ok(accepted) => accepted,
        Err(FeedError::Stopped) => return Err(interrupted()),
        Err(FeedError::Source(error)) => return Err(attempt.source.refusal(error)),
    };
    drop(feed);
    if let Some(running) = running {
        let output = running.wait(&attempt.context.stop).await;
        let output = output.map_err(|error| error.refusal(reasons::RESTORE_FAILED))?;
        pg_restore::require_success(attempt, &output).await?;
    }
    let summary = reader.summary().cloned().unwrap_or_default();
    if !accepted && !summary.blocks.is_empty() {
        tracing::debug!("pg_restore closed its input before the end of the archive");
    }
    check_counts(attempt, &summary)?;
    Ok(summary)
}

enum FeedError {
    Stopped,
    Source(crate::postgres::archive::ArchiveError),
}

struct Feed<'a> {
    stdin: Option<ChildStdin>,
    reporter: &'a Reporter,
    reported: DataProgress,
}

impl Feed<'_> {
    /// Sends the table of contents and the data. The source is read to its end in any case, since its hash is known
    /// there; returns whether the program took everything.
    async fn all(
        &mut self,
        toc: Bytes,
        reader: &mut ArchiveReader,
        stop: &CancellationToken,
    ) -> Result<bool, FeedError> {
        self.send(&toc, stop).await?;
        loop {
            let next = tokio::select! {
                next = reader.next_block_bytes() => next.map_err(FeedError::Source)?,
                () = stop.cancelled() => return Err(FeedError::Stopped),
            };
            self.report(reader.progress());
            match next {
                Some(bytes) => self.send(&bytes, stop).await?,
                None => break,
            }
        }
        let accepted = self.stdin.is_some();
        self.stdin = None;
        Ok(accepted)
    }

    async fn send(&mut self, bytes: &[u8], stop: &CancellationToken) -> Result<(), FeedError> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        let written: io::Result<()> = tokio::select! {
            written = stdin.write_all(bytes) => written,
            () = stop.cancelled() => return Err(FeedError::Stopped),
        };
        if written.is_err() {
            // The program has ended, or wants no more: its exit code says which.
            self.stdin = None;
        }
        Ok(())
    }

    fn report(&mut self, now: DataProgress) {
        let before = std::mem::replace(&mut self.reported, now);
        self.reporter.add_bytes(now.bytes.saturating_sub(before.bytes));
        self.reporter.add_rows(now.rows.saturating_sub(before.rows));
        self.reporter.add_tables(now.blocks.saturating_sub(before.blocks));
    }
}

/// Every block must have held the rows that were counted when it was stored.
fn check_counts(attempt: &Attempt<'_>, summary: &DataSummary) -> Result<(), Refusal> {
    let database = attempt.source.manifest_database()?;
    let blocks: BTreeMap<_, _> = summary.blocks.iter().map(|block| (block.dump_id, block.rows)).collect();
    let mut wrong = Vec::new();
    for relation in &database.relations {
        let (Some(data), Some(expected)) = (&relation.data, relation.rows) else {
            continue;
        };
        let found = blocks.get(&data.dump_id).copied().flatten();
        if found != Some(expected) {
            let found = found.map_or("none".to_owned(), |rows| rows.to_string());
            wrong.push(format!(
                "{:?}.{:?}: {found} of {expected}",
                relation.schema, relation.name
            ));
        }
    }
    if summary.large_objects() != database.large_objects {
        wrong.push(format!(
            "large objects: {} of {}",
            summary.large_objects(),
            database.large_objects
        ));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!(
        "The archive does not hold the rows that the backup counted: {}.",
        wrong.join(", ")
    );
    Err(Refusal::permanent(reasons::VERIFICATION_FAILED, message)
        .object(&database.name)
        .hint("Use another backup."))
}
