//! One session that loads chunks, with the next one read from the store while the current one is sent.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::error::SqlState;
use tokio_util::task::AbortOnDropHandle;

use super::queue::{Place, Queue};
use super::refused::{self, Refused};
use super::{Load, statements};
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::wire::{WireError, WireSession};
use crate::store::repository::RepositoryError;

/// Rows of at least so many bytes are read once they are loaded, for the hint bits: with fewer, it would cost more waits
/// for the disk than it saves.
const HINTED_BYTES: u64 = 1 << 20;

/// Blocks by which a table grows at once, at most (`MAX_BUFFERS_TO_EXTEND_BY` in `hio.c`).
const MADE_AT_ONCE: u64 = 64;

/// A chunk on its way from the store.
struct Ahead {
    place: Place,
    reading: AbortOnDropHandle<Result<Vec<u8>, RepositoryError>>,
}

/// How a chunk ended.
enum End {
    /// Its rows are in the table.
    Loaded,
    /// A constraint refused it; nothing of it stays.
    Refused(Refused),
}

/// One session at work.
pub(super) struct Worker<'a> {
    load: &'a Load<'a>,
    queue: &'a Mutex<Queue>,
    again: bool,
}

impl<'a> Worker<'a> {
    /// `again`: the chunks were refused before.
    pub(super) const fn new(load: &'a Load<'a>, queue: &'a Mutex<Queue>, again: bool) -> Self {
        Self { load, queue, again }
    }

    /// Takes chunks until none waits. Returns those that were refused.
    pub(super) async fn run(self) -> Result<Vec<Refused>, Refusal> {
        let mut session = WireSession::connect(&self.load.attempt.target.settings()).await?;
        session
            .execute(&statements::session())
            .await
            .map_err(|error| error.refusal("preparing a session that loads rows", None))?;
        let mut refused = Vec::new();
        let mut ahead = self.read_next(None, Vec::new());
        let mut room = Vec::new();
        while let Some(Ahead { place, reading }) = ahead.take() {
            let stream = reading.await.map_err(RepositoryError::WorkLost).and_then(|read| read);
            let stream = stream.map_err(|error| self.damaged(place, error))?;
            ahead = self.read_next(Some(place.table), std::mem::take(&mut room));
            match self.load(&mut session, place, &stream).await? {
                End::Loaded => self.load.report(place),
                End::Refused(chunk) => refused.push(chunk),
            }
            self.queue().done(place.table);
            room = stream;
        }
        Ok(refused)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the chunk that follows one of the table `at`, into the memory of one that is loaded.
    fn read_next(&self, at: Option<usize>, room: Vec<u8>) -> Option<Ahead> {
        let place = self.queue().take(at)?;
        let repository = Arc::clone(self.load.repository);
        let chunk = self.load.chunk(place).clone();
        let reading = async move { repository.read_chunk_into(room, &chunk).await };
        let reading = AbortOnDropHandle::new(tokio::spawn(reading));
        Some(Ahead { place, reading })
    }

    /// What is wrong with a stored chunk, with the rows that it hurts.
    fn damaged(&self, place: Place, error: RepositoryError) -> Refusal {
        let mut refusal = Refusal::from(error);
        refusal.message = format!("Reading {} failed: {}", self.load.label(place), refusal.message);
        refusal
    }

    /// Loads one chunk, in one transaction with its note.
    async fn load(&self, session: &mut WireSession, place: Place, stream: &[u8]) -> Result<End, Refusal> {
        let failed = |error: WireError| self.failed(place, &error);
        let table = &self.load.tables[place.table];
        let attempt = self.load.attempt;
        let (run, name) = (&attempt.plan.run, &attempt.name);
        let destination = if self.again { &table.root } else { &table.destination };
        let chunk = self.load.chunk(place);
        let hinted = table.scanned_by_block && !self.again && chunk.bytes >= HINTED_BYTES;
        let heap = hinted.then_some(destination);
        let begin = statements::begin(run, name, (table.relation.oid, place.ordinal), table.unlogged, heap);
        let begun = session.query(&begin).await.map_err(failed)?;
        if begun.is_empty() {
            session.execute("ROLLBACK").await.map_err(failed)?;
            let ours = session.query(&statements::is_ours(run, name)).await.map_err(failed)?;
            if ours.is_empty() {
                let message = format!(
                    "Another attempt of this restore took over the database {:?}.",
                    attempt.target.database
                );
                return Err(Refusal::temporary(reasons::TARGET_BUSY, message).object(&attempt.target.database));
            }
            return Ok(End::Loaded);
        }
        let copied = copy(session, &statements::copy(destination, table.rows), stream).await;
        let rows = match copied {
            Ok(rows) => rows,
            Err(error) if refused::may_be_accepted_later(error.code()) => {
                session.execute("ROLLBACK").await.map_err(failed)?;
                return Ok(End::Refused(Refused::new(place, &error)));
            }
            Err(error) => return Err(failed(error)),
        };
        let expected = chunk.rows;
        if rows != expected {
            session.execute("ROLLBACK").await.map_err(failed)?;
            let message = format!(
                "The server took {rows} rows of {}, which has {expected}.",
                self.load.label(place)
            );
            return Err(Refusal::permanent(reasons::VERIFICATION_FAILED, message)
                .object(table.name())
                .hint("Use another backup; if it ends like this too, report it with the table's definition."));
        }
        let commit = match heap.zip(first_block(&begun)) {
            Some((heap, block)) => statements::commit_and_hint(heap, block),
            None => "COMMIT".into(),
        };
        session.execute(&commit).await.map_err(failed)?;
        Ok(End::Loaded)
    }

    /// A failure of the session. What the server says of a row's values is left out.
    fn failed(&self, place: Place, error: &WireError) -> Refusal {
        let table = self.load.tables[place.table].name();
        let doing = format!("loading {}", self.load.label(place));
        let mut refusal = error.refusal(&doing, Some(&table));
        if let (Some(code), Some(message)) = (error.code(), error.message()) {
            refusal.message = format!(
                "Loading {} failed: {}.",
                self.load.label(place),
                message.trim_end_matches('.')
            );
            if refusal.reason == reasons::INTERNAL {
                reasons::RESTORE_FAILED.clone_into(&mut refusal.reason);
                refusal = refusal.hint(hint(code));
            }
        }
        refusal
    }
}

/// The first block that rows of the chunk may be in: what the load before it made and did not fill comes first.
fn first_block(begun: &[Vec<Option<String>>]) -> Option<u64> {
    let blocks: u64 = begun.first()?.first()?.as_ref()?.parse().ok()?;
    Some(blocks.saturating_sub(MADE_AT_ONCE))
}

fn hint(code: &SqlState) -> &'static str {
    if *code == SqlState::UNTRANSLATABLE_CHARACTER || *code == SqlState::CHARACTER_NOT_IN_REPERTOIRE {
        "Restore into a database whose encoding has every character of the backup, such as UTF8."
    } else {
        "The target does not take the rows as they were stored: look at the table's types and constraints there."
    }
}

async fn copy(session: &mut WireSession, sql: &str, stream: &[u8]) -> Result<u64, WireError> {
    let mut copy = session.copy_in(sql).await?;
    copy.write(stream).await?;
    copy.finish().await
}
