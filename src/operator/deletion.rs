//! The deletion of a backup that takes its artefact along. A finalizer holds the resource only where
//! `deletionPolicy: Delete` asks for it, and never for ever.

use std::time::Duration;

use jiff::Timestamp;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, TestOperation};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::context::Context;
use super::error::Error;
use super::events;
use super::finish::retire;
use super::follow_up;
use super::names::{self, ARTIFACT_FINALIZER, FIELD_MANAGER};
use super::observe::{Observation, observe};
use super::reconcile::Work;
use super::record::record;
use super::release::{release_pods, without_finalizer};
use super::resource::RunResource;
use super::status::Situation;
use super::verdict::{Verdict, judge};
use crate::api::reasons;
use crate::api::status::{FollowUp, FollowUpPurpose, JobReference, Phase};

/// How often a deletion is looked at.
const DELETING: Duration = Duration::from_secs(5);

/// Adds the finalizer where the artefact goes with the resource, and takes it off where it does not.
pub async fn hold<R: RunResource>(context: &Context, mut work: Work<R>) -> Result<Work<R>, Error> {
    let held = is_held(&*work.resource);
    let patch = match (held, work.request.deletes_artifact) {
        (false, true) => with_finalizer(&*work.resource),
        (true, false) => without_finalizer(work.resource.meta(), ARTIFACT_FINALIZER),
        (true, true) | (false, false) => None,
    };
    if let Some(patch) = patch {
        work.resource = Box::new(patch_metadata(context, &*work.resource, patch).await?);
    }
    Ok(work)
}

/// Goes on with the deletion of a resource.
pub async fn proceed<R: RunResource>(context: &Context, work: Work<R>) -> Result<Action, Error> {
    if !is_held(&*work.resource) {
        return Ok(Action::await_change());
    }
    if !work.request.deletes_artifact {
        return let_go(context, &work).await;
    }
    if is_terminating(context, &work.request.reference.namespace).await? {
        return keep(
            context,
            &work,
            "the namespace is being deleted, and nothing can be made in it any more",
        )
        .await;
    }
    if is_overdue(context, &*work.resource) {
        return keep(context, &work, "it could not be deleted in time").await;
    }
    // A dry run has stored nothing.
    let Some(JobReference { name, .. }) = work.status.job.clone().filter(|job| !names::is_dry_run(&job.name)) else {
        return let_go(context, &work).await;
    };
    if !stopped(context, &work, &name).await? {
        let situation = deleting("waiting for the agent to stop before the artefact is deleted");
        record(context, work, &situation).await?;
        return Ok(Action::requeue(DELETING));
    }
    match Box::pin(delete_artifact(context, work)).await {
        Err(error) if error.is_namespace_terminating() => Ok(Action::requeue(DELETING)),
        action => action,
    }
}

async fn delete_artifact<R: RunResource>(context: &Context, mut work: Work<R>) -> Result<Action, Error> {
    let FollowUp { purpose, job } = match work.status.follow_up.clone() {
        Some(follow_up) if follow_up.purpose == FollowUpPurpose::Delete => follow_up,
        _ => {
            let follow_up = follow_up::named(&work, FollowUpPurpose::Delete);
            work.status.follow_up = Some(follow_up.clone());
            work = record(context, work, &deleting("a Job deletes the artefact")).await?;
            follow_up
        }
    };
    let Some(uid) = &job.uid else {
        return match follow_up::make(context, &work, purpose, &job.name).await? {
            Ok(job) => {
                work.status.follow_up = Some(FollowUp { purpose, job });
                record(context, work, &deleting("a Job deletes the artefact")).await?;
                Ok(Action::requeue(DELETING))
            }
            Err(refusal) => keep(context, &work, &refusal.message).await,
        };
    };
    let observation = observe(&context.client, &work.request.reference, &job.name).await?;
    match judge(&observation, uid) {
        Verdict::Unfinished { message, .. } => {
            record(
                context,
                work,
                &deleting(&format!("a Job deletes the artefact: {message}")),
            )
            .await?;
            Ok(Action::requeue(DELETING))
        }
        Verdict::Done(report) => {
            context.metrics.artifact_deleted();
            events::tell(context, &*work.resource, &deleting(&report.message)).await;
            retire(context, &work, &job.name).await?;
            let_go(context, &work).await
        }
        Verdict::Failed { failure, .. } => {
            retire(context, &work, &job.name).await?;
            keep(context, &work, &failure.message).await
        }
        Verdict::ReportMissing | Verdict::Lost => {
            retire(context, &work, &job.name).await?;
            keep(context, &work, "the Job that deletes it left no report").await
        }
    }
}

