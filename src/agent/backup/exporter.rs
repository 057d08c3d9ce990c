//! The session that locks a database's tables, exports the snapshot that everything is read under, and stays to the end.
//!
//! A snapshot does not protect against changes of definitions: after a TRUNCATE, a rewriting ALTER or a rename it shows
//! empty tables, without an error. So the locks come first (LOCK TABLE takes no snapshot), the snapshot after, and then
//! each table is compared: what the snapshot sees must be what is there now, and what is locked.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::error::SqlState;

use super::blockers::{self, Blocker};
use super::definitions::{Definitions, Extent};
use super::relations::Relation;
use super::selection::Selection;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::backup_steps::{DatabaseSteps, Steps};
use crate::postgres::connection::{ConnectionSettings, Session};
use crate::postgres::sqlstate;

/// How often locking begins again because definitions changed meanwhile.
const ATTEMPTS: u32 = 10;

/// How long one batch of locks may take. Whoever comes after a waiting exclusive lock waits behind it, so this is also
/// how long a backup may hold up others.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Tables in one LOCK statement.
const LOCK_BATCH: usize = 500;

/// Nothing may end the session while it is idle, and nothing hides rows from it.
const SETTINGS: &str = "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
    SET row_security = off; SET search_path = pg_catalog; SET datestyle = ISO";

/// A database whose tables are locked, and its snapshot.
pub(super) struct Exporter {
    session: Session,
    /// Identifier for `pg_dump --snapshot`.
    pub snapshot: String,
    /// Relations as the snapshot sees them.
    pub relations: Vec<Relation>,
    /// Tables that are locked.
    locked: Vec<u32>,
    /// Seconds since 1970, by the server's clock, at which the snapshot was taken.
    pub taken_at: f64,
    /// `server_encoding`.
    pub encoding: String,
    /// Held while a COPY goes through the session.
    copying: Mutex<()>,
}

/// Why an attempt to lock and export did not hold.
enum Attempt {
    /// Definitions changed meanwhile: begin again.
    Again(String),
    Failed(Refusal),
}

impl From<Refusal> for Attempt {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal)
    }
}

impl Exporter {
    /// Locks the tables of the database and exports a snapshot that agrees with the locks.
    pub async fn open(settings: &ConnectionSettings, steps: &Steps, database: &DatabaseSteps) -> Result<Self, Refusal> {
        let mut session = prepared_session(settings).await?;
        let mut changed = String::new();
        for attempt in 0..ATTEMPTS {
            tokio::time::sleep(Duration::from_millis(50) * attempt * attempt).await;
            match lock_and_export(&session, steps, database).await {
                Ok(exported) => {
                    let Exported {
                        snapshot,
                        relations,
                        locked,
                        taken_at,
                        encoding,
                    } = exported;
                    return Ok(Self {
                        session,
                        snapshot,
                        relations,
                        locked,
                        taken_at,
                        encoding,
                        copying: Mutex::default(),
                    });
                }
                Err(Attempt::Again(what)) => {
                    tracing::info!(database = database.name, "begins again: {what}");
                    changed = what;
                    session = prepared_session(settings).await?;
                }
                Err(Attempt::Failed(refusal)) => return Err(refusal),
            }
        }
        Err(definitions_changed(&format!(
            "Definitions changed {ATTEMPTS} times while the tables were being locked: {changed}."
        )))
    }

    /// The session, inside its transaction.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Tables that are locked.
    pub fn locked(&self) -> &[u32] {
        &self.locked
    }

