//! The Job that looks after what a run's own Job left open: it asks how a run ended whose report is missing, removes
//! what an agent that died for good left behind, or deletes the artefact of a deleted backup.

use kube::runtime::controller::Action;

use super::apply::{self, Applied};
use super::context::Context;
use super::error::Error;
use super::finish::{self, End};
use super::follow::{RUNNING, STARTING};
use super::job::JobRequest;
use super::observe::observe;
use super::plan::{Decision, plan};
use super::reconcile::Work;
use super::record::record;
use super::resource::RunResource;
use super::status;
use super::verdict::{Verdict, judge};
use crate::api::reasons;
use crate::api::status::{Failure, FollowUp, FollowUpPurpose, JobReference};
use crate::plan::report::{Outcome, Report};
use crate::plan::{Plan, Refusal};

/// Names the Job, then makes it.
pub async fn begin<R: RunResource>(
    context: &Context,
    mut work: Work<R>,
    purpose: FollowUpPurpose,
) -> Result<Action, Error> {
    let follow_up = named(&work, purpose);
    work.status.follow_up = Some(follow_up.clone());
    let work = record(context, work, &status::running(doing(purpose))).await?;
    Box::pin(follow(context, work, follow_up)).await
}

/// Makes the Job or looks at it.
pub async fn follow<R: RunResource>(
    context: &Context,
    mut work: Work<R>,
    follow_up: FollowUp,
) -> Result<Action, Error> {
    let FollowUp { purpose, job } = follow_up;
    let Some(uid) = &job.uid else {
        return match Box::pin(make(context, &work, purpose, &job.name)).await {
            Ok(Ok(made)) => {
                work.status.follow_up = Some(FollowUp { purpose, job: made });
                record(context, work, &status::running(doing(purpose))).await?;
                Ok(Action::requeue(STARTING))
            }
            Ok(Err(refusal)) => end(context, work, purpose, Err(refusal.into_failure(None))).await,
            Err(error) if error.is_namespace_terminating() => Ok(Action::await_change()),
            Err(error) => Err(error),
        };
    };
    let observation = observe(&context.client, &work.request.reference, &job.name).await?;
    match judge(&observation, uid) {
        Verdict::Unfinished { running, message } => {
            let situation = status::running(format!("{}: {message}", doing(purpose)));
            record(context, work, &situation).await?;
            Ok(Action::requeue(if running { RUNNING } else { STARTING }))
        }
        Verdict::Done(report) => end(context, work, purpose, Ok(report)).await,
        Verdict::Failed { failure, .. } => end(context, work, purpose, Err(failure)).await,
        Verdict::ReportMissing | Verdict::Lost => end(context, work, purpose, Err(report_missing(&job.name))).await,
    }
}

/// The name that the Job of a purpose gets. It begins with that of the run's Job: by that the admission policy knows
/// whose status its pods may write.
#[must_use]
pub fn named<R: RunResource>(work: &Work<R>, purpose: FollowUpPurpose) -> FollowUp {
    let of = work.status.job.as_ref().map_or(&work.request.job_name, |job| &job.name);
    let suffix = match purpose {
        FollowUpPurpose::Check => "check",
        FollowUpPurpose::CleanUp => "cleanup",
        FollowUpPurpose::Delete => "delete",
    };
    FollowUp {
        purpose,
        job: JobReference {
            name: format!("{of}-{suffix}"),
            uid: None,
        },
    }
}

