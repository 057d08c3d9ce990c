//! Streams the archive of one database from pg_dump into the store: credentials stripped, rows counted, contents proved.

use tokio_util::sync::CancellationToken;

use super::BackupRun;
use super::blockers::Blocker;
use super::completeness::{self, RowCounts};
use super::exporter::Exporter;
use super::pg_dump;
use super::selection::Selection;
use super::watch::Watch;
use crate::agent::progress::Reporter;
use crate::api::backup::ForeignCredentials;
use crate::api::reasons;
use crate::api::status::FailureClass;
use crate::plan::Refusal;
use crate::plan::backup_steps::DatabaseSteps;
use crate::postgres::archive::{ArchiveError, ArchiveReader, DataProgress, DataSummary, Toc};
use crate::postgres::foreign::{self, StrippedCredential};
use crate::postgres::program::{Program, RunningProgram};
use crate::store::{StoreError, StoredObject, Upload, layout};

/// An archive in the store.
pub(super) struct StoredArchive {
    pub object: StoredObject,
    /// Header and table of contents as stored.
    pub toc: Toc,
    pub summary: DataSummary,
    pub rows: RowCounts,
    pub stripped: Vec<StrippedCredential>,
    /// What pg_dump had to say although it succeeded.
    pub messages: String,
}

/// Why a dump was not stored.
pub(super) enum DumpError {
    /// A change of definitions waited for a lock of the exporter, and pg_dump behind it: begin again.
    Blocked(Blocker),
    Failed(Refusal),
}

impl<E: Into<Refusal>> From<E> for DumpError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// What stops a stream.
enum Broken {
    Archive(ArchiveError),
    Store(StoreError),
}

/// Dumps the exporter's snapshot into `archive.dump`.
pub(super) async fn dump(
    run: &BackupRun<'_>,
    database: &DatabaseSteps,
    exporter: &Exporter,
) -> Result<StoredArchive, DumpError> {
    let selection = Selection::of_steps(&run.steps, database, &exporter.relations);
    let arguments = pg_dump::arguments(
        &run.steps,
        &selection,
        &exporter.relations,
        &exporter.snapshot,
        &exporter.encoding,
    )?;
    let program = Program::new(&run.tools, "pg_dump")
        .connect_to(exporter.session().settings(), &database.name)
        .args(arguments)
        .pipe_stdout();
    let running = program.spawn().map_err(|error| error.refusal(reasons::DUMP_FAILED))?;
    let watch = Watch::default();
    // What is dropped by the other branch ends by itself: the program is killed, the upload aborted.
    tokio::select! {
        stored = store(run, database, exporter, &selection, running, &watch) => stored,
        refusal = watch.run(exporter) => Err(DumpError::Failed(refusal)),
    }
}

async fn store(
    run: &BackupRun<'_>,
    database: &DatabaseSteps,
    exporter: &Exporter,
    selection: &Selection<'_>,
    mut running: RunningProgram,
    watch: &Watch,
) -> Result<StoredArchive, DumpError> {
    let Some(output) = running.stdout.take() else {
        return Err(Refusal::permanent(reasons::INTERNAL, "pg_dump was started without a standard output.").into());
    };
    let mut reader = match ArchiveReader::open(output).await {
        Ok(reader) => reader,
        Err(error) => return Err(not_begun(exporter, running, error, watch).await),
    };
    let mut toc = reader.toc().clone();
    completeness::check_contents(&toc, selection, &exporter.relations)?;
    let stripped = strip(run, &mut toc)?;
    let mut upload = run
        .store
        .create(&layout::archive(&run.steps.snapshot, &database.name))
        .await?;
    let ended = match copy(&toc, &mut reader, upload.as_mut(), &run.context.reporter).await {
        Ok(()) => end(exporter, running).await,
        Err(Broken::Store(error)) => Err(error.into()),
        Err(Broken::Archive(error)) => {
            drop(reader);
            abort(upload).await;
            return Err(broken_off(exporter, running, error).await.into());
        }
    };
    let checked = match (ended, reader.summary()) {
        (Ok(messages), Some(summary)) => {
            completeness::row_counts(&toc, summary).map(|rows| (messages, summary.clone(), rows))
        }
        (Ok(_), None) => Err(Refusal::permanent(reasons::INTERNAL, "The archive was not counted.")),
        (Err(refusal), _) => Err(refusal),
    };
    match checked {
        Ok((messages, summary, rows)) => Ok(StoredArchive {
            object: upload.finish().await?,
            toc,
            summary,
            rows,
            stripped,
            messages,
        }),
        Err(refusal) => {
            abort(upload).await;
            Err(refusal.into())
        }
    }
}