fn deleting(message: &str) -> Situation {
    Situation::new(Phase::Deleting, reasons::DELETING, message)
}

/// Stops the run's Job, if it still runs, by suspending it; says whether its agent has stopped.
async fn stopped<R: RunResource>(context: &Context, work: &Work<R>, job: &str) -> Result<bool, Error> {
    let run = &work.request.reference;
    let Observation { job: found, attempts } = observe(&context.client, run, job).await?;
    let conditions = found
        .iter()
        .filter_map(|job| job.status.as_ref()?.conditions.as_deref())
        .flatten();
    let ended = conditions
        .into_iter()
        .any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True");
    let suspended = found
        .as_ref()
        .and_then(|job| job.spec.as_ref())
        .is_some_and(|spec| spec.suspend == Some(true));
    if found.is_some() && !ended && !suspended {
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        Api::<Job>::namespaced(context.client.clone(), &run.namespace)
            .patch(job, &parameters, &Patch::Merge(json!({"spec": {"suspend": true}})))
            .await
            .map_err(Error::kubernetes("suspend", format_args!("Job {job}")))?;
        return Ok(false);
    }
    Ok(attempts.iter().all(|attempt| attempt.end.is_some()))
}

async fn is_terminating(context: &Context, name: &str) -> Result<bool, Error> {
    let namespace = Api::<Namespace>::all(context.client.clone())
        .get_opt(name)
        .await
        .map_err(Error::kubernetes("get", format_args!("Namespace {name}")))?;
    Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

fn is_overdue<R: RunResource>(context: &Context, resource: &R) -> bool {
    let deadline = i64::from(context.settings.deletion_deadline_seconds);
    let since = resource.meta().deletion_timestamp.as_ref();
    since.is_some_and(|since| Timestamp::now().as_second() - since.0.as_second() > deadline)
}

/// Lets the resource go and leaves the artefact, which is told.
async fn keep<R: RunResource>(context: &Context, work: &Work<R>, why: &str) -> Result<Action, Error> {
    let run = &work.request.reference;
    let location = work.resource.artifact().map(|artifact| artifact.location.as_str());
    tracing::warn!(
        namespace = run.namespace,
        name = run.name,
        location,
        "the artefact of a deleted resource is left in the store: {why}"
    );
    context.metrics.artifact_kept();
    let at = location.map(|location| format!(" at {location}")).unwrap_or_default();
    let message = format!("The artefact{at} was left in the store: {why}. Delete it by hand if it is not wanted.");
    events::warn(context, &*work.resource, reasons::DELETING, &message).await;
    let_go(context, work).await
}

/// Lets the pods go, then the resource.
async fn let_go<R: RunResource>(context: &Context, work: &Work<R>) -> Result<Action, Error> {
    let follow_up = work.status.follow_up.iter().map(|follow_up| &follow_up.job);
    for JobReference { name, .. } in work.status.job.iter().chain(follow_up) {
        release_pods(&context.client, &work.request.reference, name).await?;
    }
    if let Some(patch) = without_finalizer(work.resource.meta(), ARTIFACT_FINALIZER) {
        patch_metadata(context, &*work.resource, patch).await?;
    }
    Ok(Action::await_change())
}

fn is_held<R: RunResource>(resource: &R) -> bool {
    resource
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == ARTIFACT_FINALIZER)
}

/// A patch that adds the finalizer to this object as it is, not to a namesake.
fn with_finalizer<R: RunResource>(resource: &R) -> Option<JsonPatch> {
    let pointer = |tokens: &[&str]| PointerBuf::from_tokens(tokens.iter().copied());
    let add = if resource.finalizers().is_empty() {
        AddOperation {
            path: pointer(&["metadata", "finalizers"]),
            value: json!([ARTIFACT_FINALIZER]),
        }
    } else {
        AddOperation {
            path: pointer(&["metadata", "finalizers", "-"]),
            value: json!(ARTIFACT_FINALIZER),
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
