//! Rows that are stored as chunks: several sessions take one after another, each chunk in a transaction of its own with
//! its note. So a retry loads what is missing, and nothing twice.

mod destinations;
mod queue;
mod refused;
mod statements;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::try_join_all;

use super::attempt::Attempt;
use super::ledger;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::connection::Session;
use crate::postgres::quote::qualified;
use crate::store::manifest::{ChunkManifest, ChunkedRows, DatabaseManifest, RelationManifest};
use crate::store::repository::Repository;
use destinations::{Name, TargetTables};
use queue::{Place, Queue};
use refused::Refused;
use worker::Worker;

/// A table whose rows are chunks.
struct ChunkedTable<'a> {
    relation: &'a RelationManifest,
    rows: &'a ChunkedRows,
    /// Where its rows go first.
    destination: Name,
    /// Where rows go that the destination refused.
    root: Name,
    /// Whether a crash of the server empties it.
    unlogged: bool,
    /// Whether rows that were just loaded into the destination can be read by block: it is a heap, and the server has
    /// scans of block ranges, which came with 14.
    scanned_by_block: bool,
}

impl ChunkedTable<'_> {
    fn name(&self) -> String {
        qualified(&self.relation.schema, &self.relation.name)
    }
}

/// What was loaded.
pub(super) struct Loaded {
    /// Chunks that this attempt loaded.
    pub loaded: usize,
    /// Chunks that an earlier attempt had loaded.
    pub found: usize,
}

/// Relations whose rows are chunks, with them. The ledger of a source that was itself restored is left out.
pub(super) fn relations(database: &DatabaseManifest) -> impl Iterator<Item = (&RelationManifest, &ChunkedRows)> {
    let relations = database.relations.iter();
    relations
        .filter(|relation| !ledger::is_own(&relation.schema, &relation.name))
        .filter_map(|relation| Some((relation, relation.chunks.as_ref()?)))
}

/// Loads every chunk that no note calls loaded.
pub(super) async fn run(attempt: &Attempt<'_>, repository: &Arc<Repository>) -> Result<Loaded, Refusal> {
    let session = attempt.target.connect().await?;
    let tables = find_tables(attempt, &session).await?;
    let mut wanted = BTreeSet::new();
    for (table, chunked) in tables.iter().enumerate() {
        wanted.extend((0..chunked.rows.chunks.len()).map(|ordinal| Place { table, ordinal }));
    }
    let noted = read_notes(&session, &tables).await?;
    let missing: Vec<_> = wanted.difference(&noted).copied().collect();
    let load = Load {
        attempt,
        repository,
        tables: &tables,
        left: Mutex::new(tables.iter().map(|table| table.rows.chunks.len()).collect()),
    };
    for place in wanted.intersection(&noted) {
        load.report(*place);
    }
    load.report_empty();
    let loaded = load.everything(&missing).await;
    attempt.context.reporter.no_table();
    loaded?;
    // What proves it are the notes that are there at the end.
    let noted = read_notes(&session, &tables).await?;
    let lost = wanted.difference(&noted).count();
    if lost > 0 {
        let message = format!("The target server crashed and took {lost} loaded chunks of unlogged tables away.");
        return Err(Refusal::temporary(reasons::CONNECTION_LOST, message).object(&attempt.target.database));
    }
    Ok(Loaded {
        loaded: missing.len(),
        found: wanted.len() - missing.len(),
    })
}

async fn find_tables<'a>(attempt: &'a Attempt<'_>, session: &Session) -> Result<Vec<ChunkedTable<'a>>, Refusal> {
    let target = TargetTables::read(session)
        .await
        .map_err(|error| session.refusal(&error, "reading the tables of the target database", None))?;
    relations(attempt.source.manifest_database()?)
        .map(|(relation, rows)| {
            let name = (relation.schema.clone(), relation.name.clone());
            let found = target.get(&name).ok_or_else(|| {
                let name = qualified(&name.0, &name.1);
                let message = format!("The archive has no definition of the table {name}, whose rows are chunks.");
                Refusal::permanent(reasons::OBJECT_CHANGED, message)
                    .object(name)
                    .hint("The backup contradicts itself: use another one.")
            })?;
            let destination = target.destination(&name);
            let heap = target.get(&destination).is_some_and(|table| table.heap);
            Ok(ChunkedTable {
                relation,
                rows,
                destination,
                root: target.root(&name),
                unlogged: found.unlogged,
                scanned_by_block: heap && session.server_major() >= 14,
            })
        })
        .collect()
}