/// Makes the Job, or says why there can be none.
pub async fn make<R: RunResource>(
    context: &Context,
    work: &Work<R>,
    purpose: FollowUpPurpose,
    name: &str,
) -> Result<Result<JobReference, Refusal>, Error> {
    let plan = match planned(context, work, purpose).await? {
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let request = JobRequest {
        run: &work.request.reference,
        name,
        plan: &plan,
        job: &work.request.job,
        log_level: work.request.log_level,
        settings: &context.settings,
    };
    let applied = match purpose {
        // Foreground deletion of the resource would take a Job along that it owns.
        _ if work.resource.meta().deletion_timestamp.is_some() => {
            Box::pin(apply::ownerless(&context.client, &request)).await?
        }
        FollowUpPurpose::Check | FollowUpPurpose::CleanUp | FollowUpPurpose::Delete => {
            Box::pin(apply::owned(&context.client, &request)).await?
        }
    };
    Ok(match applied {
        Applied::Job(job) => Ok(JobReference {
            name: name.to_owned(),
            uid: job.metadata.uid,
        }),
        Applied::Taken => Err(Refusal::permanent(
            reasons::INTERNAL,
            format!("A Job {name:?} exists that was not made for this resource."),
        )),
    })
}

async fn planned<R: RunResource>(
    context: &Context,
    work: &Work<R>,
    purpose: FollowUpPurpose,
) -> Result<Result<Plan, Refusal>, Error> {
    Ok(match purpose {
        // The same plan again: an agent that finds the run recorded as done says so and changes nothing.
        FollowUpPurpose::Check => match plan(context, &*work.resource, &work.request).await? {
            Decision::Run(plan) => Ok(*plan),
            Decision::Wait(refusal) | Decision::Refuse(refusal) => Err(refusal),
        },
        FollowUpPurpose::CleanUp => work.resource.clean_up(work.request.follow_up_run()),
        FollowUpPurpose::Delete => match work.resource.delete_artifact(work.request.follow_up_run()) {
            Ok(Some(plan)) => Ok(plan),
            Ok(None) => Err(Refusal::permanent(reasons::INTERNAL, "There is no artefact to delete.")),
            Err(refusal) => Err(refusal),
        },
    })
}

const fn doing(purpose: FollowUpPurpose) -> &'static str {
    match purpose {
        FollowUpPurpose::Check => "the agent's report is missing; a Job looks how the run ended",
        FollowUpPurpose::CleanUp => "the run failed; a Job removes what it left behind",
        FollowUpPurpose::Delete => "a Job deletes the artefact",
    }
}

async fn end<R: RunResource>(
    context: &Context,
    work: Work<R>,
    purpose: FollowUpPurpose,
    ended: Result<Report, Failure>,
) -> Result<Action, Error> {
    let end = match (purpose, ended) {
        // It found what the run's own agent had done.
        (FollowUpPurpose::Check, Ok(report)) => End::of_report(Report {
            outcome: match report.outcome {
                Outcome::AlreadyApplied => Outcome::Succeeded,
                other => other,
            },
            ..report
        }),
        (FollowUpPurpose::Check, Err(failure)) => End::Failed(unknown_end(failure)),
        (FollowUpPurpose::CleanUp, ended) => End::Failed(after_clean_up(work.status.failure.clone(), ended)),
        (FollowUpPurpose::Delete, _) => return Ok(Action::requeue(STARTING)),
    };
    Box::pin(finish::finish(context, work, end)).await
}

fn unknown_end(failure: Failure) -> Failure {
    Failure {
        message: format!(
            "The Job ended well but its report is missing, and a second look did not confirm it: {}",
            failure.message
        ),
        ..failure
    }
}

/// The run's own failure, with what became of what it left behind.
fn after_clean_up(failure: Option<Failure>, ended: Result<Report, Failure>) -> Failure {
    let failure = failure.unwrap_or_else(|| report_missing("of the run"));
    let (message, hint) = match ended {
        Ok(report) => (format!("{} {}", failure.message, report.message), failure.hint),
        Err(trouble) => (
            format!(
                "{} What it left behind could not be removed: {}",
                failure.message, trouble.message
            ),
            trouble.hint.or(failure.hint),
        ),
    };
    Failure {
        message,
        hint,
        ..failure
    }
}

fn report_missing(job: &str) -> Failure {
    Refusal::temporary(
        reasons::REPORT_MISSING,
        format!("The Job {job:?} left no report, so its outcome is unknown."),
    )
    .object(format!("Job/{job}"))
    .hint("Look at the target or the store before you rely on this run, then make the resource again with a new name.")
    .into_failure(None)
}
