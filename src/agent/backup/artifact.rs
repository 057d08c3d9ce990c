//! An artefact as a whole: found again by a retry, removed after a failure or with its resource.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::manifest::artifact_of;
use crate::agent::Context;
use crate::api::reasons;
use crate::api::status::Artifact;
use crate::plan::backup::{BackupPlan, DeleteArtifactPlan};
use crate::plan::report::{Done, Failed, Outcome};
use crate::plan::{Refusal, Run};
use crate::store::error::LockedObject;
use crate::store::manifest::{Manifest, SIZE_LIMIT_BYTES};
use crate::store::repository::{ShortObject, short_objects};
use crate::store::{self, Store, StoreError, layout};

/// Time for removing what a failed backup stored, within the 30 s that Kubernetes gives a pod to end.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(20);

/// Requests for the sizes of objects that are under way at once.
const REQUESTS: usize = 8;

/// What a store has of a snapshot.
pub(super) enum Existing {
    Nothing,
    /// A whole backup of this run.
    Finished(Artifact),
    /// A manifest that the objects do not agree with.
    Damaged(String),
}

/// Looks for the manifest of this run, and holds the objects against it.
pub(super) async fn find(store: &dyn Store, run: &Run, snapshot: &str) -> Result<Existing, Refusal> {
    let bytes = match store::read_all(store, &layout::manifest(snapshot), SIZE_LIMIT_BYTES).await {
        Ok(bytes) => bytes,
        Err(StoreError::ObjectMissing { .. }) => return Ok(Existing::Nothing),
        Err(error) => return Err(error.into()),
    };
    let manifest = match Manifest::read(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(Existing::Damaged(error.to_string())),
    };
    if manifest.backup.uid != run.uid {
        let key = layout::manifest(snapshot);
        return Err(Refusal::permanent(
            reasons::INTERNAL,
            format!("The store holds a backup of another resource under the snapshot id {snapshot}."),
        )
        .object(key)
        .hint("Nothing was changed. Make the backup again as a new resource."));
    }
    match check_objects(store, &manifest).await? {
        None => Ok(Existing::Finished(artifact_of(&manifest, &bytes, &store.location()))),
        Some(damage) => Ok(Existing::Damaged(damage)),
    }
}

/// What is wrong with the objects of a manifest; `None` where each has its size.
pub(super) async fn check_objects(store: &dyn Store, manifest: &Manifest) -> Result<Option<String>, StoreError> {
    let (damage, damage_of_chunks) = tokio::try_join!(check_sizes(store, manifest), check_chunks(store, manifest))?;
    Ok(damage.or(damage_of_chunks))
}

async fn check_sizes(store: &dyn Store, manifest: &Manifest) -> Result<Option<String>, StoreError> {
    let objects = stream::iter(&manifest.objects);
    let sizes = objects.map(|object| async move { Ok::<_, StoreError>((object, store.stat(&object.key).await?)) });
    let sizes: Vec<_> = sizes.buffered(REQUESTS).try_collect().await?;
    Ok(sizes.into_iter().find_map(|(object, found)| match found {
        Some(found) if found.size == object.size => None,
        Some(found) => {
            let sizes = format!("has {} bytes where {} were stored", found.size, object.size);
            Some(format!("the object {} {sizes}", object.key))
        }
        None => Some(format!("the object {} is missing", object.key)),
    }))
}

async fn check_chunks(store: &dyn Store, manifest: &Manifest) -> Result<Option<String>, StoreError> {
    let short = short_objects(store, manifest.chunks()).await?.into_iter().next();
    Ok(short.map(|ShortObject { key, end, size }| match size {
        Some(size) => format!("the object {key} has {size} bytes, and chunks in it end at {end}"),
        None => format!("the object {key} is missing"),
    }))
}

/// Removes everything of a snapshot: the manifest first, for without it there is no backup. Where that is locked nothing
/// is removed.
async fn remove(store: &dyn Store, snapshot: &str) -> Result<usize, StoreError> {
    let prefix = layout::snapshot_prefix(snapshot);
    store.delete(&[layout::manifest(snapshot)]).await?;
    store.abort_uploads(&prefix).await?;
    let keys: Vec<String> = store
        .list(&prefix)
        .await?
        .into_iter()
        .map(|object| object.key)
        .collect();
    if !keys.is_empty() {
        store.delete(&keys).await?;
    }
    Ok(keys.len())
}

