//! Everything of one database under its snapshot: the archive by pg_dump and, beside it, the rows that are stored as
//! chunks. Whichever fails stops the other.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::BackupRun;
use super::chunks::{Chunked, StoredRows};
use super::dump::{self, DumpError, StoredArchive};
use super::exporter::Exporter;
use super::selection::Selection;
use super::watch::Watch;
use crate::api::status::FailureClass;
use crate::plan::Refusal;
use crate::plan::backup_steps::DatabaseSteps;
use crate::store::repository::Writer;

/// What a database became.
pub(super) struct StoredContents {
    pub archive: StoredArchive,
    /// Empty where all rows are in the archive.
    pub rows: StoredRows,
}

/// Stores what the exporter's snapshot shows; rows as chunks where there is a writer.
pub(super) async fn store(
    run: &BackupRun<'_>,
    database: &DatabaseSteps,
    exporter: &Arc<Exporter>,
    writer: Option<&Arc<Writer>>,
) -> Result<StoredContents, DumpError> {
    let chunked = if writer.is_some() {
        let selection = Selection::of_steps(&run.steps, database, &exporter.relations);
        run.or_stopped(Chunked::choose(exporter, &selection)).await?
    } else {
        Chunked::none()
    };
    let storing = Storing {
        run,
        database,
        exporter,
        writer,
        chunked,
        watch: Watch::default(),
        halt: run.context.stop.child_token(),
    };
    let work = storing.side_by_side();
    tokio::pin!(work);
    tokio::select! {
        stored = &mut work => stored,
        refusal = storing.watch.run(exporter) => {
            // Uploads are aborted before the answer is given, so that nothing is left behind it.
            storing.halt.cancel();
            let _ = work.await;
            Err(DumpError::Failed(refusal))
        }
    }
}

struct Storing<'a> {
    run: &'a BackupRun<'a>,
    database: &'a DatabaseSteps,
    exporter: &'a Arc<Exporter>,
    writer: Option<&'a Arc<Writer>>,
    chunked: Chunked,
    watch: Watch,
    /// Set when both are to stop.
    halt: CancellationToken,
}

impl Storing<'_> {
    async fn side_by_side(&self) -> Result<StoredContents, DumpError> {
        let (archive, rows) = tokio::join!(self.archive(), self.rows());
        let (archive, rows) = match (archive, rows) {
            (Ok(archive), Ok(rows)) => (archive, rows),
            // The one that was stopped because the other failed is not the reason.
            (Err(DumpError::Failed(stopped)), Err(refusal)) if stopped.class == FailureClass::Interrupted => {
                return Err(refusal.into());
            }
            (Err(error), _) => return Err(error),
            (Ok(_), Err(refusal)) => return Err(refusal.into()),
        };
        // The archive was compared when it ended; the last chunk may be hours younger.
        if self.writer.is_some() {
            self.run.or_stopped(self.exporter.compare_with_present()).await?;
        }
        Ok(StoredContents { archive, rows })
    }

    async fn archive(&self) -> Result<StoredArchive, DumpError> {
        let Self {
            run,
            database,
            exporter,
            writer: _,
            chunked,
            watch,
            halt,
        } = self;
        let stored = dump::dump(run, database, exporter, chunked, watch, halt).await;
        if stored.is_err() {
            halt.cancel();
        }
        stored
    }

    async fn rows(&self) -> Result<StoredRows, Refusal> {
        let Some(writer) = self.writer else {
            return Ok(StoredRows::default());
        };
        let stored = self.chunked.copy(self.run, self.exporter, writer, &self.halt).await;
        if stored.is_err() {
            self.halt.cancel();
        }
        stored
    }
}
