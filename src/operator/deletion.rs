//! The deletion of a resource that a finalizer holds: its agent is stopped, then a Job deletes the artefact, or removes
//! what an unfinished run left behind. It never takes for ever.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::runtime::controller::Action;
use serde_json::json;

use super::context::Context;
use super::error::Error;
use super::events;
use super::finalizers;
use super::finish::{change_job, retire};
use super::follow_up;
use super::names::{self, RunReference};
use super::observe::{Observation, observe};
use super::reconcile::Work;
use super::record::record;
use super::release::release_pods;
use super::resource::RunResource;
use super::status::Situation;
use super::verdict::{Verdict, changed_nothing, judge};
use crate::api::reasons;
use crate::api::status::{FollowUp, FollowUpPurpose, JobReference, Phase};
use crate::plan::RunKind;

/// How often a deletion is looked at.
const DELETING: Duration = Duration::from_secs(5);

/// Goes on with the deletion of a resource.
pub async fn proceed<R: RunResource>(context: &Context, work: Work<R>) -> Result<Action, Error> {
    if !finalizers::hold_back(&*work.resource) {
        return Ok(Action::await_change());
    }
    let Some((job, purpose)) = left_to_do(&work) else {
        return let_go(context, &work).await;
    };
    if is_terminating(context, &work.request.reference.namespace).await? {
        let why = "the namespace is being deleted, and nothing can be made in it any more";
        return give_up(context, &work, purpose, why).await;
    }
    if is_overdue(context, &*work.resource) {
        abandon(context, &work, purpose).await?;
        return give_up(context, &work, purpose, "it could not be deleted in time").await;
    }
    let run = &work.request.reference;
    let observation = observe(&context.client, run, &job.name).await?;
    let steps = work.resource.run_status().map(|status| status.steps.as_slice());
    if work.status.is_under_way() && changed_nothing(&observation, job.uid.as_deref(), steps.unwrap_or_default()) {
        return let_go(context, &work).await;
    }
    if !(stop(context, run, &job.name, &observation).await? && stop_check(context, &work).await?) {
        let situation = deleting("waiting for the agent to stop");
        record(context, work, &situation).await?;
        return Ok(Action::requeue(DELETING));
    }
    match Box::pin(work_off(context, work, purpose)).await {
        Err(error) if error.is_namespace_terminating() => Ok(Action::requeue(DELETING)),
        action => action,
    }
}

/// The Job whose work is undone, and how. A dry run has made nothing, and what a finished run made stays unless
/// `deletionPolicy: Delete` asks for it.
fn left_to_do<R: RunResource>(work: &Work<R>) -> Option<(JobReference, FollowUpPurpose)> {
    let job = work.status.job.clone().filter(|job| !names::is_dry_run(&job.name))?;
    if work.request.deletes_artifact {
        Some((job, FollowUpPurpose::Delete))
    } else {
        work.status.is_under_way().then_some((job, FollowUpPurpose::CleanUp))
    }
}

async fn work_off<R: RunResource>(
    context: &Context,
    mut work: Work<R>,
    purpose: FollowUpPurpose,
) -> Result<Action, Error> {
    let job = if let Some(job) = work.status.follow_up_job(purpose) {
        job.clone()
    } else {
        let follow_up = follow_up::named(&work, purpose);
        work.status.follow_up = Some(follow_up.clone());
        work = record(context, work, &deleting(doing(purpose))).await?;
        follow_up.job
    };
    let Some(uid) = &job.uid else {
        return match follow_up::make(context, &work, purpose, &job.name).await? {
            Ok(job) => {
                work.status.follow_up = Some(FollowUp { purpose, job });
                record(context, work, &deleting(doing(purpose))).await?;
                Ok(Action::requeue(DELETING))
            }
            Err(refusal) => give_up(context, &work, purpose, &refusal.message).await,
        };
    };
    let observation = observe(&context.client, &work.request.reference, &job.name).await?;
    match judge(&observation, uid) {
        Verdict::Unfinished { message, .. } => {
            let situation = deleting(&format!("{}: {message}", doing(purpose)));
            record(context, work, &situation).await?;
            Ok(Action::requeue(DELETING))
        }
        Verdict::Done(report) => {
            if purpose == FollowUpPurpose::Delete {
                context.metrics.artifact_deleted();
            }
            events::tell(context, &*work.resource, &deleting(&report.message)).await;
            retire(context, &work, &job.name).await?;
            let_go(context, &work).await
        }
        Verdict::Failed { failure, .. } => {
            retire(context, &work, &job.name).await?;
            give_up(context, &work, purpose, &failure.message).await
        }
        Verdict::ReportMissing | Verdict::Lost => {
            retire(context, &work, &job.name).await?;
            give_up(context, &work, purpose, "the Job for it left no report").await
        }
    }
}

