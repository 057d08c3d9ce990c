//! The name of a chunk.

use std::fmt;
use std::str::FromStr;

/// Keyed BLAKE3 hash of a COPY stream; the key is the repository's. Equal rows have the same name, however they are
/// compressed, and without the key nobody can tell from a name what the rows are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkName(pub(super) [u8; 32]);

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name of a chunk has 64 hexadecimal digits")]
pub struct InvalidChunkName;

impl ChunkName {
    /// The name of a COPY stream.
    #[must_use]
    pub fn of(key: &[u8; 32], stream: &[u8]) -> Self {
        Self(*blake3::keyed_hash(key, stream).as_bytes())
    }
}

impl FromStr for ChunkName {
    type Err = InvalidChunkName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidChunkName)?;
        Ok(Self(bytes))
    }
}

/// Lower-case hexadecimal digits, as in a manifest.
impl fmt::Display for ChunkName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChunkName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
