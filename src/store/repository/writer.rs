//! One backup that writes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::condemned;
use super::index::Index;
use super::lock::{self, Heartbeat, Lock};
use super::sender::Sender;
use super::{ChunkName, Repository, RepositoryError};
use crate::store::{self, Store, StoreError, StoredObject, layout};

/// How a backup writes.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// UID of the run.
    pub run: String,
    /// Snapshot that it is going to commit.
    pub snapshot: String,
    /// zstd level.
    pub zstd_level: i32,
    /// Compressed bytes that may be in memory at once: in compression, in the open pack, and on their way to the
    /// store. At least `LEAST_BYTES_IN_FLIGHT` are taken.
    pub bytes_in_flight: u64,
}

impl WriterOptions {
    /// Room for a full pack and for one chunk of 16 MiB beside it.
    pub const LEAST_BYTES_IN_FLIGHT: u64 = 21 << 20;

    /// What each session needs of `bytes_in_flight`: room for the rows of a range of 4 MiB while they are compressed. A
    /// full pack, with what may come next, takes as much.
    pub const SESSION_BYTES_IN_FLIGHT: u64 = 4608 << 10;
}

/// Where a chunk is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChunk {
    /// Key of the object.
    pub object: String,
    /// Where it begins in the object.
    pub offset: u64,
    /// Bytes in the object.
    pub stored_bytes: u64,
    /// SHA-256 of those bytes, in hex.
    pub sha256: String,
}

/// What a backup has put so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterStatistics {
    /// Chunks, each time that one was put.
    pub chunks: u64,
    /// Bytes of their COPY streams.
    pub bytes: u64,
    /// Bytes that the chunks take in the store, each counted once.
    pub stored_bytes: u64,
    /// Chunks that the repository did not have.
    pub new_chunks: u64,
    /// Bytes that those take in the store: what the backup sends.
    pub new_bytes: u64,
}

/// One backup that writes, by many workers at once.
///
/// It relies on chunks that it did not store itself, so it holds a lock from `begin` to `end`. It never waits for a
/// prune: what one may delete stands in lists that `begin` reads.
pub struct Writer {
    repository: Arc<Repository>,
    snapshot: String,
    lock_key: String,
    heartbeat: Mutex<Option<Heartbeat>>,
    sender: Sender,
}

impl Writer {
    /// Announces the backup by a lock, and learns which chunks the repository has. What earlier attempts of the same
    /// snapshot left must be removed before, a manifest that cannot be used above all. Their locks stay: a request of
    /// theirs may still be on its way.
    pub async fn begin(repository: Arc<Repository>, options: WriterOptions) -> Result<Self, RepositoryError> {
        let id = Uuid::new_v4().as_u64_pair().1.to_be_bytes();
        let WriterOptions {
            run,
            snapshot,
            zstd_level,
            bytes_in_flight,
        } = options;
        let store = Arc::clone(&repository.store);
        let lock = Lock {
            writer: hex::encode(id),
            run,
            snapshot: snapshot.clone(),
            started: Timestamp::now(),
            renewed: Timestamp::now(),
            beat: 0,
            seen: None,
            ended: false,
        };
        let lock_key = lock.key();
        let (heartbeat, index) = match announce(&store, lock.clone()).await {
            Ok(begun) => begun,
            Err(error) => {
                if let Err(error) = lock.remove(&*store).await {
                    tracing::warn!("the lock of a backup that could not begin is left in the store: {error}");
                }
                return Err(error);
            }
        };
        Ok(Self {
            sender: Sender::new(Arc::clone(&repository), id, index, zstd_level, bytes_in_flight),
            repository,
            snapshot,
            lock_key,
            heartbeat: Mutex::new(Some(heartbeat)),
        })
    }

    /// Takes a whole COPY stream, and gives the buffer back, emptied, for the next one. A chunk that the repository
    /// has is neither compressed nor sent; another is compressed and sent in the background. Waits while too many
    /// bytes are in flight. After an error, of this or of another worker, the backup must be given up.
    pub async fn put(&self, stream: Vec<u8>) -> Result<(ChunkName, Vec<u8>), RepositoryError> {
        self.sender.put(stream).await
    }

