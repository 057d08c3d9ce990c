//! Which backups write, and which have died.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::RepositoryError;
use super::lock::{self, HEARTBEAT, Lock};
use super::references::{self, Abandoned, Found};
use crate::store::{self, Store, StoreError, layout};

/// What was found.
pub(super) struct Watched {
    /// Locks of backups that may still commit.
    pub active: Vec<Lock>,
    /// Snapshots that cannot be committed any more.
    pub given_up: Vec<String>,
}

/// Looks at all locks. With `silence`, waits until each has shown a sign of life, and gives up those that have not
/// within this time; the locks of backups that are over are removed. Without it nothing is changed.
pub(super) async fn writers(store: &dyn Store, silence: Option<Duration>) -> Result<Watched, RepositoryError> {
    let mut silent = Vec::new();
    for lock in lock::read_all(store).await? {
        if is_over(store, &lock).await? {
            if silence.is_some() {
                lock.remove(store).await?;
            }
        } else {
            silent.push(lock);
        }
    }
    let Some(silence) = silence else {
        return Ok(Watched {
            active: silent,
            given_up: Vec::new(),
        });
    };
    let active = wait_for_life(store, &mut silent, silence).await?;
    give_up(store, silent, active).await
}

/// Whether a backup is over: its lock says so, or its manifest is there.
async fn is_over(store: &dyn Store, lock: &Lock) -> Result<bool, RepositoryError> {
    Ok(lock.ended
        || match references::read(store, &lock.snapshot).await? {
            Found::Manifest(_) => true,
            Found::Abandoned(abandoned) => abandoned.writer == lock.writer,
            Found::Nothing => false,
        })
}

/// Takes the locks out of `silent` that change or go within the time; returns those that changed.
async fn wait_for_life(
    store: &dyn Store,
    silent: &mut Vec<Lock>,
    silence: Duration,
) -> Result<Vec<Lock>, RepositoryError> {
    let end = Instant::now() + silence;
    let mut active = Vec::new();
    while !silent.is_empty() && Instant::now() < end {
        let next = Instant::now() + HEARTBEAT / 4;
        tokio::time::sleep_until(next.min(end)).await;
        for before in std::mem::take(silent) {
            match lock::read(store, &before.key()).await? {
                Some(now) if now.ended => {}
                Some(now) if now.beat == before.beat => silent.push(before),
                Some(now) => active.push(now),
                None => {}
            }
        }
    }
    Ok(active)
}

/// Takes the place of the manifests that the silent ones were going to write.
async fn give_up(store: &dyn Store, silent: Vec<Lock>, active: Vec<Lock>) -> Result<Watched, RepositoryError> {
    let mut watched = Watched {
        active,
        given_up: Vec::new(),
    };
    let silent_writers: Vec<String> = silent.iter().map(|lock| lock.writer.clone()).collect();
    for lock in silent {
        // An attempt of the same run that lives needs the place.
        let locks = lock::read_all(store).await?;
        if locks
            .iter()
            .any(|other| !other.ended && other.snapshot == lock.snapshot && !silent_writers.contains(&other.writer))
        {
            watched.active.push(lock);
            continue;
        }
        let abandoned = Abandoned {
            writer: lock.writer.clone(),
            abandoned: Timestamp::now(),
        };
        let bytes = serde_json::to_vec(&abandoned).unwrap_or_default();
        match store::put_new(store, &layout::manifest(&lock.snapshot), bytes.into()).await {
            Ok(_) => watched.given_up.push(lock.snapshot.clone()),
            Err(StoreError::ObjectExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        lock.remove(store).await?;
    }
    Ok(watched)
}
