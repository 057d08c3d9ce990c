//! The finalizers that hold a resource: until its artefact is deleted, where `deletionPolicy: Delete` asks for it, and
//! while its run is under way, so that a deletion in the middle leaves nothing half done behind. Neither holds for ever.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, TestOperation};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::context::Context;
use super::error::Error;
use super::names::{self, ARTIFACT_FINALIZER, FIELD_MANAGER, UNFINISHED_FINALIZER};
use super::reconcile::Work;
use super::release::without_finalizer;
use super::resource::RunResource;

/// Adds the finalizer that the resource needs now, and takes off the other.
pub async fn hold<R: RunResource>(context: &Context, mut work: Work<R>) -> Result<Work<R>, Error> {
    let with_artifact = work.request.deletes_artifact;
    let unfinished = !with_artifact && work.status.is_under_way();
    for (finalizer, wanted) in [(ARTIFACT_FINALIZER, with_artifact), (UNFINISHED_FINALIZER, unfinished)] {
        let patch = match (has(&*work.resource, finalizer), wanted) {
            (false, true) => with_finalizer(&*work.resource, finalizer),
            (true, false) => without_finalizer(work.resource.meta(), finalizer),
            (true, true) | (false, false) => None,
        };
        if let Some(patch) = patch {
            work.resource = Box::new(patch_metadata(context, &*work.resource, patch).await?);
        }
    }
    Ok(work)
}

/// Whether one of ours is on the resource.
pub fn hold_back<R: RunResource>(resource: &R) -> bool {
    has(resource, ARTIFACT_FINALIZER) || has(resource, UNFINISHED_FINALIZER)
}

/// Takes ours off.
pub async fn take_off<R: RunResource>(context: &Context, resource: &R) -> Result<(), Error> {
    let mut resource = resource.clone();
    for finalizer in [ARTIFACT_FINALIZER, UNFINISHED_FINALIZER] {
        if let Some(patch) = without_finalizer(resource.meta(), finalizer) {
            resource = patch_metadata(context, &resource, patch).await?;
        }
    }
    Ok(())
}

fn has<R: RunResource>(resource: &R, finalizer: &str) -> bool {
    resource.finalizers().iter().any(|name| name == finalizer)
}

/// A patch that adds a finalizer to this object as it is, not to a namesake.
fn with_finalizer<R: RunResource>(resource: &R, finalizer: &str) -> Option<JsonPatch> {
    let pointer = |tokens: &[&str]| PointerBuf::from_tokens(tokens.iter().copied());
    let add = if resource.finalizers().is_empty() {
        AddOperation {
            path: pointer(&["metadata", "finalizers"]),
            value: json!([finalizer]),
        }
    } else {
        AddOperation {
            path: pointer(&["metadata", "finalizers", "-"]),
            value: json!(finalizer),
        }
    };
    Some(JsonPatch(vec![
        PatchOperation::Test(TestOperation {
            path: pointer(&["metadata", "resourceVersion"]),
            value: json!(resource.resource_version()?),
        }),
        PatchOperation::Add(add),
    ]))
}

async fn patch_metadata<R: RunResource>(context: &Context, resource: &R, patch: JsonPatch) -> Result<R, Error> {
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let object = format!("{} {name}", names::kind(R::KIND));
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    Api::<R>::namespaced(context.client.clone(), &namespace)
        .patch(&name, &parameters, &Patch::<()>::Json(patch))
        .await
        .map_err(|error| match error {
            // A test of the patch failed: the object changed.
            kube::Error::Api(status) if status.code == 422 => Error::Conflict { object },
            error => Error::kubernetes("change the finalizers of", object)(error),
        })
}
