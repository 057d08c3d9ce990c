//! Reading a chunk.

use std::sync::Arc;

use futures::TryStreamExt as _;

use super::frame::FrameChecksum;
use super::sender::blocking;
use super::{ChunkDamage, ChunkEncryption, Repository, RepositoryError, frame};
use crate::store::encryption::{Recipients, identity_missing};
use crate::store::manifest::ChunkManifest;
use crate::store::{Store, StoreError};

/// How often a chunk is read that does not fit its hash: the damage may have come on the way.
const ATTEMPTS: u32 = 2;

/// Room that a stored chunk gets at once, in bytes; where the manifest claims more, the bytes have to come first.
const ROOM: usize = 16 << 20;

impl Repository {
    /// The COPY stream of a chunk that a manifest names, proved: SHA-256 of what is stored, one whole age file where it
    /// is encrypted, one zstd frame and nothing behind it, its checksum, the length, and the keyed hash. Memory:
    /// `stored_bytes`, twice where it is encrypted, and `bytes` of the chunk, no more whatever the object holds.
    pub async fn read_chunk(&self, chunk: &ChunkManifest) -> Result<Vec<u8>, RepositoryError> {
        self.read_and_decode(Vec::new(), chunk, FrameChecksum::Proved).await
    }

    /// The same in the memory of a stream that is not needed any more: taking megabytes from the system and giving them
    /// back for each chunk costs a restore 3% of its processor time. Another 1% is the checksum in the frame, which tells
    /// nothing that the keyed hash does not.
    pub async fn read_chunk_into(&self, room: Vec<u8>, chunk: &ChunkManifest) -> Result<Vec<u8>, RepositoryError> {
        self.read_and_decode(room, chunk, FrameChecksum::PassedOver).await
    }

    async fn read_and_decode(
        &self,
        mut room: Vec<u8>,
        chunk: &ChunkManifest,
        checksum: FrameChecksum,
    ) -> Result<Vec<u8>, RepositoryError> {
        let identities = match &self.encryption {
            None => None,
            Some(ChunkEncryption { recipients, identities }) => {
                let missing = || RepositoryError::Identity(identity_missing(&chunk.object, &recipients.texts()));
                Some(Arc::clone(identities.as_ref().ok_or_else(missing)?))
            }
        };
        let mut attempt = 1;
        loop {
            let damage = match read_stored(&*self.store, chunk, self.recipients()).await {
                Ok(stored) => {
                    let (key, description, identities) = (self.key, chunk.clone(), identities.clone());
                    let room = std::mem::take(&mut room);
                    let decode =
                        move || frame::decode(&stored, &description, &key, identities.as_deref(), checksum, room);
                    let decoded = blocking(decode).await?;
                    match decoded {
                        Ok(stream) => return Ok(stream),
                        Err(damage) => damage,
                    }
                }
                Err(error) => damage_of(error)?,
            };
            if attempt == ATTEMPTS || !may_pass(&damage) {
                return Err(damaged(chunk, damage));
            }
            attempt += 1;
        }
    }

    /// The bytes of a chunk as they are stored, proved by their SHA-256.
    pub(super) async fn read_proved(&self, chunk: &ChunkManifest) -> Result<Vec<u8>, RepositoryError> {
        let mut attempt = 1;
        loop {
            let damage = match read_stored(&*self.store, chunk, self.recipients()).await {
                Ok(stored) => {
                    let description = chunk.clone();
                    let (stored, checked) = blocking(move || {
                        let checked = frame::check_sha256(&stored, &description);
                        (stored, checked)
                    })
                    .await?;
                    match checked {
                        Ok(()) => return Ok(stored),
                        Err(damage) => damage,
                    }
                }
                Err(error) => damage_of(error)?,
            };
            if attempt == ATTEMPTS || !may_pass(&damage) {
                return Err(damaged(chunk, damage));
            }
            attempt += 1;
        }
    }
}

/// Whether the bytes may be others when they are read again.
const fn may_pass(damage: &ChunkDamage) -> bool {
    matches!(damage, ChunkDamage::Sha256 { .. } | ChunkDamage::Changed(_))
}

fn damage_of(error: RepositoryError) -> Result<ChunkDamage, RepositoryError> {
    match error {
        RepositoryError::Damaged { damage, .. } => Ok(damage),
        error => Err(error),
    }
}

async fn read_stored(
    store: &dyn Store,
    chunk: &ChunkManifest,
    recipients: Option<&Recipients>,
) -> Result<Vec<u8>, RepositoryError> {
    // Nothing gets longer by more: a manifest that was changed must not fill the memory with other objects.
    let most = chunk.bytes.saturating_add(chunk.bytes / 64).saturating_add(1024);
    let most = recipients.map_or(most, |recipients| recipients.bound(most));
    let end = chunk.offset.checked_add(chunk.stored_bytes);
    let end = end.filter(|_| chunk.stored_bytes <= most);
    let Some(end) = end else {
        let why = "the chunk takes more bytes in the store than its rows can need";
        return Err(damaged(chunk, ChunkDamage::Manifest(why)));
    };
    let truncated = || ChunkDamage::Truncated {
        start: chunk.offset,
        end,
    };
    let explain = |error| match error {
        StoreError::ObjectMissing { .. } => damaged(chunk, ChunkDamage::Missing),
        StoreError::RangeOutside { .. } => damaged(chunk, truncated()),
        StoreError::ObjectChanged { change, .. } => damaged(chunk, ChunkDamage::Changed(change)),
        StoreError::InvalidKey { .. } => damaged(chunk, ChunkDamage::Manifest("the key of the object is none")),
        error => error.into(),
    };
    let mut stream = store
        .read(&chunk.object, Some(chunk.offset..end))
        .await
        .map_err(explain)?;
    let room = usize::try_from(chunk.stored_bytes).unwrap_or(ROOM);
    let mut stored = Vec::with_capacity(room.min(ROOM));
    while let Some(bytes) = stream.try_next().await.map_err(explain)? {
        stored.extend_from_slice(&bytes);
        if stored.len() as u64 > chunk.stored_bytes {
            break;
        }
    }
    if stored.len() as u64 == chunk.stored_bytes {
        Ok(stored)
    } else {
        Err(damaged(chunk, truncated()))
    }
}

pub(super) fn damaged(chunk: &ChunkManifest, damage: ChunkDamage) -> RepositoryError {
    RepositoryError::Damaged {
        name: chunk.name.clone(),
        object: chunk.object.clone(),
        damage,
    }
}
