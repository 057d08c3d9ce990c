//! One session that loads chunks, with the next one read from the store while the current one is sent.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::error::SqlState;
use tokio_util::task::AbortOnDropHandle;

use super::destinations::Name;
use super::queue::{Place, Queue};
use super::refused::{self, Refused};
use super::{Load, statements};
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::wire::{CopyIn, WireError, WireSession};
use crate::store::repository::RepositoryError;

/// Rows of at least so many bytes are read once they are loaded, for the hint bits: with fewer, it would cost more waits
/// for the disk than it saves.
const HINTED_BYTES: u64 = 1 << 19;

/// Blocks by which a table grows at once, at most (`MAX_BUFFERS_TO_EXTEND_BY` in `hio.c`).
const MADE_AT_ONCE: u64 = 64;

/// A chunk on its way from the store.
struct Ahead {
    place: Place,
    reading: AbortOnDropHandle<Result<Vec<u8>, RepositoryError>>,
}

/// The COPY of a chunk, in a transaction with the chunk's note; or why there is none.
type BegunCopy<'s> = Result<CopyIn<'s>, WireError>;

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
        let mut begun: Option<BegunCopy<'_>> = None;
        while let Some(Ahead { place, reading }) = ahead.take() {
            let stream = reading.await.map_err(RepositoryError::WorkLost).and_then(|read| read);
            let stream = stream.map_err(|error| self.damaged(place, error))?;
            ahead = self.read_next(Some(place.table), std::mem::take(&mut room));
            let copy = match begun {
                Some(begun) => begun,
                None => session.copy_in(&self.begin(place)).await,
            };
            let copy = copy.map_err(|error| self.failed(place, &error))?;
            let end;
            if let Some(blocks) = blocks_before(&copy) {
                let copied = send(copy, &stream).await;
                // A chunk that is still on its way would keep the transaction open.
                let next = ahead.as_ref().filter(|ahead| ahead.reading.is_finished());
                let next = next.map(|ahead| ahead.place);
                (end, begun) = self.end(&mut session, (place, blocks), copied, next).await?;
            } else {
                let unwanted = copy.fail("the chunk is loaded").await;
                unwanted.map_err(|error| self.failed(place, &error))?;
                self.require_ours(&mut session, place).await?;
                (end, begun) = (End::Loaded, None);
            }
            match end {
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

    /// What begins the transaction of a chunk, with its note, and its COPY.
    fn begin(&self, place: Place) -> String {
        let table = &self.load.tables[place.table];
        let attempt = self.load.attempt;
        let chunk = (table.relation.oid, place.ordinal);
        let heap = self.hinted_heap(place);
        let begin = statements::begin(&attempt.plan.run, &attempt.name, chunk, table.unlogged, heap);
        format!("{begin}; {}", statements::copy(self.destination(place), table.rows))
    }

    fn destination(&self, place: Place) -> &'a Name {
        let table = &self.load.tables[place.table];
        if self.again { &table.root } else { &table.destination }
    }

    /// The heap that the chunk goes to, where its rows are read once they are loaded.
    fn hinted_heap(&self, place: Place) -> Option<&'a Name> {
        let hinted = self.load.tables[place.table].scanned_by_block
            && !self.again
            && self.load.chunk(place).bytes >= HINTED_BYTES;
        hinted.then(|| self.destination(place))
    }

    /// A chunk that has its note is loaded, if the database is still this attempt's.
    async fn require_ours(&self, session: &mut WireSession, place: Place) -> Result<(), Refusal> {
        let failed = |error: WireError| self.failed(place, &error);
        let attempt = self.load.attempt;
        session.execute("ROLLBACK").await.map_err(failed)?;
        let is_ours = statements::is_ours(&attempt.plan.run, &attempt.name);
        if session.query(&is_ours).await.map_err(failed)?.is_empty() {
            let message = format!(
                "Another attempt of this restore took over the database {:?}.",
                attempt.target.database
            );
            return Err(Refusal::temporary(reasons::TARGET_BUSY, message).object(&attempt.target.database));
        }
        Ok(())
    }

    /// Ends the transaction of a chunk whose COPY has ended, and begins that of the `next` one in the same round trip. The
    /// chunk was begun when its table had so many `blocks`.
    async fn end<'s>(
        &self,
        session: &'s mut WireSession,
        (place, blocks): (Place, u64),
        copied: Result<u64, WireError>,
        next: Option<Place>,
    ) -> Result<(End, Option<BegunCopy<'s>>), Refusal> {
        let failed = |error: WireError| self.failed(place, &error);
        let rows = match copied {
            Ok(rows) => rows,
            Err(error) if refused::may_be_accepted_later(error.code()) => {
                session.execute("ROLLBACK").await.map_err(failed)?;
                return Ok((End::Refused(Refused::new(place, &error)), None));
            }
            Err(error) => return Err(failed(error)),
        };
        let expected = self.load.chunk(place).rows;
        if rows != expected {
            session.execute("ROLLBACK").await.map_err(failed)?;
            let message = format!(
                "The server took {rows} rows of {}, which has {expected}.",
                self.load.label(place)
            );
            return Err(Refusal::permanent(reasons::VERIFICATION_FAILED, message)
                .object(self.load.tables[place.table].name())
                .hint("Use another backup; if it ends like this too, report it with the table's definition."));
        }
        let commit = match self.hinted_heap(place) {
            // What the load before it made and did not fill comes first.
            Some(heap) => statements::commit_and_hint(heap, blocks.saturating_sub(MADE_AT_ONCE)),
            None => "COMMIT".into(),
        };
        let Some(next) = next else {
            session.execute(&commit).await.map_err(failed)?;
            return Ok((End::Loaded, None));
        };
        let begun = session.execute_then_copy_in(&commit, &self.begin(next)).await;
        Ok((End::Loaded, Some(begun.map_err(failed)?)))
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

/// The blocks that the heap had before the COPY, 0 where nobody asked; `None` where the chunk is not this session's to
/// load.
fn blocks_before(copy: &CopyIn<'_>) -> Option<u64> {
    let note = copy.rows_before().last()?;
    let blocks = note.first().and_then(|blocks| blocks.as_ref()?.parse().ok());
    Some(blocks.unwrap_or_default())
}

fn hint(code: &SqlState) -> &'static str {
    if *code == SqlState::UNTRANSLATABLE_CHARACTER || *code == SqlState::CHARACTER_NOT_IN_REPERTOIRE {
        "Restore into a database whose encoding has every character of the backup, such as UTF8."
    } else {
        "The target does not take the rows as they were stored: look at the table's types and constraints there."
    }
}

async fn send(mut copy: CopyIn<'_>, stream: &[u8]) -> Result<u64, WireError> {
    copy.write(stream).await?;
    copy.finish().await
}
