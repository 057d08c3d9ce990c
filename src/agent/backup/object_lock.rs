//! Keeps a finished backup from deletion, where the storage asks for that. Everything that the manifest names is locked
//! before the manifest is written, which is born with its lock: a backup that is there is locked as a whole, and one
//! that failed has left nothing that cannot be removed.

use std::collections::BTreeSet;

use crate::plan::Refusal;
use crate::store::manifest::Manifest;
use crate::store::{Store, layout, repository};

/// Locks every object that the manifest names. A chunk that an earlier backup stored is locked for as long as this
/// backup is, unless a manifest says that it is already.
pub(super) async fn lock(store: &dyn Store, manifest: &Manifest) -> Result<(), Refusal> {
    let Some(retention) = store.retention() else {
        return Ok(());
    };
    let shared: BTreeSet<&str> = manifest.chunks().map(|chunk| chunk.object.as_str()).collect();
    // Without the description of the repository no chunk can be read.
    let repository = (!shared.is_empty()).then_some(layout::REPOSITORY);
    let shared = shared.into_iter().chain(repository).map(str::to_owned).collect();
    let mut keys = repository::not_yet_locked(store, shared, retention).await?;
    keys.extend(manifest.objects.iter().map(|object| object.key.clone()));
    tracing::info!(objects = keys.len(), until = %retention.until, "locking the objects of the backup");
    Ok(store.lock(&keys).await?)
}
