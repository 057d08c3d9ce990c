//! One chunk as one zstd frame; where it is encrypted, in one age file.

use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, DParameter, compress_bound, find_frame_compressed_size, get_frame_content_size};

use super::{ChunkDamage, ChunkName, RepositoryError};
use crate::store::encryption::{Identities, Unreadable};
use crate::store::manifest::ChunkManifest;

/// A chunk as it is stored.
pub(super) struct Frame {
    pub bytes: Vec<u8>,
    pub sha256: [u8; 32],
}

impl Frame {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let sha256 = Sha256::digest(&bytes).into();
        Self { bytes, sha256 }
    }
}

/// Contexts of zstd that are free: one holds megabytes and is worth keeping. With each is the room that it compresses
/// into: what is taken and given back for every chunk stays in part with the allocator, for each thread that did so.
pub(super) struct Compressors {
    level: i32,
    free: Mutex<Vec<(Compressor<'static>, Vec<u8>)>>,
}

/// A frame up to this size is copied out of the room, and the room is kept; a larger one takes the room with it.
const COPIED: usize = 2 << 20;

impl Compressors {
    pub(super) fn new(level: i32) -> Self {
        Self {
            level,
            free: Mutex::default(),
        }
    }

    /// Compresses in one call from one contiguous buffer: scattered input costs zstd half its speed. The frame holds
    /// its content's size and checksum. `None` where it takes more than `most` bytes, which are less than its bound.
    pub(super) fn compress(&self, stream: &[u8], most: usize) -> Result<Option<Vec<u8>>, RepositoryError> {
        let failed = |error: std::io::Error| RepositoryError::Compression {
            bytes: stream.len(),
            problem: error.to_string(),
        };
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (mut compressor, mut room) = match free {
            Some(free) => free,
            None => (self.make().map_err(failed)?, Vec::new()),
        };
        room.clear();
        let worst = bound(stream.len());
        let within = most < worst;
        if within && room.capacity() > most {
            room = Vec::new();
        }
        room.try_reserve_exact(most.min(worst))
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let frame = match compressor.compress_to_buffer(stream, &mut room) {
            Ok(bytes) if bytes <= COPIED => Some(room.as_slice().to_vec()),
            Ok(_) => {
                room.shrink_to_fit();
                Some(std::mem::take(&mut room))
            }
            // What else may be wrong comes again where there is room for everything.
            Err(_) if within => {
                room = Vec::new();
                None
            }
            Err(error) => return Err(failed(error)),
        };
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((compressor, room));
        Ok(frame)
    }

    fn make(&self) -> std::io::Result<Compressor<'static>> {
        let mut compressor = Compressor::new(self.level)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(compressor)
    }
}

/// Most bytes that a chunk of this length takes when it is compressed.
pub(super) fn bound(bytes: usize) -> usize {
    compress_bound(bytes)
}

/// What becomes of the checksum in a frame, with which who unpacks it by hand can prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameChecksum {
    Proved,
    PassedOver,
}

/// The COPY stream in what is stored, proved against the manifest, in the memory of `room`. No more than `chunk.bytes`
/// are allocated, whatever the frame says of itself, and, where it is decrypted, the bytes of the frame.
pub(super) fn decode(
    stored: &[u8],
    chunk: &ChunkManifest,
    key: &[u8; 32],
    identities: Option<&Identities>,
    checksum: FrameChecksum,
    room: Vec<u8>,
) -> Result<Vec<u8>, ChunkDamage> {
    check_sha256(stored, chunk)?;
    let Some(identities) = identities else {
        return unpack(stored, chunk, key, checksum, room);
    };
    let frame = identities.decrypt(stored).map_err(|unreadable| match unreadable {
        Unreadable::NoIdentityFits => ChunkDamage::Encryption("none of the given identities opens it".to_owned()),
        Unreadable::Damaged(problem) => ChunkDamage::Encryption(problem),
    })?;
    unpack(&frame, chunk, key, checksum, room)
}

