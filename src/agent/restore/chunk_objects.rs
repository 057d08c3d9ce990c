//! The objects that hold a database's chunks: what the manifest says of them is held against itself and against a
//! listing of the store before anything is changed. Their content is proved as each is loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::chunks;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::quote::qualified;
use crate::store::encryption::{Identities, Recipients};
use crate::store::manifest::{ChunkManifest, DatabaseManifest, Manifest};
use crate::store::repository::{Repository, RepositoryError};
use crate::store::{Store, StoreError};

/// Listings at once.
const LISTINGS: usize = 8;
/// Objects that a refusal names; the others are counted.
const OBJECTS_NAMED: usize = 10;

/// Every chunk of a database that a restore loads.
pub(super) fn chunks(database: &DatabaseManifest) -> impl Iterator<Item = &ChunkManifest> {
    chunks::relations(database).flat_map(|(_, rows)| &rows.chunks)
}

/// What must be there of an object: the bytes up to this one, and a table whose rows they are.
type Needed<'a> = BTreeMap<&'a str, (u64, String)>;

/// Opens the repository and checks that every object of the database's chunks is there. `None` where the database has
/// no chunks.
pub(super) async fn open(
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    database: &str,
    identities: Option<&Arc<Identities>>,
) -> Result<Option<Arc<Repository>>, Refusal> {
    let Some(database) = manifest.database(database) else {
        return Ok(None);
    };
    check_counts(database)?;
    if chunks::relations(database).next().is_none() {
        return Ok(None);
    }
    let mut repository = Repository::open(Arc::clone(store)).await?;
    if let Some(identities) = identities {
        let recipients = Recipients::parse(manifest.recipients()).map_err(RepositoryError::from)?;
        repository = repository.encrypted(recipients, Some(Arc::clone(identities)));
    }
    let sizes = list(store, database).await?;
    let needed = needed(database);
    let wrong = compare(&needed, &sizes);
    if wrong.is_empty() {
        return Ok(Some(Arc::new(repository)));
    }
    let reason = if needed.keys().all(|object| sizes.contains_key(*object)) {
        reasons::OBJECT_CHANGED
    } else {
        reasons::OBJECT_MISSING
    };
    let more = wrong.len().saturating_sub(OBJECTS_NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let named: Vec<_> = wrong.into_iter().take(OBJECTS_NAMED).collect();
    let message = format!(
        "The backup in {} is damaged: {}{more}.",
        store.location(),
        named.join(", ")
    );
    Err(Refusal::permanent(reason, message)
        .object(&manifest.snapshot)
        .hint("Use another backup, or bring the objects back from a replica or a version of the bucket."))
}

/// A manifest that was edited must not pass for a whole backup.
fn check_counts(database: &DatabaseManifest) -> Result<(), Refusal> {
    for (relation, rows) in chunks::relations(database) {
        let name = qualified(&relation.schema, &relation.name);
        let sum = rows
            .chunks
            .iter()
            .try_fold(0_u64, |sum, chunk| sum.checked_add(chunk.rows));
        let problem = if relation.data.is_some() {
            "are in the archive and in chunks".to_owned()
        } else if sum.is_none() || sum != relation.rows {
            format!(
                "are {}, and those of its chunks {}",
                relation.rows.map_or("not counted".to_owned(), |rows| rows.to_string()),
                sum.map_or("too many".to_owned(), |sum| sum.to_string())
            )
        } else {
            continue;
        };
        let message = format!("The manifest contradicts itself: the rows of {name} {problem}.");
        return Err(Refusal::permanent(reasons::MANIFEST_INVALID, message)
            .object(name)
            .hint("The object was changed after the backup, or something else wrote it: use another backup."));
    }
    Ok(())
}

fn needed(database: &DatabaseManifest) -> Needed<'_> {
    let mut needed = Needed::new();
    for (relation, rows) in chunks::relations(database) {
        for chunk in &rows.chunks {
            let end = chunk.offset.saturating_add(chunk.stored_bytes);
            let object = needed
                .entry(&chunk.object)
                .or_insert_with(|| (0, qualified(&relation.schema, &relation.name)));
            object.0 = object.0.max(end);
        }
    }
    needed
}

