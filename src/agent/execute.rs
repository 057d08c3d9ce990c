//! One plan from its references to its report, in a pod and in `pgrescue run` alike.

use std::time::Duration;

use tokio::time::Instant;

use super::{Context, backup, restore};
use crate::api::status::FailureClass;
use crate::api::{conditions, reasons};
use crate::plan::report::{Done, Failed, Report};
use crate::plan::{Plan, ReferencedNames, Refusal};
use crate::references::{ReferenceError, References};

/// How often a missing Secret or ConfigMap is looked for. The kubelet brings it after about a minute.
const REFERENCE_POLL: Duration = Duration::from_secs(2);

/// What to do while a Secret or ConfigMap is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingReferences {
    /// Wait until it is there, or the run is told to stop.
    Wait,
    /// End at once.
    Fail,
}

/// Runs the plan to its end. Every way out is a report.
pub async fn execute(plan: &Plan, context: &Context, missing: MissingReferences) -> Report {
    let deadline = plan
        .run()
        .deadline_seconds
        .map(|seconds| Duration::from_secs(u64::from(seconds)));
    let started = Instant::now();
    let result = {
        let mut work = Box::pin(run(plan, context, missing));
        match deadline {
            None => work.await,
            Some(deadline) => tokio::select! {
                result = &mut work => result,
                () = tokio::time::sleep(deadline) => {
                    context.stop.cancel();
                    work.await
                }
            },
        }
    };
    let overdue = deadline.is_some_and(|deadline| started.elapsed() >= deadline);
    Report::from(result.map_err(|failed| {
        if overdue {
            past_deadline(failed, deadline)
        } else {
            failed
        }
    }))
}

async fn run(plan: &Plan, context: &Context, missing: MissingReferences) -> Result<Done, Failed> {
    await_references(&ReferencedNames::of(plan), context, missing).await?;
    match plan {
        Plan::Backup(plan) => Box::pin(backup::run(plan, context)).await,
        Plan::Restore(plan) => Box::pin(restore::run(plan, context)).await,
        Plan::DeleteArtifact(plan) => Box::pin(backup::delete_artifact(plan, context)).await,
        Plan::CleanUpBackup(plan) => Box::pin(backup::clean_up(plan, context)).await,
        Plan::CleanUpRestore(plan) => Box::pin(restore::clean_up(plan, context)).await,
    }
}

/// An interruption by the run's own deadline is final: the next attempt would meet the same one.
fn past_deadline(mut failed: Failed, deadline: Option<Duration>) -> Failed {
    if failed.refusal.class == FailureClass::Interrupted {
        let seconds = deadline.map_or(0, |deadline| deadline.as_secs());
        failed.refusal = Refusal::permanent(
            reasons::DEADLINE_EXCEEDED,
            format!(
                "The run did not end within its deadline of {seconds} seconds and was stopped. {}",
                failed.refusal
            ),
        )
        .hint("Raise job.deadlineSeconds in a new resource, or leave tables out.");
    }
    failed
}

async fn await_references(
    names: &ReferencedNames,
    context: &Context,
    missing: MissingReferences,
) -> Result<(), Refusal> {
    let mut waited = false;
    loop {
        match check_references(names, context.references.as_ref()).await {
            Ok(()) => {
                if waited {
                    tracing::info!("every Secret and ConfigMap is there");
                }
                context.reporter.condition(
                    conditions::REFERENCES_RESOLVED,
                    Some(true),
                    reasons::SUCCEEDED,
                    "Every Secret and ConfigMap that the resource names is there.",
                );
                return Ok(());
            }
            Err(error) if error.is_missing() && missing == MissingReferences::Wait => {
                if !waited {
                    tracing::warn!("waiting: {error}");
                }
                waited = true;
                let message = format!("Waiting: {error}.");
                context.reporter.condition(
                    conditions::REFERENCES_RESOLVED,
                    Some(false),
                    reasons::REFERENCE_MISSING,
                    message,
                );
                tokio::select! {
                    () = tokio::time::sleep(REFERENCE_POLL) => {}
                    () = context.stop.cancelled() => {
                        let mut refusal = Refusal::from(error);
                        refusal.class = FailureClass::Interrupted;
                        return Err(refusal);
                    }
                }
            }
            Err(error) => return Err(Refusal::from(error)),
        }
    }
}

async fn check_references(names: &ReferencedNames, references: &dyn References) -> Result<(), ReferenceError> {
    let ReferencedNames {
        secrets,
        config_maps: _,
        secret_keys,
        config_map_keys,
    } = names;
    for name in secrets {
        references.secret(name).await?;
    }
    for key in secret_keys {
        references.secret_key(key).await?;
    }
    for key in config_map_keys {
        references.config_map_key(key).await?;
    }
    Ok(())
}