/// The COPY stream in a frame.
fn unpack(
    stored: &[u8],
    chunk: &ChunkManifest,
    key: &[u8; 32],
    checksum: FrameChecksum,
    room: Vec<u8>,
) -> Result<Vec<u8>, ChunkDamage> {
    let name: ChunkName = chunk
        .name
        .parse()
        .map_err(|_| ChunkDamage::Manifest("the name is not 64 hexadecimal digits"))?;
    let not_a_frame = |why: String| ChunkDamage::Frame(why);
    match find_frame_compressed_size(stored) {
        Ok(length) if length == stored.len() => {}
        Ok(length) => {
            let rest = stored.len() - length;
            return Err(not_a_frame(format!("{rest} bytes follow it")));
        }
        Err(code) => return Err(not_a_frame(zstd::zstd_safe::get_error_name(code).to_owned())),
    }
    match get_frame_content_size(stored) {
        Ok(Some(found)) if found == chunk.bytes => {}
        Ok(Some(found)) => {
            return Err(ChunkDamage::Size {
                expected: chunk.bytes,
                found,
            });
        }
        _ => return Err(not_a_frame("it does not say how long its content is".into())),
    }
    let stream = decompress(stored, chunk.bytes, checksum, room)?;
    if ChunkName::of(key, &stream) == name {
        Ok(stream)
    } else {
        Err(ChunkDamage::Name)
    }
}

/// Whether the stored bytes are those of the manifest.
pub(super) fn check_sha256(stored: &[u8], chunk: &ChunkManifest) -> Result<(), ChunkDamage> {
    let found = hex::encode(Sha256::digest(stored));
    if found == chunk.sha256 {
        return Ok(());
    }
    Err(ChunkDamage::Sha256 {
        expected: chunk.sha256.clone(),
        found,
    })
}

