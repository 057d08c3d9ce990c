//! One worker: a session under the exporter's snapshot that takes the next COPY as long as there is one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::error::SqlState;

use super::settings;
use super::source::{ExporterRows, READING, Rows};
use super::tables::ChunkedTable;
use crate::agent::backup::exporter::Exporter;
use crate::agent::progress::Reporter;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::chunking::{BINARY_HEADER, BINARY_TRAILER, Unit, copy_out, take_padding_off};
use crate::postgres::quote;
use crate::postgres::wire::{WireError, WireSession};
use crate::store::manifest::RowFormat;
use crate::store::repository::{ChunkName, Writer};

/// Where a chunk ends, at the next row: what stands out of line may make a range many times as large as its blocks.
const CHUNK_BYTES: usize = 16 << 20;

/// Room for the row that makes a chunk full, so that the buffer seldom grows.
const ROW_ROOM: usize = 256 << 10;

/// A buffer that one large row has made larger is not kept.
const BUFFER_LIMIT: usize = 2 * CHUNK_BYTES;

fn new_buffer() -> Vec<u8> {
    Vec::with_capacity(CHUNK_BYTES + ROW_ROOM)
}

/// A chunk as it was given to the repository.
pub(super) struct PutChunk {
    pub name: ChunkName,
    pub bytes: u64,
    pub rows: u64,
}

/// The chunks of one COPY, in the order of their rows.
pub(super) struct CopiedUnit {
    pub unit: Unit,
    pub chunks: Vec<PutChunk>,
}

/// What the workers share.
pub(super) struct Work {
    pub exporter: Arc<Exporter>,
    pub writer: Arc<Writer>,
    pub reporter: Reporter,
    pub tables: Arc<[ChunkedTable]>,
    /// Every COPY, in the order in which they are taken.
    units: Vec<Unit>,
    /// Place of the next COPY that nobody has taken.
    next: AtomicUsize,
    /// COPYs of each table.
    parts: Vec<usize>,
    /// COPYs of each table that are not done.
    left: Vec<AtomicUsize>,
    copied: Mutex<Vec<CopiedUnit>>,
}

impl Work {
    pub fn new(
        exporter: Arc<Exporter>,
        writer: Arc<Writer>,
        reporter: Reporter,
        tables: Arc<[ChunkedTable]>,
        units: Vec<Unit>,
    ) -> Self {
        let left: Vec<AtomicUsize> = tables.iter().map(|_| AtomicUsize::new(0)).collect();
        for unit in &units {
            left[unit.table].fetch_add(1, Ordering::Relaxed);
        }
        let empty = left.iter().filter(|left| left.load(Ordering::Relaxed) == 0).count();
        reporter.add_tables(empty as u64);
        Self {
            exporter,
            writer,
            reporter,
            tables,
            units,
            next: AtomicUsize::new(0),
            parts: left.iter().map(|left| left.load(Ordering::Relaxed)).collect(),
            left,
            copied: Mutex::default(),
        }
    }

    fn tell(&self, table: usize, left: usize) {
        let name = self.tables[table].qualified();
        let parts = self.parts[table];
        let database = self.exporter.session().settings().database().unwrap_or_default();
        self.reporter.table(database, &name, parts - left, parts);
    }

    /// What was copied, where all of it was.
    pub fn finish(self) -> Option<Vec<CopiedUnit>> {
        let copied = self.copied.into_inner().unwrap_or_else(PoisonError::into_inner);
        (copied.len() == self.units.len()).then_some(copied)
    }

    fn take(&self) -> Option<Unit> {
        let unit = self.units.get(self.next.fetch_add(1, Ordering::Relaxed)).copied()?;
        self.tell(unit.table, self.left[unit.table].load(Ordering::Relaxed));
        Some(unit)
    }

    fn done(&self, copied: CopiedUnit) {
        let table = copied.unit.table;
        let left = self.left[table].fetch_sub(1, Ordering::Relaxed) - 1;
        if left == 0 {
            self.reporter.add_tables(1);
        }
        self.tell(table, left);
        self.copied.lock().unwrap_or_else(PoisonError::into_inner).push(copied);
    }
}

/// One worker.
pub(super) struct Worker {
    session: WireSession,
    buffer: Vec<u8>,
    /// Whether the transaction of the last COPY is still open.
    in_transaction: bool,
}