    /// Waits until no COPY goes through the session. While the answer is kept, whoever asks the session anything waits.
    pub async fn copying(&self) -> MutexGuard<'_, ()> {
        self.copying.lock().await
    }

    /// Whether a COPY goes through the session, whose rows show that it is alive.
    pub fn is_copying(&self) -> bool {
        self.copying.try_lock().is_err()
    }

    /// Proves that the session still has its transaction.
    pub async fn check_alive(&self) -> Result<(), Refusal> {
        let alive = self.session.query_one("SELECT 1", &[]).await;
        alive
            .map(drop)
            .map_err(|error| self.session.refusal(&error, "keeping the snapshot", None))
    }

    /// Compares, in a session that sees the present, each locked table with what the snapshot saw.
    pub async fn compare_with_present(&self) -> Result<(), Refusal> {
        self.check_alive().await?;
        let present = prepared_session(self.session.settings()).await?;
        let now = Relation::all(&present)
            .await
            .map_err(|error| reading(&present, &error))?;
        let now: BTreeSet<(u32, u32, String)> = now
            .into_iter()
            .map(|relation| (relation.oid, relation.file_node, relation.qualified()))
            .collect();
        let locked = self
            .relations
            .iter()
            .filter(|relation| self.locked.binary_search(&relation.oid).is_ok());
        for relation in locked {
            if !now.contains(&(relation.oid, relation.file_node, relation.qualified())) {
                return Err(definitions_changed(&format!(
                    "The table {} was changed or replaced while the backup read it.",
                    relation.qualified()
                )));
            }
        }
        Ok(())
    }

    /// The first definition that no lock holds and that is another now than the snapshot saw, in a few words.
    pub async fn changed_definition(
        &self,
        extent: Extent,
        selection: &Selection<'_>,
    ) -> Result<Option<String>, Refusal> {
        let included = self.relations.iter().filter(|relation| selection.includes(relation));
        let relations = included.map(|relation| relation.oid).collect();
        let seen = Definitions::read(&self.session, extent, &relations).await;
        let seen = seen.map_err(|error| reading(&self.session, &error))?;
        let now = definitions_now(self.session.settings(), extent, &relations).await?;
        Ok(seen.first_change(&now))
    }
}

/// Sees the present, whatever the snapshot says; `relations` are those of the backup.
async fn definitions_now(
    settings: &ConnectionSettings,
    extent: Extent,
    relations: &BTreeSet<u32>,
) -> Result<Definitions, Refusal> {
    let present = prepared_session(settings).await?;
    let read = Definitions::read(&present, extent, relations).await;
    read.map_err(|error| reading(&present, &error))
}

struct Exported {
    snapshot: String,
    relations: Vec<Relation>,
    locked: Vec<u32>,
    taken_at: f64,
    encoding: String,
}

/// A session without time limits.
pub(super) async fn prepared_session(settings: &ConnectionSettings) -> Result<Session, Refusal> {
    // Boxed: the attempts over hosts, addresses and TLS make a large future.
    let session = Box::pin(settings.connect()).await?;
    let mut sql = SETTINGS.to_owned();
    if session.server_major() >= 14 {
        sql.push_str("; SET idle_session_timeout = 0");
    }
    if session.server_major() >= 17 {
        sql.push_str("; SET transaction_timeout = 0");
    }
    session
        .batch_execute(&sql)
        .await
        .map_err(|error| session.refusal(&error, "preparing the session", None))?;
    Ok(session)
}

async fn lock_and_export(session: &Session, steps: &Steps, database: &DatabaseSteps) -> Result<Exported, Attempt> {
    let before = Relation::all(session).await.map_err(|error| reading(session, &error))?;
    let to_lock = tables_to_lock(steps, database, &before);
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    session
        .batch_execute(begin)
        .await
        .map_err(|error| session.refusal(&error, "beginning a transaction", None))?;
    lock(session, &to_lock).await?;
    let (snapshot, taken_at, encoding) = export(session).await?;
    let relations = Relation::all(session).await.map_err(|error| reading(session, &error))?;
    let held = held_locks(session).await.map_err(|error| reading(session, &error))?;
    let seen = tables_to_lock(steps, database, &relations);
    for relation in &seen {
        if let Some(difference) = difference(relation, &held) {
            return Err(Attempt::Again(difference));
        }
    }
    let locked = seen.iter().map(|relation| relation.oid).collect();
    Ok(Exported {
        snapshot,
        relations,
        locked,
        taken_at,
        encoding,
    })
}

fn tables_to_lock<'a>(steps: &Steps, database: &DatabaseSteps, relations: &'a [Relation]) -> Vec<&'a Relation> {
    let selection = Selection::of_steps(steps, database, relations);
    relations.iter().filter(|relation| selection.locks(relation)).collect()
}

