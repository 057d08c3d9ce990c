//! What the repository has, as one writer knows it, and what that writer adds.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::key_hash::KeyHash;
use super::references::{self, Found};
use super::{ChunkName, RepositoryError, StoredChunk, WriterStatistics};
use crate::store::manifest::ChunkManifest;
use crate::store::{ObjectInfo, Store, layout};

/// Where a chunk is, in few bytes: a repository has many.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// An object of its own; its key follows from this.
    Own {
        stored_bytes: u64,
        sha256: [u8; 32],
        writer: [u8; 8],
    },
    /// In the pack of this number.
    Packed {
        pack: u32,
        offset: u64,
        stored_bytes: u64,
        sha256: [u8; 32],
    },
}

impl Place {
    const fn stored_bytes(&self) -> u64 {
        match self {
            Self::Own { stored_bytes, .. } | Self::Packed { stored_bytes, .. } => *stored_bytes,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    /// A worker has it in hand.
    Pending {
        /// Whether another one was told that it is there.
        relied_on: bool,
    },
    Stored {
        place: Place,
        /// Whether this writer has put it.
        used: bool,
    },
}

/// A small chunk in a pack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed {
    pub name: ChunkName,
    pub offset: u64,
    pub stored_bytes: u64,
    pub sha256: [u8; 32],
}

/// The chunks by name.
#[derive(Debug, Default)]
pub(super) struct Index {
    chunks: HashMap<ChunkName, Slot>,
    /// Keys of packs; a chunk names its pack by the position.
    packs: Vec<String>,
    statistics: WriterStatistics,
    pending: usize,
}

impl Index {
    /// Reads what the store has. No object that is condemned gets in, nor one whose size is not as it was stored.
    /// Chunks that are objects are known by their keys, also those that a backup left unfinished; those in packs by
    /// the manifests.
    pub(super) async fn load(store: &dyn Store, condemned: &HashSet<KeyHash>) -> Result<Self, RepositoryError> {
        let mut index = Self::default();
        let (chunks, packs) = tokio::try_join!(store.list(layout::CHUNKS), store.list(layout::PACKS))?;
        for object in chunks {
            if let Some((name, place)) = parse_chunk(&object)
                && !condemned.contains(&KeyHash::of(&object.key))
            {
                index.chunks.insert(name, Slot::Stored { place, used: false });
            }
        }
        let packs: HashMap<KeyHash, u64> = packs
            .iter()
            .map(|pack| (KeyHash::of(&pack.key), pack.size))
            .filter(|(key, _)| !condemned.contains(key))
            .collect();
        if !packs.is_empty() {
            index.load_packed(store, &packs).await?;
        }
        Ok(index)
    }

    async fn load_packed(&mut self, store: &dyn Store, packs: &HashMap<KeyHash, u64>) -> Result<(), RepositoryError> {
        let mut numbers = HashMap::new();
        for snapshot in references::list(store).await? {
            let manifest = match references::read(store, &snapshot).await {
                Ok(Found::Manifest(manifest)) => manifest,
                Ok(Found::Abandoned(_) | Found::Nothing) => continue,
                // What it names is stored again: that costs room and nothing else.
                Err(RepositoryError::Unreadable { key, problem }) => {
                    tracing::warn!(key, "the manifest of another backup cannot be read: {problem}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let rows = manifest
                .relations()
                .filter_map(|(_, relation)| relation.chunks.as_ref());
            for chunk in rows.flat_map(|rows| &rows.chunks) {
                self.add_packed(chunk, packs, &mut numbers);
            }
        }
        Ok(())
    }

    fn add_packed(
        &mut self,
        chunk: &ChunkManifest,
        packs: &HashMap<KeyHash, u64>,
        numbers: &mut HashMap<KeyHash, u32>,
    ) -> Option<()> {
        if !chunk.object.starts_with(layout::PACKS) {
            return None;
        }
        let hash = KeyHash::of(&chunk.object);
        let end = chunk.offset.checked_add(chunk.stored_bytes)?;
        packs.get(&hash).filter(|size| end <= **size)?;
        let name = chunk.name.parse().ok()?;
        let sha256 = digest(&chunk.sha256)?;
        let Entry::Vacant(vacant) = self.chunks.entry(name) else {
            return None;
        };
        let pack = match numbers.entry(hash) {
            Entry::Occupied(number) => *number.get(),
            Entry::Vacant(number) => {
                let next = u32::try_from(self.packs.len()).ok()?;
                self.packs.push(chunk.object.clone());
                *number.insert(next)
            }
        };
        let place = Place::Packed {
            pack,
            offset: chunk.offset,
            stored_bytes: chunk.stored_bytes,
            sha256,
        };
        vacant.insert(Slot::Stored { place, used: false });
        Some(())
    }

    /// Counts a chunk that is put. `true` where the caller has to store it.
    pub(super) fn claim(&mut self, name: ChunkName, bytes: u64) -> bool {
        self.statistics.chunks += 1;
        self.statistics.bytes += bytes;
        match self.chunks.entry(name) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot::Pending { relied_on: false });
                self.pending += 1;
                true
            }
            Entry::Occupied(mut slot) => {
                match slot.get_mut() {
                    Slot::Stored { place, used } if !*used => {
                        *used = true;
                        self.statistics.stored_bytes += place.stored_bytes();
                    }
                    Slot::Stored { .. } => {}
                    Slot::Pending { relied_on } => *relied_on = true,
                }
                false
            }
        }
    }

