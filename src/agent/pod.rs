//! The agent in its pod: the plan from a mounted file, the status to the API server, the report to the termination
//! message, and a signal that stops it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Context;
use super::execute::{MissingReferences, execute};
use super::kubernetes_status::KubernetesStatus;
use super::progress::Reporter;
use crate::api::reasons;
use crate::plan::report::Report;
use crate::plan::{Plan, Refusal};
use crate::postgres::client_tools::ClientTools;
use crate::references::mounted::MountedReferences;

/// How long the last write of the status may take.
const LAST_WRITE: Duration = Duration::from_secs(12);

/// Where the pod's files are.
#[derive(Clone, Debug, clap::Args)]
pub struct PodFiles {
    /// File with the plan.
    #[arg(long, default_value = "/etc/pgrescue/plan/plan.json")]
    pub plan: PathBuf,
    /// File that becomes the container's termination message.
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// Runs the mounted plan and returns the exit code.
pub async fn run(files: &PodFiles) -> i32 {
    let report = match read_plan(files).await {
        Ok(plan) => run_plan(&plan).await,
        Err(refusal) => Report::failed(refusal, None, None),
    };
    let message = report.to_termination_message();
    if let Err(error) = tokio::fs::write(&files.termination_log, &message).await {
        tracing::error!("the report could not be written: {error}");
    }
    tracing::info!(report = message, "finished");
    report.exit_code()
}

async fn read_plan(files: &PodFiles) -> Result<Plan, Refusal> {
    let path = files.plan.display().to_string();
    let unreadable = |error: String| {
        Refusal::permanent(reasons::INTERNAL, format!("The plan cannot be read: {error}."))
            .object(path.clone())
            .hint("Run the operator and the agent from the same release.")
    };
    let bytes = tokio::fs::read(&files.plan)
        .await
        .map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))
}

async fn run_plan(plan: &Plan) -> Report {
    let client_tools = match ClientTools::find(None) {
        Ok(tools) => Arc::new(tools),
        Err(error) => return Report::failed(Refusal::from(error), None, None),
    };
    let reporter = Reporter::default();
    let context = Context {
        references: Arc::new(MountedReferences::default()),
        reporter: reporter.clone(),
        client_tools,
        stop: stop_on_signal(),
    };
    let written = CancellationToken::new();
    let writer = status_writer(plan)
        .await
        .map(|status| tokio::spawn(status.follow(reporter, written.clone())));
    let report = execute(plan, &context, MissingReferences::Wait).await;
    written.cancel();
    if let Some(writer) = writer
        && tokio::time::timeout(LAST_WRITE, writer).await.is_err()
    {
        tracing::warn!("the last write of the status did not end in time");
    }
    report
}

/// The status of a resource that is being deleted belongs to nobody; only runs write theirs.
async fn status_writer(plan: &Plan) -> Option<KubernetesStatus> {
    match plan {
        Plan::Backup(_) | Plan::Restore(_) => {}
        Plan::DeleteArtifact(_) | Plan::CleanUpBackup(_) | Plan::CleanUpRestore(_) => return None,
    }
    match kube::Client::try_default().await {
        Ok(client) => Some(KubernetesStatus::new(client, plan.run().clone())),
        Err(error) => {
            tracing::warn!("no progress will be shown, the API server is out of reach: {error}");
            None
        }
    }
}

/// A token that SIGTERM and SIGINT set.
#[must_use]
pub fn stop_on_signal() -> CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        match signal(kind) {
            Ok(mut signals) => {
                let stop = stop.clone();
                tokio::spawn(async move {
                    if signals.recv().await.is_some() {
                        tracing::warn!("told to stop");
                        stop.cancel();
                    }
                });
            }
            Err(error) => tracing::warn!("a signal cannot be caught: {error}"),
        }
    }
    stop
}