/// Takes out what may not be stored, and warns of what cannot be taken out.
fn strip(run: &BackupRun<'_>, toc: &mut Toc) -> Result<Vec<StrippedCredential>, Refusal> {
    // pg_dump writes a mapping whose options it may not see as one without options.
    let mut stripped = if run.superuser {
        Vec::new()
    } else {
        foreign::mappings_without_options(toc)?
    };
    if run.steps.foreign_credentials == ForeignCredentials::Strip {
        stripped.extend(foreign::strip_credentials(toc)?);
    }
    for credential in stripped.iter().filter(|credential| credential.unknown) {
        run.context.reporter.warn(format!(
            "The options of the {} are not in the backup: the role of the backup may not see them.",
            credential.holder
        ));
    }
    for warning in foreign::plain_credentials(toc) {
        run.context.reporter.warn(format!("{warning}."));
    }
    Ok(stripped)
}

/// Sends the changed table of contents and the unchanged data.
async fn copy(
    toc: &Toc,
    reader: &mut ArchiveReader,
    upload: &mut dyn Upload,
    reporter: &Reporter,
) -> Result<(), Broken> {
    upload.write(toc.to_bytes().into()).await.map_err(Broken::Store)?;
    let mut told = DataProgress::default();
    while let Some(bytes) = reader.next_block_bytes().await.map_err(Broken::Archive)? {
        upload.write(bytes).await.map_err(Broken::Store)?;
        tell(reporter, reader.progress(), &mut told);
    }
    tell(reporter, reader.progress(), &mut told);
    Ok(())
}

fn tell(reporter: &Reporter, now: DataProgress, told: &mut DataProgress) {
    reporter.add_bytes(now.bytes.saturating_sub(told.bytes));
    // The rows of a block that is under way are an estimate that may turn out too high.
    reporter.add_rows(now.rows.saturating_sub(told.rows));
    reporter.add_tables(now.blocks.saturating_sub(told.blocks));
    *told = DataProgress {
        rows: now.rows.max(told.rows),
        ..now
    };
}

/// pg_dump must have succeeded, and the tables must still be those that the snapshot saw.
async fn end(exporter: &Exporter, running: RunningProgram) -> Result<String, Refusal> {
    let output = running
        .wait(&CancellationToken::new())
        .await
        .and_then(|output| output.require_success());
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            exporter.check_alive().await?;
            return Err(in_the_middle(error.refusal(reasons::DUMP_FAILED)));
        }
    };
    exporter.compare_with_present().await?;
    Ok(output.stderr)
}

/// pg_dump ended before it wrote a table of contents.
async fn not_begun(exporter: &Exporter, running: RunningProgram, error: ArchiveError, watch: &Watch) -> DumpError {
    let output = running
        .wait(&CancellationToken::new())
        .await
        .and_then(|output| output.require_success());
    let refusal = match output {
        Ok(_) => error.into_refusal(reasons::DUMP_FAILED),
        Err(failed) => failed.refusal(reasons::DUMP_FAILED),
    };
    if let Err(lost) = exporter.check_alive().await {
        return lost.into();
    }
    match watch.blocker() {
        Some(blocker) => DumpError::Blocked(blocker),
        None => refusal.into(),
    }
}

/// The archive broke off, most often because pg_dump or the server did.
async fn broken_off(exporter: &Exporter, running: RunningProgram, error: ArchiveError) -> Refusal {
    let output = running
        .wait(&CancellationToken::new())
        .await
        .and_then(|output| output.require_success());
    if let Err(lost) = exporter.check_alive().await {
        return lost;
    }
    in_the_middle(match output {
        Ok(_) => error.into_refusal(reasons::DUMP_FAILED),
        Err(failed) => failed.refusal(reasons::DUMP_FAILED),
    })
}

/// What fails after it began well, such as a connection that was cut, may succeed next time.
fn in_the_middle(mut refusal: Refusal) -> Refusal {
    if refusal.reason == reasons::DUMP_FAILED {
        refusal.class = FailureClass::Temporary;
    }
    refusal
}

async fn abort(upload: Box<dyn Upload>) {
    if let Err(error) = upload.abort().await {
        tracing::warn!("an upload could not be aborted: {error}");
    }
}
