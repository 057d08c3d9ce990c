//! Looks after a dump while it runs: the exporter must stay alive, and nothing may wait without end.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::blockers::{self, Blocker};
use super::exporter::Exporter;
use crate::api::reasons;
use crate::plan::Refusal;

/// How often the exporter is asked.
const INTERVAL: Duration = Duration::from_secs(2);

/// No answer of the exporter for this long means that its connection is gone.
const ANSWER: Duration = Duration::from_mins(1);

/// A session of the dump that has waited this long for a lock will not get it.
const STUCK_SECONDS: f64 = 60.0;

/// What the watch has seen.
#[derive(Default)]
pub(super) struct Watch {
    blocker: Mutex<Option<Blocker>>,
}

impl Watch {
    /// Ends only with a reason to stop the dump.
    pub async fn run(&self, exporter: &Exporter) -> Refusal {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if exporter.is_copying() {
                continue;
            }
            match tokio::time::timeout(ANSWER, self.look(exporter)).await {
                Ok(Ok(())) => {}
                Ok(Err(refusal)) => return refusal,
                Err(_) => {
                    return Refusal::temporary(
                        reasons::CONNECTION_LOST,
                        format!(
                            "The session that holds the snapshot has not answered for {} seconds.",
                            ANSWER.as_secs()
                        ),
                    )
                    .hint("Check the network and the server; the next attempt comes by itself.");
                }
            }
        }
    }

    /// Also what keeps the exporter's connection from looking idle.
    async fn look(&self, exporter: &Exporter) -> Result<(), Refusal> {
        let session = exporter.session();
        let lost = |error: tokio_postgres::Error| session.refusal(&error, "keeping the snapshot", None);
        if let Some(blocker) = blockers::find(session, exporter.locked()).await.map_err(lost)? {
            *self.blocker.lock().unwrap_or_else(PoisonError::into_inner) = Some(blocker);
        }
        let stuck = blockers::find_stuck(session, exporter.taken_at, STUCK_SECONDS)
            .await
            .map_err(lost)?;
        match stuck {
            None => Ok(()),
            Some(blocker) => Err(Refusal::temporary(
                reasons::DEFINITIONS_CHANGED,
                format!("The dump has waited {STUCK_SECONDS} seconds for a lock that {blocker} holds."),
            )
            .hint("Let that session end its transaction; the next attempt comes by itself.")),
        }
    }

    /// The last session that wanted a table exclusively while the dump ran.
    pub fn blocker(&self) -> Option<Blocker> {
        self.blocker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