/// Removes what an earlier attempt left. Credentials that may not delete are no reason to fail: what is stored again
/// is overwritten, and what no manifest names is no backup.
pub(super) async fn remove_leftovers(store: &dyn Store, snapshot: &str) -> Result<(), Refusal> {
    let prefix = layout::snapshot_prefix(snapshot);
    let aborted = store.abort_uploads(&prefix).await?;
    let left: Vec<String> = store
        .list(&prefix)
        .await?
        .into_iter()
        .map(|object| object.key)
        .collect();
    if aborted > 0 || !left.is_empty() {
        tracing::info!(
            uploads = aborted,
            objects = left.len(),
            "an earlier attempt left something behind"
        );
    }
    let has_manifest = left.contains(&layout::manifest(snapshot));
    match store.delete(&left).await {
        Err(error) if !has_manifest => {
            tracing::warn!("what an earlier attempt left cannot be removed: {error}");
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Removes what this run stored before it failed. It never hides why it failed.
pub(super) async fn remove_after_failure(store: &dyn Store, snapshot: &str) -> Result<(), String> {
    match tokio::time::timeout(CLEAN_UP_LIMIT, remove(store, snapshot)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "the store did not answer for {} seconds",
            CLEAN_UP_LIMIT.as_secs()
        )),
    }
}

/// Deletes the artefact of a deleted resource: the manifest first, then the objects. A second run finds nothing, which
/// is what it wants. A backup that is locked stays, whole, and the answer says until when.
pub async fn delete_artifact(plan: &DeleteArtifactPlan, context: &Context) -> Result<Done, Failed> {
    let store = open(plan, context).await?;
    let snapshot = &plan.snapshot;
    let manifest = layout::manifest(snapshot);
    let locked = match store.locked_until(&manifest).await {
        // Who may delete need not be allowed to look.
        Err(StoreError::AccessDenied { .. }) => None,
        locked => locked.map_err(Refusal::from)?,
    };
    let removed = tokio::select! {
        removed = remove(store.as_ref(), snapshot) => removed,
        () = context.stop.cancelled() => return Err(Refusal::interrupted().into()),
    };
    let removed = match removed {
        Err(StoreError::ObjectsLocked { last, .. }) => return Err(still_locked(snapshot, &last).into()),
        removed => removed.map_err(Refusal::from)?,
    };
    Ok(done(match (removed, locked) {
        (0, _) => format!("The snapshot {snapshot} is gone."),
        (count, None) => format!("The snapshot {snapshot} was deleted: its manifest and {count} objects."),
        // A bucket with object lock keeps versions.
        (count, Some(until)) => format!(
            "The snapshot {snapshot} was deleted: its manifest and {count} objects. The bucket keeps their versions, \
             which are locked until {until}."
        ),
    }))
}

fn still_locked(snapshot: &str, last: &LockedObject) -> Refusal {
    let LockedObject { key, until } = last;
    let message = format!("The snapshot {snapshot} is locked until {until}.");
    Refusal::permanent(reasons::OBJECT_LOCKED, message)
        .object(key)
        .hint("Object lock keeps the backup, with all its objects. It can be deleted after that.")
}

/// Removes what a backup's agent that died for good left in the store. A backup that has its manifest was finished
/// before the agent died; it stays, and the answer names it.
pub async fn clean_up(plan: &DeleteArtifactPlan, context: &Context) -> Result<Done, Failed> {
    let store = open(plan, context).await?;
    if let Existing::Finished(artifact) = find(store.as_ref(), &plan.run, &plan.snapshot).await? {
        return Ok(Done {
            artifact: Some(artifact),
            ..done(format!(
                "The backup {} was finished, with all its objects; nothing was removed.",
                plan.snapshot
            ))
        });
    }
    let removed = interruptible(context, remove(store.as_ref(), &plan.snapshot)).await?;
    Ok(done(format!(
        "No unfinished backup is left in the store; {removed} objects were removed."
    )))
}

/// The artefact that a retry of the same run finds.
pub(super) async fn find_finished(store: &dyn Store, plan: &BackupPlan) -> Result<Option<Artifact>, Refusal> {
    let snapshot = plan.run.snapshot_id();
    match find(store, &plan.run, &snapshot).await? {
        Existing::Nothing => Ok(None),
        Existing::Finished(artifact) => Ok(Some(artifact)),
        Existing::Damaged(damage) => {
            tracing::warn!("an earlier attempt of this run left a manifest, but {damage}; it is made again");
            Ok(None)
        }
    }
}

async fn open(plan: &DeleteArtifactPlan, context: &Context) -> Result<std::sync::Arc<dyn Store>, Refusal> {
    Ok(store::open(&plan.storage, context.references.as_ref()).await?)
}

async fn interruptible<T>(context: &Context, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, Refusal> {
    tokio::select! {
        result = work => Ok(result?),
        () = context.stop.cancelled() => Err(Refusal::interrupted()),
    }
}

fn done(message: String) -> Done {
    Done {
        outcome: Outcome::Succeeded,
        message,
        artifact: None,
        plan_hash: None,
    }
}
