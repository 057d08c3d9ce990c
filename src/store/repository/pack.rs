//! Small chunks that share an object: frames back to back.

use sha2::{Digest, Sha256};

use super::ChunkName;
use super::budget::Share;
use super::frame::Frame;
use super::index::Packed;

/// What makes a chunk small and a pack full.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackSizes {
    /// Most bytes of a pack.
    pub pack: usize,
    /// A frame of at least so many bytes is an object of its own.
    pub small: usize,
    /// Most frames in a pack: many tables of one row must not make it a long list.
    pub frames: usize,
}

impl PackSizes {
    pub(super) const STANDARD: Self = Self {
        pack: 4 << 20,
        small: 512 << 10,
        frames: 4096,
    };
}

/// The pack that is being filled.
#[derive(Default)]
pub(super) struct OpenPack {
    bytes: Vec<u8>,
    chunks: Vec<Packed>,
    /// Its share of the bytes in flight.
    share: Option<Share>,
}

/// A pack that is full.
pub(super) struct SealedPack {
    pub bytes: Vec<u8>,
    pub sha256: String,
    pub chunks: Vec<Packed>,
    pub share: Option<Share>,
}

impl OpenPack {
    /// Adds a frame with its share of the bytes in flight. Returns the pack that was full before it.
    pub(super) fn add(&mut self, name: ChunkName, frame: &Frame, share: Share, sizes: PackSizes) -> Option<SealedPack> {
        let full = self.bytes.len() + frame.bytes.len() > sizes.pack || self.chunks.len() >= sizes.frames;
        let sealed = if full { self.seal() } else { None };
        self.chunks.push(Packed {
            name,
            offset: self.bytes.len() as u64,
            stored_bytes: frame.bytes.len() as u64,
            sha256: frame.sha256,
        });
        self.bytes.extend_from_slice(&frame.bytes);
        match &mut self.share {
            Some(held) => {
                held.merge(share);
                held.reduce_to(self.bytes.len()); // many tiny frames have rounded up
            }
            none => *none = Some(share),
        }
        sealed
    }

    /// The pack as it is; `None` where it is empty.
    pub(super) fn seal(&mut self) -> Option<SealedPack> {
        let Self { bytes, chunks, share } = std::mem::take(self);
        (!chunks.is_empty()).then(|| SealedPack {
            sha256: hex::encode(Sha256::digest(&bytes)),
            bytes,
            chunks,
            share,
        })
    }
}
