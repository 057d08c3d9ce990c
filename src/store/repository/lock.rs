//! The lock of a backup that writes: what tells a prune that it lives, and what it knows.
//!
//! No clock of one machine is held against another's: a lock is alive while its content changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::RepositoryError;
use crate::store::{self, Store, StoreError, layout};

/// How often a lock is renewed.
pub(super) const HEARTBEAT: Duration = Duration::from_mins(1);

/// Largest lock that is read, in bytes.
const SIZE_LIMIT_BYTES: u64 = 1 << 20;

/// What a lock holds.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lock {
    /// Id of the writer, which ends the keys of its chunks and packs.
    pub writer: String,
    /// UID of the run.
    pub run: String,
    /// Snapshot that it is going to commit.
    pub snapshot: String,
    /// For people alone.
    pub started: Timestamp,
    /// For people alone.
    pub renewed: Timestamp,
    /// One more with each renewal.
    pub beat: u64,
    /// Ids of the lists of condemned objects that it has read; it relies on no object in them. `None` while it has
    /// not read them yet.
    pub seen: Option<Vec<String>>,
    /// It is over, and its credentials may not delete the lock.
    #[serde(default)]
    pub ended: bool,
}

impl Lock {
    pub(super) fn key(&self) -> String {
        layout::lock(&self.writer)
    }

    pub(super) async fn write(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        self.beat += 1;
        self.renewed = Timestamp::now();
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        store::put(store, &self.key(), bytes.into()).await.map(|_| ())
    }

    /// Deletes the lock, or says in it that it is over where the credentials may not delete.
    pub(super) async fn remove(mut self, store: &dyn Store) -> Result<(), StoreError> {
        match store.delete(&[self.key()]).await {
            Err(StoreError::AccessDenied { .. } | StoreError::ObjectsLocked { .. }) => {
                self.ended = true;
                self.write(store).await
            }
            deleted => deleted,
        }
    }
}

/// The lock under a key; `None` where there is none.
pub(super) async fn read(store: &dyn Store, key: &str) -> Result<Option<Lock>, RepositoryError> {
    let bytes = match store::read_all(store, key, SIZE_LIMIT_BYTES).await {
        Ok(bytes) => bytes,
        Err(StoreError::ObjectMissing { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let unreadable = |problem: String| RepositoryError::Unreadable {
        key: key.to_owned(),
        problem,
    };
    let lock: Lock = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if lock.key() == key {
        Ok(Some(lock))
    } else {
        Err(unreadable("it is the lock of another writer".into()))
    }
}

/// Every lock of a repository.
pub(super) async fn read_all(store: &dyn Store) -> Result<Vec<Lock>, RepositoryError> {
    let mut locks = Vec::new();
    for object in store.list(layout::LOCKS).await? {
        locks.extend(read(store, &object.key).await?);
    }
    Ok(locks)
}

/// Renews a lock until it is stopped or finds the lock gone.
pub(super) struct Heartbeat {
    stop: CancellationToken,
    lost: Arc<AtomicBool>,
    task: AbortOnDropHandle<Lock>,
}

impl Heartbeat {
    pub(super) fn start(store: Arc<dyn Store>, lock: Lock) -> Self {
        let (stop, lost) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let task = renew(store, lock, stop.clone(), Arc::clone(&lost));
        Self {
            stop,
            lost,
            task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }

    /// Whether the lock was found gone.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Ends the renewals and waits for one that is under way, so that it does not bring the lock back.
    pub(super) async fn stop(self) -> Result<Lock, RepositoryError> {
        self.stop.cancel();
        self.task.await.map_err(RepositoryError::WorkLost)
    }
}

/// A renewal that fails is no reason to stop: what counts is whether a prune has taken the backup for dead.
async fn renew(store: Arc<dyn Store>, mut lock: Lock, stop: CancellationToken, lost: Arc<AtomicBool>) -> Lock {
    loop {
        tokio::select! {
            () = tokio::time::sleep(HEARTBEAT) => {}
            () = stop.cancelled() => return lock,
        }
        match read(&*store, &lock.key()).await {
            Ok(Some(found)) if !found.ended => {}
            Ok(_) => {
                lost.store(true, Ordering::Relaxed);
                return lock;
            }
            Err(error) => {
                tracing::warn!(lock = lock.key(), "the lock of the backup cannot be read: {error}");
                continue;
            }
        }
        if let Err(error) = lock.write(&*store).await {
            tracing::warn!(lock = lock.key(), "the lock of the backup cannot be renewed: {error}");
        }
    }
}