const fn doing(purpose: FollowUpPurpose) -> &'static str {
    match purpose {
        FollowUpPurpose::Delete => "a Job deletes the artefact",
        FollowUpPurpose::CleanUp | FollowUpPurpose::Check => "a Job removes what the unfinished run left behind",
    }
}

/// Ends a Job that is still at it: it belongs to no resource, so nobody else would, and it must not remove later what
/// is told to be left.
async fn abandon<R: RunResource>(context: &Context, work: &Work<R>, purpose: FollowUpPurpose) -> Result<(), Error> {
    let Some(job) = work.status.follow_up_job(purpose) else {
        return Ok(());
    };
    let deadline = json!({"spec": {"activeDeadlineSeconds": 1}});
    change_job(context, &work.request.reference, &job.name, &deadline, "stop").await?;
    retire(context, work, &job.name).await
}

fn deleting(message: &str) -> Situation {
    Situation::new(Phase::Deleting, reasons::DELETING, message)
}

/// Stops a Job, if it still runs, by suspending it; says whether its agent has stopped.
async fn stop(context: &Context, run: &RunReference, job: &str, observation: &Observation) -> Result<bool, Error> {
    let Observation { job: found, attempts } = observation;
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
        change_job(context, run, job, &json!({"spec": {"suspend": true}}), "stop").await?;
        return Ok(false);
    }
    Ok(attempts.iter().all(|attempt| attempt.end.is_some()))
}

/// A Job that looks how a run ended works by the run's own plan.
async fn stop_check<R: RunResource>(context: &Context, work: &Work<R>) -> Result<bool, Error> {
    let Some(job) = work.status.follow_up_job(FollowUpPurpose::Check) else {
        return Ok(true);
    };
    let run = &work.request.reference;
    let observation = observe(&context.client, run, &job.name).await?;
    let stopped = stop(context, run, &job.name, &observation).await?;
    if stopped {
        release_pods(&context.client, run, &job.name).await?;
    }
    Ok(stopped)
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

/// Lets the resource go and says what is left.
async fn give_up<R: RunResource>(
    context: &Context,
    work: &Work<R>,
    purpose: FollowUpPurpose,
    why: &str,
) -> Result<Action, Error> {
    let run = &work.request.reference;
    let why = why.trim_end_matches('.');
    let location = work.resource.artifact().map(|artifact| artifact.location.as_str());
    let message = match (purpose, run.kind) {
        (FollowUpPurpose::Delete, _) => {
            context.metrics.artifact_kept();
            let at = location.map(|location| format!(" at {location}")).unwrap_or_default();
            format!("The artefact{at} was left in the store: {why}. Delete it by hand if it is not wanted.")
        }
        (_, RunKind::PgBackup) => format!(
            "Objects of the unfinished backup may be left in the store: {why}. Without a manifest they are no backup; delete them by hand."
        ),
        (_, RunKind::PgRestore) => format!(
            "What the unfinished restore had made may be left on the target: {why}. Databases and roles that it had made say so in their comments; drop them by hand."
        ),
    };
    tracing::warn!(namespace = run.namespace, name = run.name, location, "{message}");
    events::warn(context, &*work.resource, reasons::DELETING, &message).await;
    let_go(context, work).await
}

/// Lets the pods go, then the resource.
async fn let_go<R: RunResource>(context: &Context, work: &Work<R>) -> Result<Action, Error> {
    let follow_up = work.status.follow_up.iter().map(|follow_up| &follow_up.job);
    for JobReference { name, .. } in work.status.job.iter().chain(follow_up) {
        release_pods(&context.client, &work.request.reference, name).await?;
    }
    finalizers::take_off(context, &*work.resource).await?;
    Ok(Action::await_change())
}
