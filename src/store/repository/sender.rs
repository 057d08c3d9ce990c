//! Chunks on their way to the store: hashed, compressed and encrypted where they are new, packed where they are small, sent in the
//! background, and never more bytes at once than was agreed.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::budget::{Budget, Share};
use super::expectation::Expectation;
use super::frame::{self, Compressors, Frame};
use super::index::Index;
use super::pack::{OpenPack, SealedPack};
use super::{ChunkName, Repository, RepositoryError};
use crate::api::reasons;
use crate::plan::Refusal;
use crate::store::{self, layout};

/// What the workers share.
pub(super) struct Sender {
    shared: Arc<Shared>,
    /// Dropped with the writer, and the uploads with it.
    uploads: Mutex<JoinSet<()>>,
}

struct Shared {
    repository: Arc<Repository>,
    writer: [u8; 8],
    compressors: Compressors,
    expectation: Mutex<Expectation>,
    budget: Budget,
    /// Whose chunk is encrypted although a frame and its age file together take more than its share.
    beyond_share: tokio::sync::Mutex<()>,
    index: Mutex<Index>,
    pack: Mutex<OpenPack>,
    /// Why the first object was not stored.
    failure: Mutex<Option<Refusal>>,
}

impl Sender {
    pub(super) fn new(
        repository: Arc<Repository>,
        writer: [u8; 8],
        index: Index,
        zstd_level: i32,
        bytes_in_flight: u64,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                repository,
                writer,
                compressors: Compressors::new(zstd_level),
                expectation: Mutex::default(),
                budget: Budget::new(bytes_in_flight),
                beyond_share: tokio::sync::Mutex::default(),
                index: Mutex::new(index),
                pack: Mutex::default(),
                failure: Mutex::default(),
            }),
            uploads: Mutex::default(),
        }
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        guard(&self.shared.index)
    }

    pub(super) async fn put(&self, stream: Vec<u8>) -> Result<(ChunkName, Vec<u8>), RepositoryError> {
        self.shared.check()?;
        let shared = Arc::clone(&self.shared);
        let (name, mut stream) = blocking(move || {
            let name = ChunkName::of(&shared.repository.key, &stream);
            (name, stream)
        })
        .await?;
        let bytes = stream.len() as u64;
        let is_new = self.index().claim(name, bytes);
        if is_new {
            let claim = Claim {
                shared: &self.shared,
                name,
                bytes,
                kept: false,
            };
            stream = self.store(name, stream).await?;
            claim.keep();
        }
        stream.clear();
        Ok((name, stream))
    }

    /// Compresses a chunk that the repository does not have, and sends it or packs it.
    async fn store(&self, name: ChunkName, stream: Vec<u8>) -> Result<Vec<u8>, RepositoryError> {
        let (made, mut share, stream) = self.compress(stream).await?;
        let frame = match made {
            Made::Stored(frame) => frame,
            Made::ToEncrypt(frame) => self.encrypt(frame, &share).await?,
        };
        self.shared.check()?;
        self.index().count_new(frame.bytes.len() as u64);
        share.reduce_to(frame.bytes.len());
        let sizes = self.shared.repository.pack_sizes;
        if frame.bytes.len() < sizes.small {
            let full = guard(&self.shared.pack).add(name, &frame, share, sizes);
            if let Some(pack) = full {
                self.send_pack(pack);
            }
        } else {
            self.send_chunk(name, frame, share);
        }
        Ok(stream)
    }

    /// Compresses a chunk within a share of what may be in memory. Large ones would wait for each other if each took
    /// what it needs at worst: they take what is likely, and the worst where that was too little.
    async fn compress(&self, mut stream: Vec<u8>) -> Result<(Made, Share, Vec<u8>), RepositoryError> {
        let worst = frame::bound(stream.len());
        let mut most = guard(&self.shared.expectation).of(stream.len()).min(worst);
        loop {
            let share = self.shared.budget.room_for(self.shared.room(most, worst)).await;
            let shared = Arc::clone(&self.shared);
            let (made, given_back) = blocking(move || (shared.frame(&stream, most), stream)).await?;
            stream = given_back;
            let made = made?;
            guard(&self.shared.expectation).learn(stream.len(), made.as_ref().map(Made::frame_bytes));
            if let Some(made) = made {
                return Ok((made, share, stream));
            }
            most = worst;
        }
    }

    /// A frame and its age file are in memory together for a moment. Where they do not both fit into the share, one
    /// chunk at a time goes beyond it: waiting for a larger share while holding one might never end.
    async fn encrypt(&self, frame: Vec<u8>, share: &Share) -> Result<Frame, RepositoryError> {
        let both = frame.len() + self.shared.encrypted_bound(frame.len());
        let _alone = if share.holds(both) {
            None
        } else {
            Some(self.shared.beyond_share.lock().await)
        };
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.encrypt(frame)).await?
    }

    fn send_chunk(&self, name: ChunkName, frame: Frame, share: Share) {
        let Frame { bytes, sha256 } = frame;
        let shared = Arc::clone(&self.shared);
        let stored_bytes = bytes.len() as u64;
        let writer = hex::encode(shared.writer);
        let hash = hex::encode(sha256);
        let key = layout::chunk(&name.to_string(), &hash, stored_bytes, &writer);
        self.spawn(async move {
            if shared.send(&key, bytes, &hash).await {
                guard(&shared.index).stored(name, stored_bytes, sha256, shared.writer);
            }
            drop(share);
        });
    }

    fn send_pack(&self, pack: SealedPack) {
        let SealedPack {
            bytes,
            sha256,
            chunks,
            share,
        } = pack;
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            let key = layout::pack(&sha256, &hex::encode(shared.writer));
            if shared.send(&key, bytes, &sha256).await {
                guard(&shared.index).stored_pack(key, &chunks);
            }
            drop(share);
        });
    }

    fn spawn(&self, upload: impl Future<Output = ()> + Send + 'static) {
        let mut uploads = guard(&self.uploads);
        while uploads.try_join_next().is_some() {}
        uploads.spawn(upload);
    }

    pub(super) async fn flush(&self) -> Result<(), RepositoryError> {
        let last = guard(&self.shared.pack).seal();
        if let Some(pack) = last {
            self.send_pack(pack);
        }
        // They stay where they are: a caller that goes away while it waits must not end them.
        while poll_fn(|context| guard(&self.uploads).poll_join_next(context))
            .await
            .is_some()
        {}
        self.shared.check()?;
        if self.index().has_pending() {
            return Err(RepositoryError::NotStored(given_up()));
        }
        Ok(())
    }

    /// Ends the uploads that are under way.
    pub(super) fn stop(&self) {
        guard(&self.uploads).abort_all();
    }
}

