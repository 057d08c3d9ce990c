//! Streams the archive of one database from pg_dump into the store: credentials stripped, rows counted, contents proved.

use tokio_util::sync::CancellationToken;

use super::BackupRun;
use super::chunks::Chunked;
use super::completeness::{self, RowCounts};
use super::definitions::Extent;
use super::exporter::{self, Exporter};
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
use crate::postgres::program::{Program, ProgramError, ProgramOutput, RunningProgram};
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
    /// A change of definitions stood in the way before a row was read: begin again.
    Again(Refusal),
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
    Halted,
}

/// Dumps the exporter's snapshot into `archive.dump`, without the rows of `chunked` tables. Once `halt` is set it ends
/// soon, and leaves nothing behind.
pub(super) async fn dump(
    run: &BackupRun<'_>,
    database: &DatabaseSteps,
    exporter: &Exporter,
    chunked: &Chunked,
    watch: &Watch,
    halt: &CancellationToken,
) -> Result<StoredArchive, DumpError> {
    let selection = Selection::of_steps(&run.steps, database, &exporter.relations);
    let arguments = pg_dump::arguments(
        &run.steps,
        &selection,
        chunked,
        &exporter.relations,
        &exporter.snapshot,
        &exporter.encoding,
    )?;
    let program = Program::new(&run.tools, "pg_dump")
        .connect_to(exporter.session().settings(), &database.name)
        .args(arguments)
        .pipe_stdout();
    let running = program.spawn().map_err(|error| error.refusal(reasons::DUMP_FAILED))?;
    let storing = Storing {
        run,
        database,
        exporter,
        chunked,
        watch,
        halt,
    };
    storing.store(&selection, running).await
}

/// One dump on its way into the store.
struct Storing<'a> {
    run: &'a BackupRun<'a>,
    database: &'a DatabaseSteps,
    exporter: &'a Exporter,
    chunked: &'a Chunked,
    watch: &'a Watch,
    /// Set when the dump is to stop.
    halt: &'a CancellationToken,
}

impl Storing<'_> {
    async fn store(&self, selection: &Selection<'_>, mut running: RunningProgram) -> Result<StoredArchive, DumpError> {
        let Some(output) = running.stdout.take() else {
            return Err(Refusal::permanent(reasons::INTERNAL, "pg_dump was started without a standard output.").into());
        };
        let opened = tokio::select! {
            opened = ArchiveReader::open(output) => opened,
            () = self.halt.cancelled() => return Err(Refusal::interrupted().into()),
        };
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => return Err(self.not_begun(selection, running, error).await),
        };
        // The table of contents comes when every definition has been read.
        self.compare_definitions(selection).await?;
        let mut toc = reader.toc().clone();
        completeness::check_contents(&toc, selection, &self.chunked.oids(), &self.exporter.relations)?;
        let stripped = strip(self.run, &mut toc)?;
        let key = layout::archive(&self.run.steps.snapshot, &self.database.name);
        let mut upload = self.run.create(&key).await?;
        let copied = tokio::select! {
            copied = copy(&toc, &mut reader, upload.as_mut(), &self.run.context.reporter) => copied,
            () = self.halt.cancelled() => Err(Broken::Halted),
        };
        let summary = reader.summary().cloned();
        drop(reader);
        match self.end(selection, running, copied, &toc, summary).await {
            Ok((messages, summary, rows)) => Ok(StoredArchive {
                object: upload.finish().await?,
                toc,
                summary,
                rows,
                stripped,
                messages,
            }),
            Err(refusal) => {
                if let Err(error) = upload.abort().await {
                    tracing::warn!("an upload could not be aborted: {error}");
                }
                Err(refusal.into())
            }
        }
    }

    /// pg_dump must have succeeded, the tables must still be those that the snapshot saw, and every entry must have had
    /// its rows.
    async fn end(
        &self,
        selection: &Selection<'_>,
        running: RunningProgram,
        copied: Result<(), Broken>,
        toc: &Toc,
        summary: Option<DataSummary>,
    ) -> Result<(String, DataSummary, RowCounts), Refusal> {
        let archive_error = match copied {
            Ok(()) => None,
            Err(Broken::Halted) => return Err(Refusal::interrupted()),
            Err(Broken::Store(error)) => return Err(error.into()),
            Err(Broken::Archive(error)) => Some(error),
        };
        let output = running.wait(self.halt).await.and_then(ProgramOutput::require_success);
        let output = match (output, archive_error) {
            (Ok(output), None) => output,
            (output, error) => {
                self.exporter.check_alive().await?;
                return Err(in_the_middle(why(output, error)));
            }
        };
        self.exporter.compare_with_present().await?;
        if let Some(what) = self.exporter.changed_definition(Extent::Rows, selection).await? {
            let message = format!("The definition of {what} changed while rows were read, which may depend on it.");
            return Err(exporter::definitions_changed(&message));
        }
        let summary = summary.ok_or_else(|| Refusal::permanent(reasons::INTERNAL, "The archive was not counted."))?;
        let rows = completeness::row_counts(toc, &summary)?;
        Ok((output.stderr, summary, rows))
    }

    /// What pg_dump has read must be what the snapshot saw.
    async fn compare_definitions(&self, selection: &Selection<'_>) -> Result<(), DumpError> {
        match self.exporter.changed_definition(Extent::All, selection).await? {
            None => Ok(()),
            Some(what) => Err(DumpError::Again(exporter::definitions_changed(&format!(
                "The definition of {what} changed while pg_dump read the definitions."
            )))),
        }
    }

    /// pg_dump ended before it wrote a table of contents.
    async fn not_begun(&self, selection: &Selection<'_>, running: RunningProgram, error: ArchiveError) -> DumpError {
        let output = running.wait(self.halt).await.and_then(ProgramOutput::require_success);
        if let Err(lost) = self.exporter.check_alive().await {
            return lost.into();
        }
        if let Some(blocker) = self.watch.blocker() {
            return DumpError::Again(exporter::blocked(Some(blocker)));
        }
        // An object that was dropped meanwhile makes pg_dump fail.
        match self.compare_definitions(selection).await {
            Ok(()) => why(output, Some(error)).into(),
            Err(changed) => changed,
        }
    }
}

/// What pg_dump says about its failure tells more than the archive that broke off.
fn why(output: Result<ProgramOutput, ProgramError>, error: Option<ArchiveError>) -> Refusal {
    match (output, error) {
        (Err(failed), _) => failed.refusal(reasons::DUMP_FAILED),
        (Ok(_), Some(error)) => error.into_refusal(reasons::DUMP_FAILED),
        (Ok(_), None) => Refusal::permanent(reasons::INTERNAL, "pg_dump ended well and its archive was whole."),
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

/// What fails after it began well, such as a connection that was cut, may succeed next time.
fn in_the_middle(mut refusal: Refusal) -> Refusal {
    if refusal.reason == reasons::DUMP_FAILED {
        refusal.class = FailureClass::Temporary;
    }
    refusal
}
