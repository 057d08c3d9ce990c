//! The beginning of a run: plan, record the Job's name, make the Job, record its UID. In that order, a restart in
//! between finds what was made and makes nothing twice.

use std::time::Duration;

use kube::runtime::controller::Action;

use super::apply::{self, Applied};
use super::context::Context;
use super::error::Error;
use super::finalizers;
use super::finish::{self, End};
use super::job::JobRequest;
use super::names;
use super::plan::{Decision, plan};
use super::reconcile::Work;
use super::record::record;
use super::resource::RunResource;
use super::status::{self, Situation};
use crate::api::reasons;
use crate::api::status::{JobReference, Phase};
use crate::plan::{Plan, Refusal};

/// How often a run that waits looks again by itself.
const WAITING: Duration = Duration::from_secs(30);
/// How soon a Job that was just made is looked at.
const JUST_STARTED: Duration = Duration::from_secs(5);

/// Begins a run that has not begun.
pub async fn begin<R: RunResource>(context: &Context, mut work: Work<R>) -> Result<Action, Error> {
    if work.status.job.as_ref().is_some_and(|job| names::is_dry_run(&job.name)) && !work.request.dry_run {
        // The Job of the dry run is done with.
        work.status.job = None;
    }
    let planned = match plan(context, &*work.resource, &work.request).await? {
        Decision::Run(plan) => plan,
        Decision::Wait(refusal) => return wait(context, work, &refusal).await,
        Decision::Refuse(refusal) => return Box::pin(finish::finish(context, work, End::refused(refusal))).await,
    };
    work.status.job = Some(JobReference {
        name: work.request.job_name.clone(),
        uid: None,
    });
    work.status.follow_up = None;
    work.status.failure = None;
    work.status.completion_time = None;
    work.status.plan_hash = None;
    let work = record(context, work, &status::pending("the Job is being made")).await?;
    start(context, work, &planned).await
}

/// Goes on where the operator stopped between recording the Job's name and its UID.
pub async fn resume<R: RunResource>(context: &Context, work: Work<R>) -> Result<Action, Error> {
    // A Job that was made before is the run, whatever has become of its backup since.
    if let Some(JobReference { name, .. }) = work.status.job.clone()
        && let Some(applied) = apply::find(&context.client, &work.request.reference, &name).await?
    {
        return made(context, work, name, applied).await;
    }
    match plan(context, &*work.resource, &work.request).await? {
        Decision::Run(plan) => start(context, work, &plan).await,
        Decision::Wait(refusal) => wait(context, work, &refusal).await,
        Decision::Refuse(refusal) => Box::pin(finish::finish(context, work, End::refused(refusal))).await,
    }
}

async fn start<R: RunResource>(context: &Context, work: Work<R>, plan: &Plan) -> Result<Action, Error> {
    // From its Job on the run may leave something half done.
    let work = Box::pin(finalizers::hold(context, work)).await?;
    let Some(JobReference { name, .. }) = work.status.job.clone() else {
        return Ok(Action::requeue(Duration::ZERO));
    };
    let request = JobRequest {
        run: &work.request.reference,
        name: &name,
        plan,
        job: &work.request.job,
        log_level: work.request.log_level,
        settings: &context.settings,
    };
    match Box::pin(apply::owned(&context.client, &request)).await {
        Ok(applied) => made(context, work, name, applied).await,
        Err(error) => not_made(context, work, error).await,
    }
}

async fn made<R: RunResource>(
    context: &Context,
    mut work: Work<R>,
    name: String,
    applied: Applied,
) -> Result<Action, Error> {
    let Applied::Job(job) = applied else {
        return Box::pin(finish::finish(context, work, End::refused(taken(&name)))).await;
    };
    work.status.job = Some(JobReference {
        name,
        uid: job.metadata.uid,
    });
    work.status.start_time = job.metadata.creation_timestamp;
    record(context, work, &status::pending("the Job was made")).await?;
    Ok(Action::requeue(JUST_STARTED))
}

fn taken(job: &str) -> Refusal {
    Refusal::permanent(
        reasons::INTERNAL,
        format!("A Job {job:?} exists that was not made for this resource."),
    )
    .object(format!("Job/{job}"))
    .hint("Delete that Job and make the resource again with a new name.")
}

async fn not_made<R: RunResource>(context: &Context, work: Work<R>, error: Error) -> Result<Action, Error> {
    if error.is_namespace_terminating() {
        return Ok(Action::await_change());
    }
    if let Some(message) = error.rejection() {
        let refusal = Refusal::permanent(
            reasons::INVALID_SPEC,
            format!("Kubernetes does not take the run's Job: {message}"),
        )
        .hint("Correct spec.job in a new resource.");
        return Box::pin(finish::finish(context, work, End::refused(refusal))).await;
    }
    if let Some(message) = error.denial() {
        let message = format!("the Job cannot be made: {message}; it is tried again");
        record(context, work, &status::pending(message)).await?;
    }
    Err(error)
}

async fn wait<R: RunResource>(context: &Context, work: Work<R>, refusal: &Refusal) -> Result<Action, Error> {
    let hint = refusal.hint.as_deref().unwrap_or_default();
    let message = format!("{} {hint}", refusal.message);
    let situation = Situation::new(Phase::Waiting, &refusal.reason, message.trim_end());
    record(context, work, &situation).await?;
    Ok(Action::requeue(WAITING))
}
