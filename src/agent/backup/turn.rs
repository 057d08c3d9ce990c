//! One attempt of a run at a time: a pod that was deleted by force may still work when its successor begins.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::exporter::prepared_session;
use crate::api::reasons;
use crate::plan::{Refusal, Run};
use crate::postgres::connection::{ConnectionSettings, Session};

/// How long the predecessor may take to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often it is looked for.
const POLL: Duration = Duration::from_secs(1);

/// The turn of this attempt. Dropped, it passes on.
pub(super) struct Turn {
    _session: Session,
}

impl Turn {
    /// Takes an advisory lock of the run in the database of the settings; standbys give them too.
    pub async fn take(settings: &ConnectionSettings, run: &Run) -> Result<Self, Refusal> {
        let session = prepared_session(settings).await?;
        let failed = |error: tokio_postgres::Error| session.refusal(&error, "taking the turn of this run", None);
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let row = session
                .query_one("SELECT pg_try_advisory_lock($1)", &[&key(run)])
                .await
                .map_err(failed)?;
            if row.try_get(0).map_err(failed)? {
                return Ok(Self { _session: session });
            }
            if tokio::time::Instant::now() >= until {
                return Err(Refusal::temporary(
                    reasons::TARGET_BUSY,
                    "Another attempt of this backup still works on the server.",
                )
                .hint("It ends by itself or with its pod; the next attempt comes after it."));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn key(run: &Run) -> i64 {
    let digest = Sha256::digest(format!("pgrescue backup {}", run.uid));
    digest.iter().take(8).fold(0, |key, byte| (key << 8) | i64::from(*byte))
}