/// One statement per batch, by the simple protocol: nothing here may take the transaction's snapshot.
async fn lock(session: &Session, tables: &[&Relation]) -> Result<(), Attempt> {
    let timeout = format!("SET LOCAL lock_timeout = {}", LOCK_TIMEOUT.as_millis());
    session
        .batch_execute(&timeout)
        .await
        .map_err(|error| session.refusal(&error, "locking the tables", None))?;
    for batch in tables.chunks(LOCK_BATCH) {
        let names: Vec<String> = batch
            .iter()
            .map(|relation| format!("ONLY {}", relation.qualified()))
            .collect();
        let sql = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
        if let Err(error) = session.batch_execute(&sql).await {
            return Err(lock_failed(session, batch, &error).await);
        }
    }
    session
        .batch_execute("SET LOCAL lock_timeout = 0")
        .await
        .map_err(|error| session.refusal(&error, "locking the tables", None).into())
}

async fn lock_failed(session: &Session, batch: &[&Relation], error: &tokio_postgres::Error) -> Attempt {
    // A table, or its schema, is gone since it was listed; or something else took its name.
    let gone = [
        SqlState::UNDEFINED_TABLE,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::WRONG_OBJECT_TYPE,
    ];
    if error.code().is_some_and(|code| gone.contains(code)) {
        return Attempt::Again(sqlstate::text(error));
    }
    if !sqlstate::is(error, &SqlState::LOCK_NOT_AVAILABLE) {
        return Attempt::Failed(session.refusal(error, "locking the tables", None));
    }
    let oids: Vec<u32> = batch.iter().map(|relation| relation.oid).collect();
    let _ = session.batch_execute("ROLLBACK").await;
    let blocker = blockers::find(session, &oids).await.ok().flatten();
    Attempt::Failed(blocked(blocker))
}

/// A lock could not be had in time; `blocker` has it, or waits for it.
pub(super) fn blocked(blocker: Option<Blocker>) -> Refusal {
    let who = blocker
        .as_ref()
        .map_or_else(|| "another session holds a lock".to_owned(), Blocker::to_string);
    let seconds = LOCK_TIMEOUT.as_secs();
    let refusal = Refusal::temporary(
        reasons::DEFINITIONS_CHANGED,
        format!("The tables could not be locked for reading within {seconds} seconds: {who}."),
    )
    .hint("Let that change of definitions end, or cancel it with pg_cancel_backend; the next attempt comes by itself.");
    match blocker {
        Some(blocker) => refusal.object(blocker.relation),
        None => refusal,
    }
}

async fn export(session: &Session) -> Result<(String, f64, String), Refusal> {
    let sql = "SELECT pg_export_snapshot(), extract(epoch FROM clock_timestamp())::float8, current_setting('server_encoding')";
    let row = session
        .query_one(sql, &[])
        .await
        .map_err(|error| session.refusal(&error, "exporting the snapshot", None))?;
    let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    read().map_err(|error: tokio_postgres::Error| session.refusal(&error, "exporting the snapshot", None))
}

/// Relations of this database that the session itself has locked.
async fn held_locks(session: &Session) -> Result<BTreeSet<u32>, tokio_postgres::Error> {
    let sql = "SELECT relation FROM pg_locks WHERE locktype = 'relation' AND granted AND pid = pg_backend_pid() \
        AND mode = 'AccessShareLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    session
        .query(sql, &[])
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect()
}

/// How what the snapshot sees of a table differs from what is locked and there now.
fn difference(relation: &Relation, held: &BTreeSet<u32>) -> Option<String> {
    let name = relation.qualified();
    if !held.contains(&relation.oid) {
        return Some(format!("{name} is new"));
    }
    if relation.oid_of_name_now != Some(relation.oid) {
        return Some(format!("the name {name} means another table"));
    }
    (relation.file_node != relation.file_node_now).then(|| format!("{name} was truncated or rewritten"))
}

pub(super) fn definitions_changed(message: &str) -> Refusal {
    Refusal::temporary(reasons::DEFINITIONS_CHANGED, message)
        .hint("Run backups while no migration does; the next attempt comes by itself.")
}

fn reading(session: &Session, error: &tokio_postgres::Error) -> Refusal {
    session.refusal(error, "reading the catalogs", None)
}
