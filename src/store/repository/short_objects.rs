//! The objects of chunks, held against a listing of the store: they are too many to ask for one by one.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::store::manifest::ChunkManifest;
use crate::store::{Store, StoreError};

/// Listings at once.
const LISTINGS: usize = 8;

/// An object that does not hold every byte that chunks name.
#[derive(Debug, PartialEq, Eq)]
pub struct ShortObject {
    /// Its key.
    pub key: String,
    /// Byte behind the last chunk in it.
    pub end: u64,
    /// Bytes that it has; `None` where it is missing.
    pub size: Option<u64>,
}

/// Which objects of these chunks are missing, or end before a chunk does, in the order of their keys.
pub async fn short_objects<'a>(
    store: &dyn Store,
    chunks: impl Iterator<Item = &'a ChunkManifest>,
) -> Result<Vec<ShortObject>, StoreError> {
    let ends = ends(chunks);
    // Both stay few: the pages of one listing, which come one after the other, where the repository is large, and the
    // listings where it is small.
    let prefixes: BTreeSet<&str> = ends.keys().map(|key| up_to_first_digit(key)).collect();
    let sizes = stream::iter(prefixes)
        .map(|prefix| store.list(prefix))
        .buffer_unordered(LISTINGS)
        .try_fold(BTreeMap::new(), |mut sizes, objects| {
            let named = objects
                .into_iter()
                .filter(|object| ends.contains_key(object.key.as_str()));
            sizes.extend(named.map(|object| (object.key, object.size)));
            std::future::ready(Ok(sizes))
        })
        .await?;
    Ok(compare(&ends, &sizes))
}

/// The objects, and the byte up to which each is needed.
fn ends<'a>(chunks: impl Iterator<Item = &'a ChunkManifest>) -> BTreeMap<&'a str, u64> {
    let mut ends = BTreeMap::new();
    for chunk in chunks {
        let end: &mut u64 = ends.entry(chunk.object.as_str()).or_default();
        *end = (*end).max(chunk.offset.saturating_add(chunk.stored_bytes));
    }
    ends
}

/// `chunks/a` of `chunks/ab/cd…`.
fn up_to_first_digit(key: &str) -> &str {
    key.find('/').and_then(|slash| key.get(..slash + 2)).unwrap_or(key)
}

fn compare(ends: &BTreeMap<&str, u64>, sizes: &BTreeMap<String, u64>) -> Vec<ShortObject> {
    ends.iter()
        .map(|(key, end)| ShortObject {
            key: (*key).to_owned(),
            end: *end,
            size: sizes.get(*key).copied(),
        })
        .filter(|object| object.size.is_none_or(|size| size < object.end))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(object: &str, offset: u64, stored_bytes: u64) -> ChunkManifest {
        ChunkManifest {
            object: object.into(),
            offset,
            stored_bytes,
            ..ChunkManifest::default()
        }
    }

    #[test]
    fn an_object_must_hold_every_byte_that_a_chunk_names() {
        let chunks = [
            chunk("packs/aa/1", 10, 5),
            chunk("packs/aa/1", 0, 10),
            chunk("chunks/bb/2", 0, 7),
        ];
        let ends = ends(chunks.iter());
        let sizes = |pack, chunk| BTreeMap::from([("packs/aa/1".into(), pack), ("chunks/bb/2".into(), chunk)]);
        assert_eq!(compare(&ends, &sizes(15, 7)), []);
        let short = |key: &str, end, size| ShortObject {
            key: key.into(),
            end,
            size,
        };
        assert_eq!(compare(&ends, &sizes(14, 7)), [short("packs/aa/1", 15, Some(14))]);
        let mut missing = sizes(15, 7);
        missing.remove("chunks/bb/2");
        assert_eq!(compare(&ends, &missing), [short("chunks/bb/2", 7, None)]);
    }

    #[test]
    fn listings_are_of_folders_with_the_same_first_digit() {
        for (key, prefix) in [
            ("chunks/ab/cd-1", "chunks/a"),
            ("packs/0", "packs/0"),
            ("packs/", "packs/"),
            ("packs/é", "packs/é"),
            ("none", "none"),
        ] {
            assert_eq!(up_to_first_digit(key), prefix);
        }
    }
}
