//! Rows as chunks: several workers, under the exporter's snapshot, copy ranges of tables into the repository, beside the
//! pg_dump that stores everything else.

mod settings;
mod source;
mod tables;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::worker::{CopiedUnit, Work, Worker};
use super::BackupRun;
use super::exporter::Exporter;
use super::pg_dump;
use super::selection::Selection;
use crate::api::reasons;
use crate::api::status::FailureClass;
use crate::plan::Refusal;
use crate::postgres::chunking::{TableSize, units};
use crate::store::manifest::{ChunkManifest, ChunkedRows};
use crate::store::repository::Writer;

pub(super) use self::tables::ChunkedTable;

/// SQLSTATE `too_many_connections`.
const TOO_MANY_CONNECTIONS: &str = "53300";

/// The tables of a database whose rows are stored as chunks.
pub(super) struct Chunked {
    tables: Arc<[ChunkedTable]>,
    client_encoding: &'static str,
}

impl Chunked {
    /// Nothing is stored as chunks.
    pub fn none() -> Self {
        Self {
            tables: Arc::new([]),
            client_encoding: "",
        }
    }

    /// Chooses the tables under the exporter's snapshot.
    pub async fn choose(exporter: &Exporter, selection: &Selection<'_>) -> Result<Self, Refusal> {
        let room = pg_dump::room_for_names(selection, &exporter.relations);
        Ok(Self {
            tables: tables::read(exporter, selection, room).await?.into(),
            client_encoding: settings::client_encoding(&exporter.encoding),
        })
    }

    /// Their OIDs.
    pub fn oids(&self) -> BTreeSet<u32> {
        tables::oids(&self.tables)
    }

    /// pg_dump's options that leave their rows to the chunks.
    pub fn arguments(&self) -> Vec<String> {
        self.tables.iter().map(tables::argument).collect()
    }

    /// Copies every row of the tables into the repository. Once `halt` is set it ends soon, and leaves no session behind.
    pub async fn copy(
        &self,
        run: &BackupRun<'_>,
        exporter: &Arc<Exporter>,
        writer: &Arc<Writer>,
        halt: &CancellationToken,
    ) -> Result<StoredRows, Refusal> {
        let sizes: Vec<TableSize> = self.tables.iter().map(|table| table.size).collect();
        let units = units(&sizes);
        let parallelism = run.steps.chunks.as_ref().map_or(1, |chunks| chunks.parallelism);
        let count = usize::from(parallelism).min(units.len());
        let work = Arc::new(Work::new(
            Arc::clone(exporter),
            Arc::clone(writer),
            run.context.reporter.clone(),
            Arc::clone(&self.tables),
            units,
        ));
        let mut running = JoinSet::new();
        let result = tokio::select! {
            result = work_off(run, &work, count, &mut running) => result,
            () = halt.cancelled() => Err(Refusal::interrupted()),
        };
        running.shutdown().await;
        run.context.reporter.no_table();
        if let Err(refusal) = result {
            if refusal.class != FailureClass::Interrupted {
                // Where the exporter is gone, what the workers say follows from that.
                exporter.check_alive().await?;
            }
            return Err(refusal);
        }
        let incomplete = || Refusal::permanent(reasons::INTERNAL, "Not every range of the tables was copied.");
        let copied = Arc::into_inner(work).and_then(Work::finish).ok_or_else(incomplete)?;
        tokio::select! {
            flushed = writer.flush() => flushed?,
            () = halt.cancelled() => return Err(Refusal::interrupted()),
        }
        StoredRows::locate(&self.tables, copied, self.client_encoding, writer)
    }
}

/// Ends when all work is done, or one worker failed.
async fn work_off(
    run: &BackupRun<'_>,
    work: &Arc<Work>,
    count: usize,
    running: &mut JoinSet<Result<(), Refusal>>,
) -> Result<(), Refusal> {
    for worker in connect(run, &work.exporter, count).await? {
        running.spawn(worker.run(Arc::clone(work)));
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| Refusal::permanent(reasons::INTERNAL, format!("A worker broke off: {error}.")))??;
    }
    Ok(())
}

/// Sessions for `count` workers. Fewer do where the server has no more to give; one is needed.
async fn connect(run: &BackupRun<'_>, exporter: &Exporter, count: usize) -> Result<Vec<Worker>, Refusal> {
    let mut workers = Vec::new();
    for _ in 0..count {
        match Worker::connect(exporter).await {
            Ok(worker) => workers.push(worker),
            Err(refusal) if !workers.is_empty() && refusal.sqlstate.as_deref() == Some(TOO_MANY_CONNECTIONS) => {
                run.context.reporter.warn(format!(
                    "The rows are read by {} sessions instead of {count}: the server takes no more connections.",
                    workers.len()
                ));
                break;
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(workers)
}

/// The chunks of every chunked table, all of them in the repository.
#[derive(Default)]
pub(super) struct StoredRows {
    pub by_table: BTreeMap<u32, ChunkedRows>,
}

impl StoredRows {
    fn locate(
        tables: &[ChunkedTable],
        mut copied: Vec<CopiedUnit>,
        client_encoding: &str,
        writer: &Writer,
    ) -> Result<Self, Refusal> {
        // By table, and within it by block range: the rows in their order.
        copied.sort_by_key(|copied| (copied.unit.table, copied.unit.range));
        let mut rows: Vec<ChunkedRows> = tables
            .iter()
            .map(|table| ChunkedRows {
                format: table.format,
                columns: table.columns.clone(),
                client_encoding: client_encoding.to_owned(),
                chunks: Vec::new(),
            })
            .collect();
        for CopiedUnit { unit, chunks } in copied {
            for chunk in chunks {
                let stored = writer.locate(&chunk.name).ok_or_else(|| {
                    Refusal::permanent(reasons::INTERNAL, format!("The chunk {} was not stored.", chunk.name))
                })?;
                rows[unit.table].chunks.push(ChunkManifest {
                    name: chunk.name.to_string(),
                    object: stored.object,
                    offset: stored.offset,
                    stored_bytes: stored.stored_bytes,
                    sha256: stored.sha256,
                    bytes: chunk.bytes,
                    rows: chunk.rows,
                    first_block: unit.range.map(|range| range.first),
                    end_block: unit.range.and_then(|range| range.end),
                });
            }
        }
        let by_table = tables.iter().map(|table| table.oid).zip(rows).collect();
        Ok(Self { by_table })
    }

    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.chunks().map(|chunk| chunk.rows).sum()
    }

    /// Every chunk.
    pub fn chunks(&self) -> impl Iterator<Item = &ChunkManifest> {
        self.by_table.values().flat_map(|rows| &rows.chunks)
    }
}
