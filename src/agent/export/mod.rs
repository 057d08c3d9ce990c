//! `pgrescue export`: a database of a backup as an archive in the directory format, which stock `pg_restore -j` restores.
//!
//! Every table has one entry and one file. With several entries for one table `pg_restore -j` would lose rows: only the
//! last one counts as the table's data, and it truncates. Rows that are stored as text are copied as they are; binary
//! ones become text in a server of PostgreSQL that runs for as long (`scratch`), for nobody prints a value as surely as
//! the function that PostgreSQL prints it with.

mod contents;
mod definitions;
mod error;
mod files;
mod folder;
mod rows;
mod scratch;
mod text;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::restore::identity;
use super::restore::source::{archive_bytes, archive_refusal, check_objects, read_manifest};
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::archive::{self, ArchiveError, ArchiveReader, Toc};
use crate::postgres::client_tools::{ClientTools, ToolSet};
use crate::postgres::program::Program;
use crate::store::Store;
use crate::store::encryption::{Identities, Recipients, identity_missing};
use crate::store::manifest::{DatabaseManifest, Manifest, ObjectManifest};
use crate::store::repository::{Repository, RepositoryError};
use contents::Contents;
pub use error::ExportError;
use files::ArchiveFiles;
use folder::Unfinished;
use rows::Writing;
use text::Printer;

/// What is exported, and where to.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Snapshot id.
    pub snapshot: String,
    /// Database in it; may be left out where there is one.
    pub database: Option<String>,
    /// The folder that is made.
    pub to: PathBuf,
    /// Chunks that are read at once.
    pub jobs: usize,
    /// What opens an encrypted backup.
    pub identities: Option<Arc<Identities>>,
}

/// What was exported.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExportReport {
    /// The folder.
    pub folder: PathBuf,
    /// Snapshot id.
    pub snapshot: String,
    /// Database.
    pub database: String,
    /// Tables with rows.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Large objects.
    pub large_objects: u64,
    /// Tables whose rows were stored in binary, and became text.
    pub converted_tables: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Major version of the `pg_restore` that the archive is for: that of the `pg_dump` that wrote it.
    pub pg_restore: u32,
}

/// Exports a database of a backup. Nothing is at the target before everything is there and proved.
pub async fn export(
    store: &Arc<dyn Store>,
    tools: &ClientTools,
    request: &ExportRequest,
    stop: &CancellationToken,
) -> Result<ExportReport, Refusal> {
    let removal = Unfinished::beside(&request.to)?;
    let folder = removal.folder();
    let manifest = Manifest::read(&read_manifest(&**store, &request.snapshot).await?)?;
    let database = choose(&manifest, request.database.as_deref())?;
    let source = Source {
        store,
        archive: check_objects(&**store, &manifest, &database.name).await?,
        identities: identities(&manifest, request)?,
    };
    identity::prove(&**store, &manifest, &source.archive, source.identities).await?;
    let reader = tools.for_archive(manifest.tools.client_major)?;
    let toc = source.toc().await?;
    let contents = Contents::plan(&toc, database, manifest.selection.sections)?;
    source.copy(folder, &contents, database).await?;
    let printer = match contents.binary().next() {
        Some(_) => Some(Printer::start(tools, &manifest, &toc, &contents, request.jobs, stop).await?),
        None => None,
    };
    if !contents.tables.is_empty() {
        let writing = Writing {
            repository: source.repository(&manifest).await?,
            folder,
            printer: printer.as_ref(),
            jobs: request.jobs,
        };
        writing.tables(&contents.tables).await?;
    }
    folder.write("toc.dat", &contents.toc.to_directory_bytes(&contents.files))?;
    check(reader, folder, &contents, stop).await?;
    let bytes = folder.bytes()?;
    folder.finish()?;
    Ok(ExportReport {
        folder: request.to.clone(),
        snapshot: manifest.snapshot.clone(),
        database: database.name.clone(),
        tables: database.tables,
        rows: database.rows,
        large_objects: database.large_objects,
        converted_tables: contents.binary().count(),
        bytes,
        pg_restore: manifest.tools.client_major,
    })
}