fn decompress(stored: &[u8], bytes: u64, checksum: FrameChecksum, mut stream: Vec<u8>) -> Result<Vec<u8>, ChunkDamage> {
    let failed = |error: std::io::Error| ChunkDamage::Frame(error.to_string());
    let length = usize::try_from(bytes).map_err(|error| failed(std::io::Error::other(error)))?;
    stream.clear();
    stream
        .try_reserve_exact(length)
        .map_err(|error| failed(std::io::Error::other(error)))?;
    let mut decompressor = Decompressor::new().map_err(failed)?;
    let pass_over = DParameter::ForceIgnoreChecksum(checksum == FrameChecksum::PassedOver);
    decompressor.set_parameter(pass_over).map_err(failed)?;
    let found = decompressor.decompress_to_buffer(stored, &mut stream).map_err(failed)?;
    if found == length {
        Ok(stream)
    } else {
        Err(ChunkDamage::Size {
            expected: bytes,
            found: found as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(stored: &[u8], chunk: &ChunkManifest, key: &[u8; 32]) -> Result<Vec<u8>, ChunkDamage> {
        let room = b"of another chunk".to_vec();
        super::decode(stored, chunk, key, None, FrameChecksum::Proved, room)
    }

    const KEY: [u8; 32] = [7; 32];

    fn chunk(stream: &[u8]) -> (ChunkManifest, Vec<u8>) {
        let frame = Frame::of(Compressors::new(3).compress(stream, usize::MAX).unwrap().unwrap());
        let manifest = ChunkManifest {
            name: ChunkName::of(&KEY, stream).to_string(),
            stored_bytes: frame.bytes.len() as u64,
            sha256: hex::encode(frame.sha256),
            bytes: stream.len() as u64,
            ..ChunkManifest::default()
        };
        (manifest, frame.bytes)
    }

    /// As somebody would who can also change the manifest.
    fn with_hash_of(stored: &[u8], chunk: &ChunkManifest) -> ChunkManifest {
        ChunkManifest {
            sha256: hex::encode(Sha256::digest(stored)),
            stored_bytes: stored.len() as u64,
            ..chunk.clone()
        }
    }

    #[test]
    fn a_chunk_is_decoded_to_the_stream_that_it_was_made_of() {
        for stream in [&b""[..], b"a", &vec![b'x'; 100_000]] {
            let (manifest, stored) = chunk(stream);
            assert_eq!(decode(&stored, &manifest, &KEY).unwrap(), stream);
        }
    }

    #[test]
    fn a_frame_that_does_not_fit_is_not_made_and_the_next_one_is_whole() {
        let compressors = Compressors::new(1);
        let stream: Vec<u8> = (0..3_000_000_u32)
            .flat_map(|i| i.wrapping_mul(i).to_le_bytes())
            .collect();
        let whole = compressors.compress(&stream, bound(stream.len())).unwrap().unwrap();
        assert!(whole.len() > COPIED, "{}", whole.len());
        assert!(compressors.compress(&stream, whole.len() - 1).unwrap().is_none());
        for most in [whole.len() * 5 / 4, usize::MAX] {
            let again = compressors.compress(&stream, most).unwrap().unwrap();
            assert!(again == whole, "{} and {} bytes", again.len(), whole.len());
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (manifest, stored) = chunk(b"1\tone\n2\ttwo\n");
        for at in 0..stored.len() {
            for bit in 0..8 {
                let mut flipped = stored.clone();
                flipped[at] ^= 1 << bit;
                let damage = decode(&flipped, &manifest, &KEY).unwrap_err();
                assert!(matches!(damage, ChunkDamage::Sha256 { .. }), "{damage}");
                // Also where the hash in the manifest was changed with it.
                if let Ok(stream) = decode(&flipped, &with_hash_of(&flipped, &manifest), &KEY) {
                    assert_eq!(stream, b"1\tone\n2\ttwo\n", "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_checksum_in_the_frame_is_found_where_it_is_asked_for() {
        let (manifest, mut stored) = chunk(b"1\tone\n");
        *stored.last_mut().unwrap() ^= 1;
        let manifest = with_hash_of(&stored, &manifest);
        let damage = decode(&stored, &manifest, &KEY).unwrap_err();
        assert!(matches!(damage, ChunkDamage::Frame(_)), "{damage}");
        let passed_over = super::decode(&stored, &manifest, &KEY, None, FrameChecksum::PassedOver, Vec::new());
        assert_eq!(passed_over.unwrap(), b"1\tone\n");
    }

    #[test]
    fn bytes_behind_the_frame_and_a_second_frame_are_refused() {
        let (manifest, stored) = chunk(b"1\tone\n");
        let (_, empty) = chunk(b"");
        for rest in [&b"x"[..], &empty, &stored] {
            let longer = [&stored, rest].concat();
            let damage = decode(&longer, &with_hash_of(&longer, &manifest), &KEY).unwrap_err();
            assert!(matches!(damage, ChunkDamage::Frame(_)), "{damage}");
        }
        let shorter = &stored[..stored.len() - 1];
        assert!(decode(shorter, &with_hash_of(shorter, &manifest), &KEY).is_err());
        assert!(decode(b"", &with_hash_of(b"", &manifest), &KEY).is_err());
    }

    #[test]
    fn a_frame_that_holds_more_than_the_manifest_says_is_not_unpacked() {
        let (manifest, stored) = chunk(&vec![0; 64 << 20]);
        assert!(stored.len() < 64 << 10, "a bomb");
        let small = ChunkManifest {
            bytes: 1000,
            ..manifest.clone()
        };
        assert_eq!(
            decode(&stored, &small, &KEY).unwrap_err(),
            ChunkDamage::Size {
                expected: 1000,
                found: 64 << 20
            }
        );
        // A frame that is silent about its size cannot pass as a small one either.
        let mut silent = Compressor::new(3).unwrap();
        silent.set_parameter(CParameter::ContentSizeFlag(false)).unwrap();
        let silent = silent.compress(&vec![0; 64 << 20]).unwrap();
        assert!(decode(&silent, &with_hash_of(&silent, &small), &KEY).is_err());
    }

    #[test]
    fn a_manifest_that_claims_more_than_memory_holds_is_an_error() {
        let (manifest, stored) = chunk(b"1\tone\n");
        let huge = ChunkManifest {
            bytes: u64::MAX,
            ..manifest
        };
        assert!(decode(&stored, &huge, &KEY).is_err());
    }

    #[test]
    fn rows_of_another_chunk_are_refused() {
        let (manifest, _) = chunk(b"1\tone\n");
        let (_, other) = chunk(b"1\ttwo\n");
        let damage = decode(&other, &with_hash_of(&other, &manifest), &KEY).unwrap_err();
        assert_eq!(damage, ChunkDamage::Name);
    }
}
