//! The rows of chunks, as the files of their tables.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::ExportError;
use super::contents::Table;
use super::folder::Unfinished;
use super::text::Printer;
use crate::plan::Refusal;
use crate::store::manifest::{ChunkManifest, RowFormat};
use crate::store::repository::{ChunkDamage, Repository, RepositoryError, count_rows};

/// What ends the rows of a table in a data file (`dumpTableData_copy` of `pg_dump.c`).
const END: &[u8] = b"\\.\n\n\n";

/// The work on all tables.
pub(super) struct Writing<'a> {
    pub repository: Repository,
    pub folder: &'a Arc<Unfinished>,
    /// Makes text of binary rows, where a table has them.
    pub printer: Option<&'a Printer>,
    /// Chunks that are read at once.
    pub jobs: usize,
}

/// One step on the way through all tables.
#[derive(Clone, Copy)]
enum Step<'a> {
    Begin(&'a Table<'a>),
    Chunk(&'a Table<'a>, usize),
    End,
}

/// A step whose rows are there.
enum Ready<'a> {
    Begin(&'a Table<'a>),
    Rows(Vec<u8>),
    End,
}

impl Writing<'_> {
    /// Writes the file of every table. Chunks are read and proved several at once, of one table too, and written in
    /// their order.
    pub(super) async fn tables(&self, tables: &[Table<'_>]) -> Result<(), Refusal> {
        let steps = tables.iter().flat_map(|table| {
            let chunks = (0..table.rows.chunks.len()).map(move |ordinal| Step::Chunk(table, ordinal));
            [Step::Begin(table)].into_iter().chain(chunks).chain([Step::End])
        });
        let mut ready = stream::iter(steps).map(|step| self.prepare(step)).buffered(self.jobs);
        let mut file = None;
        while let Some(step) = ready.try_next().await? {
            file = self.write(file, step).await?;
        }
        Ok(())
    }

    async fn prepare<'a>(&self, step: Step<'a>) -> Result<Ready<'a>, Refusal> {
        match step {
            Step::Begin(table) => Ok(Ready::Begin(table)),
            Step::Chunk(table, ordinal) => self.text(table, ordinal).await.map(Ready::Rows),
            Step::End => Ok(Ready::End),
        }
    }

    /// The rows of a chunk as text, as many as the manifest says.
    async fn text(&self, table: &Table<'_>, ordinal: usize) -> Result<Vec<u8>, Refusal> {
        let chunk = &table.rows.chunks[ordinal];
        let label = label(table, ordinal);
        let stream = self.repository.read_chunk(chunk).await;
        let stream = stream.map_err(|error| damaged(&label, error))?;
        let text = match (table.rows.format, self.printer) {
            (RowFormat::Binary, Some(printer)) => printer.print(table, &label, &stream).await?,
            _ => stream,
        };
        match count_rows(&text, RowFormat::Text) {
            Some(rows) if rows == chunk.rows => Ok(text),
            Some(found) => Err(ExportError::Rows {
                chunk: label,
                expected: chunk.rows,
                found,
            }
            .into()),
            None => Err(damaged(&label, not_a_stream(chunk))),
        }
    }

    /// Takes a step; returns the file that is open after it.
    async fn write(&self, file: Option<File>, step: Ready<'_>) -> Result<Option<File>, ExportError> {
        let folder = Arc::clone(self.folder);
        let name = match &step {
            Ready::Begin(table) => table.file.clone(),
            Ready::Rows(_) | Ready::End => String::new(),
        };
        let rows = match step {
            Ready::Begin(_) => None,
            Ready::Rows(rows) => Some((rows, false)),
            Ready::End => Some((END.to_vec(), true)),
        };
        let written = tokio::task::spawn_blocking(move || match (file, rows) {
            (None, None) => folder.create(&name).map(Some),
            (Some(mut file), Some((rows, last))) => {
                file.write_all(&rows)?;
                if last {
                    file.sync_all()?;
                    return Ok(None);
                }
                Ok(Some(file))
            }
            (Some(_), None) | (None, Some(_)) => Err(io::Error::other("rows came out of their order")),
        });
        let written = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|error| self.folder.failed(error))
    }
}

fn label(table: &Table<'_>, ordinal: usize) -> String {
    format!(
        "chunk {} of {} of {}",
        ordinal + 1,
        table.rows.chunks.len(),
        table.name()
    )
}

fn not_a_stream(chunk: &ChunkManifest) -> RepositoryError {
    RepositoryError::Damaged {
        name: chunk.name.clone(),
        object: chunk.object.clone(),
        damage: ChunkDamage::Stream,
    }
}

/// What is wrong with a stored chunk, with the rows that it hurts.
fn damaged(label: &str, error: RepositoryError) -> Refusal {
    let mut refusal = Refusal::from(error);
    refusal.message = format!("Reading {label} failed: {}", refusal.message);
    refusal
}