    /// Forgets a chunk that `claim` gave to a worker which has gone away. `false` where another one relies on it.
    pub(super) fn give_up(&mut self, name: ChunkName, bytes: u64) -> bool {
        if let Some(Slot::Pending { relied_on: false }) = self.chunks.get(&name) {
            self.chunks.remove(&name);
            self.pending -= 1;
            self.statistics.chunks -= 1;
            self.statistics.bytes -= bytes;
            return true;
        }
        false
    }

    /// Counts a new chunk when its size is known.
    pub(super) const fn count_new(&mut self, stored_bytes: u64) {
        self.statistics.stored_bytes += stored_bytes;
        self.statistics.new_chunks += 1;
        self.statistics.new_bytes += stored_bytes;
    }

    /// A chunk lies in the store as an object of its own.
    pub(super) fn stored(&mut self, name: ChunkName, stored_bytes: u64, sha256: [u8; 32], writer: [u8; 8]) {
        self.settle(
            name,
            Place::Own {
                stored_bytes,
                sha256,
                writer,
            },
        );
    }

    /// A pack lies in the store.
    pub(super) fn stored_pack(&mut self, key: String, chunks: &[Packed]) {
        let Ok(pack) = u32::try_from(self.packs.len()) else {
            return; // its chunks stay pending, and the backup fails
        };
        self.packs.push(key);
        for Packed {
            name,
            offset,
            stored_bytes,
            sha256,
        } in chunks
        {
            let place = Place::Packed {
                pack,
                offset: *offset,
                stored_bytes: *stored_bytes,
                sha256: *sha256,
            };
            self.settle(*name, place);
        }
    }

    fn settle(&mut self, name: ChunkName, place: Place) {
        self.chunks.insert(name, Slot::Stored { place, used: true });
        self.pending -= 1;
    }

    /// Whether chunks were put that are not in the store yet.
    pub(super) const fn has_pending(&self) -> bool {
        self.pending > 0
    }

    pub(super) const fn statistics(&self) -> WriterStatistics {
        self.statistics
    }

    /// Where a chunk is that this writer has put.
    pub(super) fn locate(&self, name: &ChunkName) -> Option<StoredChunk> {
        let Slot::Stored { place, used: true } = self.chunks.get(name)? else {
            return None;
        };
        Some(match place {
            Place::Own {
                stored_bytes,
                sha256,
                writer,
            } => {
                let sha256 = hex::encode(sha256);
                StoredChunk {
                    object: layout::chunk(&name.to_string(), &sha256, *stored_bytes, &hex::encode(writer)),
                    offset: 0,
                    stored_bytes: *stored_bytes,
                    sha256,
                }
            }
            Place::Packed {
                pack,
                offset,
                stored_bytes,
                sha256,
            } => StoredChunk {
                object: self.packs.get(usize::try_from(*pack).ok()?)?.clone(),
                offset: *offset,
                stored_bytes: *stored_bytes,
                sha256: hex::encode(sha256),
            },
        })
    }
}

/// A chunk as its key describes it; `None` for what pgrescue did not write, or where the size is another.
fn parse_chunk(object: &ObjectInfo) -> Option<(ChunkName, Place)> {
    let (_, name) = object.key.strip_prefix(layout::CHUNKS)?.split_once('/')?;
    let mut parts = name.split('-');
    let (name, sha256) = (parts.next()?, parts.next()?);
    let stored_bytes: u64 = parts.next()?.parse().ok()?;
    let mut writer = [0; 8];
    hex::decode_to_slice(parts.next()?, &mut writer).ok()?;
    let place = Place::Own {
        stored_bytes,
        sha256: digest(sha256)?,
        writer,
    };
    let name = name.parse().ok()?;
    (parts.next().is_none() && stored_bytes == object.size).then_some((name, place))
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}