/// Chunks that are noted as loaded.
async fn read_notes(session: &Session, tables: &[ChunkedTable<'_>]) -> Result<BTreeSet<Place>, Refusal> {
    let sql = "SELECT relation, ordinal FROM pgrescue.loaded_chunks UNION ALL \
               SELECT relation, ordinal FROM pgrescue.loaded_chunks_unlogged";
    let rows = session.query(sql, &[]).await;
    let rows = rows.map_err(|error| session.refusal(&error, "reading which chunks are loaded", None))?;
    let numbers: BTreeMap<u32, usize> = tables
        .iter()
        .enumerate()
        .map(|(number, table)| (table.relation.oid, number))
        .collect();
    let places = rows.iter().filter_map(|row| {
        Some(Place {
            table: *numbers.get(&row.get::<_, u32>(0))?,
            ordinal: usize::try_from(row.get::<_, i32>(1)).ok()?,
        })
    });
    Ok(places.collect())
}

/// What all workers share.
struct Load<'a> {
    attempt: &'a Attempt<'a>,
    repository: &'a Arc<Repository>,
    tables: &'a [ChunkedTable<'a>],
    /// Chunks that each table still waits for.
    left: Mutex<Vec<usize>>,
}

impl Load<'_> {
    /// Loads these chunks. What a constraint refuses comes again after all others: it may read a table that was not
    /// full yet, or the row may belong into another partition here.
    async fn everything(&self, missing: &[Place]) -> Result<(), Refusal> {
        let mut waiting = missing.to_vec();
        let mut again = false;
        while !waiting.is_empty() {
            let mut refused = self.pass(&waiting, again).await?;
            if again && refused.len() == waiting.len() {
                let first = refused.swap_remove(0);
                return Err(refused::explain(self, &first).await);
            }
            waiting = refused.into_iter().map(|refused| refused.place).collect();
            waiting.sort_unstable();
            again = true;
        }
        Ok(())
    }

    /// Tries each of these chunks once; returns those that a constraint refused.
    async fn pass(&self, places: &[Place], again: bool) -> Result<Vec<Refused>, Refusal> {
        let chunks = places.iter().map(|place| (*place, self.chunk(*place).bytes));
        let queue = Mutex::new(Queue::new(chunks));
        let sessions = usize::from(self.attempt.steps.jobs).min(places.len());
        let workers = (0..sessions).map(|_| Worker::new(self, &queue, again).run());
        let refused = try_join_all(workers).await?;
        Ok(refused.into_iter().flatten().collect())
    }

    fn chunk(&self, place: Place) -> &ChunkManifest {
        &self.tables[place.table].rows.chunks[place.ordinal]
    }

    /// The chunk in words.
    fn label(&self, place: Place) -> String {
        let table = &self.tables[place.table];
        format!(
            "chunk {} of {} of {}",
            place.ordinal + 1,
            table.rows.chunks.len(),
            table.name()
        )
    }

    /// Tells that a chunk is loaded.
    fn report(&self, place: Place) {
        let chunk = self.chunk(place);
        let reporter = &self.attempt.context.reporter;
        reporter.add_bytes(chunk.bytes);
        reporter.add_rows(chunk.rows);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left[place.table] = left[place.table].saturating_sub(1);
        if left[place.table] == 0 {
            reporter.add_tables(1);
        }
        let table = &self.tables[place.table];
        let parts = table.rows.chunks.len();
        reporter.table(
            &self.attempt.target.database,
            &table.name(),
            parts - left[place.table],
            parts,
        );
    }

    /// Tables without a chunk are whole from the beginning.
    fn report_empty(&self) {
        let empty = self.tables.iter().filter(|table| table.rows.chunks.is_empty());
        self.attempt.context.reporter.add_tables(empty.count() as u64);
    }
}
