//! Rows of a relation as chunks in the repository.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows of a relation that are stored outside the archive. Every chunk is a whole COPY stream: a binary one has the
/// header and the trailer of the format, so that `COPY … FROM STDIN` takes each by itself, in any order.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ChunkedRows {
    /// Format of the COPY streams.
    pub format: RowFormat,
    /// Columns of the streams, in order. Generated columns are not among them.
    pub columns: Vec<String>,
    /// `client_encoding` that the rows were read with, and must be loaded with.
    pub client_encoding: String,
    /// The chunks, by block range and, within one, in the order of the rows.
    pub chunks: Vec<ChunkManifest>,
}

/// Format of a COPY stream.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum RowFormat {
    /// `FORMAT binary`: every column has a type whose binary form means the same on every server.
    Binary,
    /// `FORMAT text`.
    #[default]
    Text,
}

/// One chunk of a relation.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ChunkManifest {
    /// Keyed BLAKE3 hash of the COPY stream, in hex; the key is the repository's.
    pub name: String,
    /// Object that holds it, relative to the prefix of the storage: a chunk of its own or a pack.
    pub object: String,
    /// Where it begins in the object, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// Bytes in the object.
    pub stored_bytes: u64,
    /// SHA-256 of those bytes, in hex.
    pub sha256: String,
    /// Bytes of the COPY stream.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// First heap block of its range; `None` where the relation was read as one stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_block: Option<u64>,
    /// Heap block behind its range; `None` for the last, open range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_block: Option<u64>,
}

/// Sums over the chunks of a backup. A chunk that stands in several places counts once.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ChunkTotals {
    /// Chunks.
    pub chunks: u64,
    /// Bytes of their COPY streams.
    pub bytes: u64,
    /// Bytes in the repository.
    pub stored_bytes: u64,
    /// Chunks among them that the repository did not have before.
    pub new_chunks: u64,
    /// Bytes in the repository of those.
    pub new_bytes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}