/// The archive that holds everything but the chunks.
struct Source<'a> {
    store: &'a Arc<dyn Store>,
    archive: ObjectManifest,
    /// Only where the backup is encrypted.
    identities: Option<&'a Arc<Identities>>,
}

impl Source<'_> {
    async fn toc(&self) -> Result<Toc, Refusal> {
        let opened = async {
            let input = archive_bytes(&**self.store, &self.archive, self.identities).await?;
            Ok::<_, ArchiveError>(ArchiveReader::open(input).await?.into_toc())
        };
        opened.await.map_err(|error| archive_refusal(error, &self.archive))
    }

    /// Where the chunks are.
    async fn repository(&self, manifest: &Manifest) -> Result<Repository, Refusal> {
        let repository = Repository::open(Arc::clone(self.store)).await?;
        let Some(identities) = self.identities else {
            return Ok(repository);
        };
        let recipients = Recipients::parse(manifest.recipients()).map_err(RepositoryError::from)?;
        Ok(repository.encrypted(recipients, Some(Arc::clone(identities))))
    }

    /// Takes the archive's own rows and large objects over. Their hash is known at the end of the archive, and the
    /// folder is no archive before that.
    async fn copy(
        &self,
        folder: &Arc<Unfinished>,
        contents: &Contents<'_>,
        database: &DatabaseManifest,
    ) -> Result<(), Refusal> {
        let refusal = |error| archive_refusal(error, &self.archive);
        let input = archive_bytes(&**self.store, &self.archive, self.identities)
            .await
            .map_err(refusal)?;
        let files = ArchiveFiles::new(Arc::clone(folder), contents.files.clone());
        let summary = match archive::extract(input, files).await {
            Ok((summary, _)) => summary,
            Err(ArchiveError::Write(error)) => return Err(folder.failed(error).into()),
            Err(error) => return Err(refusal(error)),
        };
        contents::check_counts(&summary, database)?;
        Ok(())
    }
}

/// What opens the backup; `None` where it is not encrypted.
fn identities<'a>(manifest: &Manifest, request: &'a ExportRequest) -> Result<Option<&'a Arc<Identities>>, Refusal> {
    match (manifest.recipients(), &request.identities) {
        ([], _) => Ok(None),
        (recipients, None) => Err(identity_missing(&manifest.snapshot, recipients)),
        (_, Some(identities)) => Ok(Some(identities)),
    }
}

fn choose<'a>(manifest: &'a Manifest, name: Option<&str>) -> Result<&'a DatabaseManifest, ExportError> {
    let names = || {
        manifest
            .databases
            .iter()
            .map(|database| database.name.clone())
            .collect()
    };
    match (name, manifest.databases.as_slice()) {
        (Some(name), _) => manifest.database(name).ok_or_else(|| ExportError::DatabaseMissing {
            database: name.to_owned(),
            there: names(),
        }),
        (None, [only]) => Ok(only),
        (None, _) => Err(ExportError::DatabaseNeeded { there: names() }),
    }
}

/// Stock `pg_restore` must read what was written, and find the rows of every table.
async fn check(
    tools: &ToolSet,
    folder: &Unfinished,
    contents: &Contents<'_>,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    let failed = |error: crate::postgres::program::ProgramError| error.refusal(reasons::INTERNAL);
    let mut running = Program::new(tools, "pg_restore")
        .arg("--list")
        .arg(folder.path())
        .pipe_stdout()
        .spawn()
        .map_err(failed)?;
    let mut listed = Vec::new();
    if let Some(mut output) = running.stdout.take() {
        // Where it cannot be read, what is missing is an entry.
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut output, &mut listed).await;
    }
    let output = running.wait(stop).await.map_err(failed)?;
    output.require_success().map_err(failed)?;
    contents.check_listing(&String::from_utf8_lossy(&listed))?;
    Ok(())
}
