//! The chunks that the manifests describe, for a check.

use std::sync::Arc;

use super::references::SnapshotManifest;
use crate::store::manifest::{ChunkManifest, RowFormat};

/// A chunk as a manifest describes it, without the place in its table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Described {
    pub object: String,
    pub offset: u64,
    pub stored_bytes: u64,
    bytes: u64,
    rows: u64,
    pub name: String,
    sha256: String,
    pub format: RowFormat,
    /// To whom it is encrypted; nobody where it is not.
    pub recipients: Arc<[String]>,
}

impl Described {
    fn of(chunk: &ChunkManifest, format: RowFormat, recipients: &Arc<[String]>) -> Self {
        let ChunkManifest {
            name,
            object,
            offset,
            stored_bytes,
            sha256,
            bytes,
            rows,
            first_block: _,
            end_block: _,
        } = chunk.clone();
        Self {
            object,
            offset,
            stored_bytes,
            bytes,
            rows,
            name,
            sha256,
            format,
            recipients: Arc::clone(recipients),
        }
    }

    pub(super) fn chunk(&self) -> ChunkManifest {
        ChunkManifest {
            name: self.name.clone(),
            object: self.object.clone(),
            offset: self.offset,
            stored_bytes: self.stored_bytes,
            sha256: self.sha256.clone(),
            bytes: self.bytes,
            rows: self.rows,
            first_block: None,
            end_block: None,
        }
    }
}

/// The chunks of a manifest, each with its table.
pub(super) fn described(manifest: &SnapshotManifest) -> impl Iterator<Item = (String, Described)> {
    let recipients: Arc<[String]> = manifest.recipients().into();
    manifest.relations().flat_map(move |(database, relation)| {
        let recipients = Arc::clone(&recipients);
        let table = format!("{}.{}.{}", database.name, relation.schema, relation.name);
        let rows = relation.chunks.iter();
        rows.flat_map(move |rows| {
            let (table, recipients) = (table.clone(), Arc::clone(&recipients));
            rows.chunks
                .iter()
                .map(move |chunk| (table.clone(), Described::of(chunk, rows.format, &recipients)))
        })
    })
}