impl Worker {
    /// Opens a session on the exporter's instance.
    pub async fn connect(exporter: &Exporter) -> Result<Self, Refusal> {
        let of_exporter = exporter.session();
        // Boxed: the attempts over hosts, addresses and TLS make a large future.
        let mut session = Box::pin(WireSession::connect(of_exporter.settings())).await?;
        let encoding = settings::client_encoding(&exporter.encoding);
        let prepare = settings::statements(of_exporter.server_major(), encoding);
        session
            .execute(&prepare)
            .await
            .map_err(|error| error.refusal("preparing the session", None))?;
        Ok(Self {
            session,
            buffer: new_buffer(),
            in_transaction: false,
        })
    }

    /// Copies until nothing is left.
    pub async fn run(mut self, work: Arc<Work>) -> Result<(), Refusal> {
        while let Some(unit) = work.take() {
            let chunks = self.copy(&work, unit).await?;
            work.done(CopiedUnit { unit, chunks });
        }
        if self.in_transaction {
            let ended = self.session.execute("COMMIT").await;
            ended.map_err(|error| error.refusal(READING, None))?;
        }
        Ok(())
    }

    async fn copy(&mut self, work: &Work, unit: Unit) -> Result<Vec<PutChunk>, Refusal> {
        let table = &work.tables[unit.table];
        let qualified = table.qualified();
        let sql = copy_out(&table.schema, &table.name, &table.columns, table.format, unit.range);
        let failed = |error: WireError| error.refusal(READING, Some(&qualified));
        let Self {
            session,
            buffer,
            in_transaction,
        } = self;
        // A transaction for each COPY, so that no lock is kept longer than it is needed, and all of it in one round
        // trip. Without NOWAIT, whoever waits for the exporter would be waited for: a deadlock that the server does not
        // see.
        let end = if std::mem::replace(in_transaction, true) {
            "COMMIT; "
        } else {
            ""
        };
        let begin = format!(
            "{end}BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; \
             LOCK TABLE ONLY {qualified} IN ACCESS SHARE MODE NOWAIT; {sql}",
            quote::literal(&work.exporter.snapshot)
        );
        match session.copy_out(&begin).await {
            Ok(rows) => store(work, table, Rows::OfWorker(rows), buffer).await,
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                tracing::info!(
                    table = qualified,
                    "a change of definitions waits: the exporter reads the table"
                );
                session.execute("ROLLBACK").await.map_err(failed)?;
                *in_transaction = false;
                let rows = ExporterRows::begin(&work.exporter, &sql, table.format, &qualified).await?;
                store(work, table, Rows::OfExporter(Box::new(rows)), buffer).await
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Cuts the rows into chunks, each a whole COPY stream, and hands them to the repository.
async fn store(
    work: &Work,
    table: &ChunkedTable,
    mut rows: Rows<'_>,
    buffer: &mut Vec<u8>,
) -> Result<Vec<PutChunk>, Refusal> {
    let qualified = table.qualified();
    let mut chunks = Vec::new();
    loop {
        buffer.clear();
        if table.format == RowFormat::Binary {
            buffer.extend_from_slice(BINARY_HEADER);
        }
        let read = rows.read(buffer, CHUNK_BYTES, &qualified).await?;
        if !table.padded.is_empty() {
            let found = take_padding_off(buffer, table.columns.len(), &table.padded);
            if found != Some(read.rows) {
                return Err(of_another_form(&qualified));
            }
        }
        if read.rows > 0 {
            if table.format == RowFormat::Binary {
                buffer.extend_from_slice(BINARY_TRAILER);
            }
            let bytes = buffer.len() as u64;
            let (name, empty) = work.writer.put(std::mem::take(buffer)).await?;
            *buffer = if empty.capacity() > BUFFER_LIMIT {
                new_buffer()
            } else {
                empty
            };
            work.reporter.add_bytes(bytes);
            work.reporter.add_rows(read.rows);
            chunks.push(PutChunk {
                name,
                bytes,
                rows: read.rows,
            });
        }
        if read.done {
            return Ok(chunks);
        }
    }
}

fn of_another_form(table: &str) -> Refusal {
    let message = format!("The server sent the rows of {table} in a form that this release does not know.");
    Refusal::permanent(reasons::INTERNAL, message)
        .object(table)
        .hint("Back up with `dataFormat: Custom`, and report it with the server's version.")
}