/// A compressed chunk.
enum Made {
    Stored(Frame),
    ToEncrypt(Vec<u8>),
}

impl Made {
    /// Bytes of the frame.
    const fn frame_bytes(&self) -> usize {
        match self {
            Self::Stored(frame) => frame.bytes.len(),
            Self::ToEncrypt(frame) => frame.len(),
        }
    }
}

impl Shared {
    /// Bytes that a frame of up to `most` bytes takes until it is stored. Where fewer than its `worst` are expected, its
    /// age file has room beside it.
    fn room(&self, most: usize, worst: usize) -> usize {
        let encrypted = self.encrypted_bound(most);
        if most < worst && self.repository.recipients().is_some() {
            (most + encrypted).min(self.encrypted_bound(worst))
        } else {
            encrypted
        }
    }

    fn encrypted_bound(&self, bytes: usize) -> usize {
        let recipients = self.repository.recipients();
        recipients.map_or(bytes, |recipients| {
            usize::try_from(recipients.bound(bytes as u64)).unwrap_or(usize::MAX)
        })
    }

    /// `None` where the frame takes more than `most` bytes.
    fn frame(&self, stream: &[u8], most: usize) -> Result<Option<Made>, RepositoryError> {
        let frame = self.compressors.compress(stream, most)?;
        Ok(frame.map(|frame| match self.repository.recipients() {
            None => Made::Stored(Frame::of(frame)),
            Some(_) => Made::ToEncrypt(frame),
        }))
    }

    fn encrypt(&self, frame: Vec<u8>) -> Result<Frame, RepositoryError> {
        Ok(Frame::of(match self.repository.recipients() {
            None => frame,
            Some(recipients) => recipients.encrypt(&frame)?,
        }))
    }

    /// Whether everything went well until now.
    fn check(&self) -> Result<(), RepositoryError> {
        match &*guard(&self.failure) {
            Some(refusal) => Err(RepositoryError::NotStored(refusal.clone())),
            None => Ok(()),
        }
    }

    fn fail(&self, refusal: Refusal) {
        guard(&self.failure).get_or_insert(refusal);
    }

    /// Stores an object with this SHA-256 under a key that nobody else writes. `false` where it failed; the next call of a worker says
    /// why.
    async fn send(&self, key: &str, bytes: Vec<u8>, sha256: &str) -> bool {
        match store::put_hashed(&*self.repository.store, key, Bytes::from(bytes), sha256).await {
            Ok(_) => true,
            Err(error) => {
                self.fail(error.into());
                false
            }
        }
    }
}

/// A chunk that a worker has taken on. A worker that goes away before it is handed over leaves it missing: whoever puts
/// it again stores it. Where another worker was told that it is there, the whole backup fails.
struct Claim<'a> {
    shared: &'a Shared,
    name: ChunkName,
    bytes: u64,
    kept: bool,
}

impl Claim<'_> {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.kept && !guard(&self.shared.index).give_up(self.name, self.bytes) {
            self.shared.fail(given_up());
        }
    }
}

fn given_up() -> Refusal {
    Refusal::temporary(
        reasons::STORE_FAILED,
        "A chunk was given up before it was stored, so the backup cannot be whole.",
    )
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hashing and compressing keep a processor busy for milliseconds: not on a thread that serves sockets.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RepositoryError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(RepositoryError::WorkLost)
}
