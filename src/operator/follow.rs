//! A run whose Job was made: observe it, judge it, and write what follows.

use std::time::Duration;

use kube::runtime::controller::Action;

use super::context::Context;
use super::error::Error;
use super::events;
use super::finish::{self, End};
use super::follow_up;
use super::names;
use super::observe::observe;
use super::reconcile::Work;
use super::record::record;
use super::resource::RunResource;
use super::status::{self, Situation};
use super::verdict::{Verdict, judge};
use crate::api::reasons;
use crate::api::status::{Failure, FollowUpPurpose, JobReference, Phase};
use crate::plan::Refusal;

/// How often a Job is looked at whose agent does not run yet: pods that cannot start do not change their Job.
pub const STARTING: Duration = Duration::from_secs(10);
/// How often a Job is looked at whose agent runs. Its end is told by the API server.
pub const RUNNING: Duration = Duration::from_mins(1);

/// Looks at the Job of a run.
pub async fn follow<R: RunResource>(context: &Context, mut work: Work<R>, uid: &str) -> Result<Action, Error> {
    let Some(JobReference { name, .. }) = work.status.job.clone() else {
        return Ok(Action::requeue(Duration::ZERO));
    };
    let observation = observe(&context.client, &work.request.reference, &name).await?;
    match judge(&observation, uid) {
        Verdict::Unfinished { running: true, message } => {
            record(context, work, &status::running(message)).await?;
            Ok(Action::requeue(RUNNING))
        }
        Verdict::Unfinished {
            running: false,
            message,
        } => {
            let situation = not_running(context, &work, message).await;
            record(context, work, &situation).await?;
            Ok(Action::requeue(STARTING))
        }
        Verdict::Done(report) => Box::pin(finish::finish(context, work, End::of_report(report))).await,
        Verdict::ReportMissing => Box::pin(follow_up::begin(context, work, FollowUpPurpose::Check)).await,
        Verdict::Failed {
            failure,
            unclean,
            plan_hash,
        } => {
            work.status.plan_hash = plan_hash;
            failed(context, work, failure, unclean && !names::is_dry_run(&name)).await
        }
        Verdict::Lost => failed(context, work, lost(&name), !names::is_dry_run(&name)).await,
    }
}

/// No agent runs: the first has not begun, or one has ended and the next is to come. The phase does not go back for
/// that; an Event tells it, once.
async fn not_running<R: RunResource>(context: &Context, work: &Work<R>, message: String) -> Situation {
    if work.status.phase != Some(Phase::Running) {
        return status::pending(message);
    }
    let told = work
        .status
        .conditions
        .iter()
        .any(|condition| condition.message == message);
    if !told {
        events::warn(context, &*work.resource, reasons::PROGRESSING, &message).await;
    }
    status::running(message)
}

/// A failure is final when nothing is left behind; until then it is noted.
async fn failed<R: RunResource>(
    context: &Context,
    mut work: Work<R>,
    failure: Failure,
    unclean: bool,
) -> Result<Action, Error> {
    if !unclean {
        return Box::pin(finish::finish(context, work, End::Failed(failure))).await;
    }
    work.status.failure = Some(failure);
    Box::pin(follow_up::begin(context, work, FollowUpPurpose::CleanUp)).await
}

fn lost(job: &str) -> Failure {
    Refusal::permanent(
        reasons::JOB_LOST,
        format!("The Job {job:?} is gone and no outcome is known; it is not made again."),
    )
    .object(format!("Job/{job}"))
    .hint("Make the resource again with a new name.")
    .into_failure(None)
}
