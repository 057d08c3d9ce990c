//! How the data blocks of an archive are compressed.

use libpgdump::CompressionAlgorithm;

use super::error::ArchiveError;

/// How the data blocks of an archive are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// zlib streams.
    Gzip,
    /// LZ4 frames.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

impl Compression {
    /// Before 1.15 the header has a level, where 0 is none and everything else zlib (`ReadHead`).
    pub(super) const fn from_level(level: i32) -> Self {
        if level == 0 { Self::None } else { Self::Gzip }
    }

    /// From 1.15 on the header has `pg_compress_algorithm` of `common/compression.h`.
    pub(super) const fn from_byte(byte: u8) -> Result<Self, ArchiveError> {
        match byte {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Lz4),
            3 => Ok(Self::Zstd),
            other => Err(ArchiveError::CompressionUnknown(other)),
        }
    }

    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Lz4 => 2,
            Self::Zstd => 3,
        }
    }

    pub(super) const fn algorithm(self) -> CompressionAlgorithm {
        match self {
            Self::None => CompressionAlgorithm::None,
            Self::Gzip => CompressionAlgorithm::Gzip,
            Self::Lz4 => CompressionAlgorithm::Lz4,
            Self::Zstd => CompressionAlgorithm::Zstd,
        }
    }
}
