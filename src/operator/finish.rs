//! The end of a run: the outcome is written once, then the pods are let go and the Job gets its TTL.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use super::context::Context;
use super::error::Error;
use super::finalizers;
use super::metrics::RunOutcome;
use super::names::{FIELD_MANAGER, RunReference};
use super::reconcile::Work;
use super::record::record;
use super::release::release_pods;
use super::resource::RunResource;
use super::status::{self, Situation};
use crate::api::reasons;
use crate::api::status::{Artifact, Failure, JobReference, Phase};
use crate::plan::Refusal;
use crate::plan::report::{Outcome, Report};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Well.
    Well {
        /// `Succeeded`, `AlreadyApplied` or `Planned`.
        phase: Phase,
        /// A sentence.
        message: String,
        /// The artefact of a backup.
        artifact: Option<Artifact>,
        /// SHA-256 of the steps, in hex.
        plan_hash: Option<String>,
    },
    /// Not well.
    Failed(Failure),
}

impl End {
    /// The run was refused before it began.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        Self::Failed(refusal.into_failure(None))
    }

    /// The run ended as its agent says.
    #[must_use]
    pub fn of_report(report: Report) -> Self {
        let Report {
            outcome,
            message,
            plan_hash,
            artifact,
            failure,
        } = report;
        let phase = match outcome {
            Outcome::Succeeded => Phase::Succeeded,
            Outcome::AlreadyApplied => Phase::AlreadyApplied,
            Outcome::Planned => Phase::Planned,
            Outcome::Failed => {
                let failure =
                    failure.unwrap_or_else(|| Refusal::permanent(reasons::INTERNAL, message).into_failure(None));
                return Self::Failed(failure);
            }
        };
        Self::Well {
            phase,
            message,
            artifact,
            plan_hash,
        }
    }
}

/// Writes the outcome, once and for all, and tidies up.
pub async fn finish<R: RunResource>(context: &Context, mut work: Work<R>, end: End) -> Result<Action, Error> {
    let (situation, outcome) = match end {
        End::Well {
            phase,
            message,
            artifact,
            plan_hash,
        } => {
            work.status.failure = None;
            work.status.artifact = artifact;
            work.status.plan_hash = plan_hash;
            let (reason, outcome) = match phase {
                Phase::AlreadyApplied => (reasons::ALREADY_APPLIED, RunOutcome::AlreadyApplied),
                Phase::Planned => (reasons::PLANNED, RunOutcome::Planned),
                _ => (reasons::SUCCEEDED, RunOutcome::Succeeded),
            };
            (Situation::new(phase, reason, message), outcome)
        }
        End::Failed(failure) => {
            let situation = Situation::failed(&failure);
            work.status.failure = Some(failure);
            (situation, RunOutcome::Failed)
        }
    };
    work.status.completion_time = Some(Time(now_in_seconds()));
    let work = record(context, work, &situation).await?;
    context.metrics.finished(R::KIND, outcome);
    if !work.request.is_settled(work.status.phase) {
        // `dryRun: false` came while the dry run was under way.
        return Ok(Action::requeue(std::time::Duration::ZERO));
    }
    Box::pin(settle(context, work)).await
}

/// Tidies up after a run that has ended; does nothing where that was done.
pub async fn settle<R: RunResource>(context: &Context, mut work: Work<R>) -> Result<Action, Error> {
    if work.status.observed_generation != Some(work.request.generation) {
        // Only what does not touch the outcome can change: `deletionPolicy`.
        work.status.observed_generation = Some(work.request.generation);
        for condition in &mut work.status.conditions {
            condition.observed_generation = Some(work.request.generation);
        }
        work.resource = status::write(context, work.resource, &work.status).await?;
    }
    let follow_up = work.status.follow_up.iter().map(|follow_up| &follow_up.job);
    for JobReference { name, .. } in work.status.job.iter().chain(follow_up) {
        retire(context, &work, name).await?;
    }
    Box::pin(finalizers::hold(context, work)).await?;
    Ok(Action::await_change())
}

/// Lets the pods of a Job go and gives it the TTL that it must not have before its outcome is recorded.
pub async fn retire<R: RunResource>(context: &Context, work: &Work<R>, job: &str) -> Result<(), Error> {
    let run = &work.request.reference;
    let jobs = Api::<Job>::namespaced(context.client.clone(), &run.namespace);
    let found = jobs
        .get_opt(job)
        .await
        .map_err(Error::kubernetes("get", format_args!("Job {job}")))?;
    let Some(found) = found else {
        // A pod that was deleted with its Job is still held where its report was the outcome.
        return release_pods(&context.client, run, job).await;
    };
    // The TTL comes last, so a Job that has one is done with.
    let Some(spec) = found.spec.filter(|spec| spec.ttl_seconds_after_finished.is_none()) else {
        return Ok(());
    };
    tracing::debug!(job, suspended = spec.suspend, "retiring");
    release_pods(&context.client, run, job).await?;
    let ttl = json!({"spec": {"ttlSecondsAfterFinished": context.settings.finished_job_ttl_seconds}});
    change_job(context, run, job, &ttl, "give a TTL to").await
}

/// Changes a Job, if it is there; `doing` is what for.
pub async fn change_job(
    context: &Context,
    run: &RunReference,
    job: &str,
    change: &Value,
    doing: &'static str,
) -> Result<(), Error> {
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let jobs = Api::<Job>::namespaced(context.client.clone(), &run.namespace);
    match jobs.patch(job, &parameters, &Patch::Merge(change)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::kubernetes(doing, format_args!("Job {job}"))(error)),
    }
}

/// Kubernetes keeps times in seconds.
fn now_in_seconds() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
