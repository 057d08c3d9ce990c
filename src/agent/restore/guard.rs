//! One attempt at a time: the backends of this run's earlier attempts are ended, then an advisory lock on the target's
//! name is held to the end. Whoever has lost the lock touches the database no more.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::mark;
use super::target::Target;
use crate::api::reasons;
use crate::plan::{Refusal, Run};
use crate::postgres::connection::Session;

/// How long the lock of a session that was just ended may linger.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(200);
/// No answer for this long means that the connection is gone.
const ANSWER: Duration = Duration::from_secs(10);

/// The session that holds the lock. It is outside the target database, so that it can drop it.
pub(super) struct Guard {
    session: Session,
    database: String,
}

impl Guard {
    /// Ends what an earlier attempt of the run left on the server, and takes the lock.
    pub(super) async fn take(target: &Target, run: &Run, attempt: &str) -> Result<Self, Refusal> {
        let session = target.maintenance().await?;
        let guard = Self {
            session,
            database: target.database.clone(),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = guard.end_earlier_attempts(run, attempt).await?;
            if ended == 0 && guard.try_lock().await? {
                return Ok(guard);
            }
            if Instant::now() > deadline {
                return Err(guard.busy());
            }
            sleep(PAUSE).await;
        }
    }

    /// The session, for statements outside the target database.
    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    /// The session, for transactions outside the target database.
    pub(super) const fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Makes sure that the lock is still held before the end, or before something is undone: the session may have been
    /// idle for hours. Where it was cut the lock is taken anew; where another attempt has it by now, everything is that
    /// one's.
    pub(super) async fn renew(&mut self, target: &Target) -> Result<(), Refusal> {
        if matches!(timeout(ANSWER, self.session.simple_query("")).await, Ok(Ok(_))) {
            return Ok(());
        }
        self.session = target.maintenance().await?;
        let deadline = Instant::now() + PATIENCE;
        while !self.try_lock().await? {
            if Instant::now() > deadline {
                return Err(self.busy());
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn try_lock(&self) -> Result<bool, Refusal> {
        let key = mark::lock_key(&self.database);
        let row = self.session.query_one("SELECT pg_try_advisory_lock($1)", &[&key]).await;
        let row = row.map_err(|error| self.refusal(&error, "locking the target's name"))?;
        Ok(row.get(0))
    }

    /// Ends sessions of this run that are not of this attempt: those of an agent that was killed, or that lost sight
    /// of the server. Returns how many there were.
    async fn end_earlier_attempts(&self, run: &Run, attempt: &str) -> Result<usize, Refusal> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE starts_with(application_name, $1) AND application_name <> $2";
        let (prefix, own) = (mark::application_prefix(run), mark::application_name(run, attempt));
        let rows = self.session.query(sql, &[&prefix, &own]).await;
        let rows = rows.map_err(|error| self.refusal(&error, "ending the sessions of an earlier attempt"))?;
        if !rows.is_empty() {
            tracing::info!(sessions = rows.len(), "ended sessions of an earlier attempt");
        }
        Ok(rows.len())
    }

    fn refusal(&self, error: &tokio_postgres::Error, doing: &str) -> Refusal {
        self.session.refusal(error, doing, Some(&self.database))
    }

    fn busy(&self) -> Refusal {
        Refusal::temporary(
            reasons::TARGET_BUSY,
            format!("Another restore is at work on the database {:?}.", self.database),
        )
        .object(&self.database)
        .hint("Wait for it to end, or name another database in spec.target.database.")
    }
}
