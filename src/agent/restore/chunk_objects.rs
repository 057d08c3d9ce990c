//! The objects that hold a database's chunks: what the manifest says of them is held against itself and against a
//! listing of the store before anything is changed. Their content is proved as each is loaded.

use std::sync::Arc;

use super::chunks;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::listing::first_and_more;
use crate::postgres::quote::qualified;
use crate::store::Store;
use crate::store::encryption::{Identities, Recipients};
use crate::store::manifest::{ChunkManifest, DatabaseManifest, Manifest};
use crate::store::repository::{Repository, RepositoryError, ShortObject, short_objects};

/// Objects that a refusal names; the others are counted.
const OBJECTS_NAMED: usize = 10;

/// Every chunk of a database that a restore loads.
pub(super) fn chunks(database: &DatabaseManifest) -> impl Iterator<Item = &ChunkManifest> {
    chunks::relations(database).flat_map(|(_, rows)| &rows.chunks)
}

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
    let short = short_objects(&**store, chunks(database)).await?;
    if short.is_empty() {
        return Ok(Some(Arc::new(repository)));
    }
    let reason = if short.iter().any(|object| object.size.is_none()) {
        reasons::OBJECT_MISSING
    } else {
        reasons::OBJECT_CHANGED
    };
    let named = short.iter().take(OBJECTS_NAMED);
    let named: Vec<_> = named.map(|object| described(database, object)).collect();
    let message = format!(
        "The backup in {} is damaged: {}.",
        store.location(),
        first_and_more(&named, short.len())
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

/// What is wrong with an object, in a few words.
fn described(database: &DatabaseManifest, short: &ShortObject) -> String {
    let ShortObject { key, end, size } = short;
    let of_table = chunks::relations(database)
        .find(|(_, rows)| rows.chunks.iter().any(|chunk| chunk.object == *key))
        .map_or_else(String::new, |(relation, _)| {
            format!(" with rows of {}", qualified(&relation.schema, &relation.name))
        });
    match size {
        None => format!("{key:?}{of_table} is missing"),
        Some(size) => format!("{key:?}{of_table} has {size} bytes instead of {end} or more"),
    }
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
    fn a_short_object_is_named_with_the_table_that_it_hurts() {
        let database = database(&[("packs/aa/1", 10, 5), ("packs/aa/1", 0, 10)]);
        let mut short = ShortObject {
            key: "packs/aa/1".into(),
            end: 15,
            size: Some(14),
        };
        assert_eq!(
            described(&database, &short),
            r#""packs/aa/1" with rows of "s"."t" has 14 bytes instead of 15 or more"#
        );
        short.size = None;
        assert_eq!(
            described(&database, &short),
            r#""packs/aa/1" with rows of "s"."t" is missing"#
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
