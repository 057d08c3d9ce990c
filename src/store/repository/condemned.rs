//! Lists of objects that a prune may delete. Every writer reads them after it has written its lock, and relies on no
//! object in them; so a deletion can hurt only writers that are older than the list, and those a prune waits for.
//!
//! An object stays condemned until it is gone, also where an older writer has used it meanwhile: then a prune that
//! was held up for a day deletes nothing that anybody needs.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::RepositoryError;
use super::key_hash::KeyHash;
use crate::store::{self, Store, StoreError, layout};

/// Largest list that is read, in bytes.
const SIZE_LIMIT_BYTES: u64 = 1 << 30;

/// One list.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condemned {
    pub id: String,
    /// When, by the clock of the prune. It only counts for the grace time.
    pub marked: Timestamp,
    /// Keys of the objects.
    pub objects: Vec<String>,
}

impl Condemned {
    /// Writes the list; it holds from the moment that this returns.
    pub(super) async fn write(&self, store: &dyn Store) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        store::put_new(store, &layout::condemned(&self.id), bytes.into())
            .await
            .map(|_| ())
    }
}

/// Every list of a repository. One that goes away meanwhile has no object left in the store.
pub(super) async fn read_all(store: &dyn Store) -> Result<Vec<Condemned>, RepositoryError> {
    let mut lists = Vec::new();
    for object in store.list(layout::CONDEMNED).await? {
        let bytes = match store::read_all(store, &object.key, SIZE_LIMIT_BYTES).await {
            Ok(bytes) => bytes,
            Err(StoreError::ObjectMissing { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let unreadable = |problem: String| RepositoryError::Unreadable {
            key: object.key.clone(),
            problem,
        };
        let list: Condemned = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        if layout::condemned(&list.id) != object.key {
            return Err(unreadable("its id is not that of its key".into()));
        }
        lists.push(list);
    }
    Ok(lists)
}

/// Hashes of all keys in the lists.
pub(super) fn hashes(lists: &[Condemned]) -> HashSet<KeyHash> {
    lists
        .iter()
        .flat_map(|list| &list.objects)
        .map(|key| KeyHash::of(key))
        .collect()
}