    /// Seals the open pack and waits until everything is stored. After that `locate` knows every chunk that was put.
    pub async fn flush(&self) -> Result<(), RepositoryError> {
        self.sender.flush().await
    }

    /// Where a chunk is that was put; `None` while it is not stored yet.
    #[must_use]
    pub fn locate(&self, name: &ChunkName) -> Option<StoredChunk> {
        self.sender.index().locate(name)
    }

    /// What was put so far.
    #[must_use]
    pub fn statistics(&self) -> WriterStatistics {
        self.sender.index().statistics()
    }

    /// Fails where a prune has taken this backup for dead: chunks that it relies on may be gone.
    pub async fn assert_held(&self) -> Result<(), RepositoryError> {
        let lost = self.heartbeat().as_ref().is_none_or(Heartbeat::is_lost);
        let store = &*self.repository.store;
        let manifest = layout::manifest(&self.snapshot);
        let manifest = async { Ok(store.stat(&manifest).await?) };
        let (lock, manifest) = tokio::try_join!(lock::read(store, &self.lock_key), manifest)?;
        match lock {
            Some(lock) if !lost && !lock.ended => {}
            _ => return Err(self.lost("it is gone")),
        }
        if manifest.is_some() {
            return Err(self.lost("the place of its manifest is taken"));
        }
        Ok(())
    }

    /// Stores what is left, and writes the manifest of the snapshot, which is the commit. Exactly one of this call and
    /// of a prune that has taken the backup for dead wins, whatever the clocks say: never write the manifest of a
    /// backup with chunks in another way.
    pub async fn commit(&self, manifest: Bytes) -> Result<StoredObject, RepositoryError> {
        self.flush().await?;
        self.assert_held().await?;
        let key = layout::manifest(&self.snapshot);
        match store::put_new(&*self.repository.store, &key, manifest).await {
            Err(StoreError::ObjectExists { .. }) => Err(self.lost("the place of its manifest is taken")),
            stored => Ok(stored?),
        }
    }

    /// Takes the lock away, after the commit, or after a failure when the snapshot's own objects are removed. A
    /// writer that is dropped without it leaves its lock to the next prune. A second call does nothing.
    pub async fn end(&self) -> Result<(), RepositoryError> {
        self.sender.stop();
        let heartbeat = self.heartbeat().take();
        let Some(heartbeat) = heartbeat else {
            return Ok(());
        };
        let lock = heartbeat.stop().await?;
        Ok(lock.remove(&*self.repository.store).await?)
    }

    fn heartbeat(&self) -> MutexGuard<'_, Option<Heartbeat>> {
        self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, why: &'static str) -> RepositoryError {
        RepositoryError::LockLost {
            key: self.lock_key.clone(),
            why,
        }
    }
}

/// The order is what protects the chunks. The lock is there before the lists of condemned objects are read: a prune
/// that writes a list later finds the lock, and one that wrote it earlier is obeyed. The chunks are listed after that:
/// a list may be gone, but then so are its objects.
async fn announce(store: &Arc<dyn Store>, mut lock: Lock) -> Result<(Heartbeat, Index), RepositoryError> {
    lock.write(&**store).await?;
    let manifest = layout::manifest(&lock.snapshot);
    if store.stat(&manifest).await?.is_some() {
        return Err(RepositoryError::SnapshotExists { key: manifest });
    }
    let lists = condemned::read_all(&**store).await?;
    lock.seen = Some(lists.iter().map(|list| list.id.clone()).collect());
    lock.write(&**store).await?;
    let heartbeat = Heartbeat::start(Arc::clone(store), lock);
    let condemned = condemned::hashes(&lists);
    drop(lists);
    let index = Index::load(&**store, &condemned).await?;
    Ok((heartbeat, index))
}