/// Sizes of what lies in the folders of the database's chunks. Folder by folder: a repository holds more objects than
/// one backup names.
async fn list(store: &Arc<dyn Store>, database: &DatabaseManifest) -> Result<BTreeMap<String, u64>, StoreError> {
    let needed = needed(database);
    let mut folders: Vec<_> = needed
        .keys()
        .filter_map(|object| Some(format!("{}/", object.rsplit_once('/')?.0)))
        .collect();
    folders.dedup();
    stream::iter(folders)
        .map(|folder| async move { store.list(&folder).await })
        .buffer_unordered(LISTINGS)
        .try_fold(BTreeMap::new(), |mut sizes, objects| {
            let named = objects
                .into_iter()
                .filter(|object| needed.contains_key(object.key.as_str()));
            sizes.extend(named.map(|object| (object.key, object.size)));
            std::future::ready(Ok(sizes))
        })
        .await
}

/// What is wrong, each object in a few words.
fn compare(needed: &Needed<'_>, sizes: &BTreeMap<String, u64>) -> Vec<String> {
    let wrong = needed
        .iter()
        .filter_map(|(object, (end, table))| match sizes.get(*object) {
            None => Some(format!("{object:?} with rows of {table} is missing")),
            Some(size) if size < end => Some(format!(
                "{object:?} with rows of {table} has {size} bytes instead of {end} or more"
            )),
            Some(_) => None,
        });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::manifest::{ChunkedRows, DataManifest, RelationManifest};

    fn database(chunks: &[(&str, u64, u64)]) -> DatabaseManifest {
        let chunks = chunks.iter().map(|(object, offset, stored_bytes)| ChunkManifest {
            object: (*object).into(),
            offset: *offset,
            stored_bytes: *stored_bytes,
            rows: 2,
            ..ChunkManifest::default()
        });
        let chunks: Vec<_> = chunks.collect();
        DatabaseManifest {
            relations: vec![RelationManifest {
                schema: "s".into(),
                name: "t".into(),
                rows: Some(2 * chunks.len() as u64),
                chunks: Some(ChunkedRows {
                    chunks,
                    ..ChunkedRows::default()
                }),
                ..RelationManifest::default()
            }],
            ..DatabaseManifest::default()
        }
    }

    #[test]
    fn an_object_must_hold_every_byte_that_a_chunk_names() {
        let database = database(&[("packs/aa/1", 10, 5), ("packs/aa/1", 0, 10), ("chunks/bb/2", 0, 7)]);
        let sizes = |pack, chunk| BTreeMap::from([("packs/aa/1".into(), pack), ("chunks/bb/2".into(), chunk)]);
        assert_eq!(compare(&needed(&database), &sizes(15, 7)), Vec::<String>::new());
        assert_eq!(
            compare(&needed(&database), &sizes(14, 7)),
            [r#""packs/aa/1" with rows of "s"."t" has 14 bytes instead of 15 or more"#]
        );
        let mut missing = sizes(15, 7);
        missing.remove("chunks/bb/2");
        assert_eq!(
            compare(&needed(&database), &missing),
            [r#""chunks/bb/2" with rows of "s"."t" is missing"#]
        );
    }

    #[test]
    fn a_manifest_whose_counts_contradict_each_other_is_refused() {
        let good = database(&[("a/b/c", 0, 1), ("a/b/d", 0, 1)]);
        assert!(check_counts(&good).is_ok());
        let mut fewer = good.clone();
        fewer.relations[0].rows = Some(3);
        let mut uncounted = good.clone();
        uncounted.relations[0].rows = None;
        let mut twice = good;
        twice.relations[0].data = Some(DataManifest::default());
        for (wrong, word) in [
            (fewer, "are 3, and those of its chunks 4"),
            (uncounted, "not counted"),
            (twice, "archive and in chunks"),
        ] {
            let refusal = check_counts(&wrong).unwrap_err();
            assert_eq!(refusal.reason, reasons::MANIFEST_INVALID);
            assert!(refusal.message.contains(word), "{refusal:?}");
        }
    }
}
