//! What became of a Job: itself and its pods. Needs a client; what follows from it is decided in `verdict`.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::error::Error;
use super::names::{RUN_UID, RunReference};
use super::pod::CONTAINER;
use crate::plan::report::Report;

/// Label that the Job controller puts on a Job's pods.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// A Job and its pods as they are now.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The Job; `None` where it does not exist.
    pub job: Option<Job>,
    /// Its pods that still exist, the oldest first.
    pub attempts: Vec<Attempt>,
}

/// One pod of a Job.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// Name of the pod.
    pub pod: String,
    /// Whether the agent runs.
    pub running: bool,
    /// Whether the agent ever ran.
    pub started: bool,
    /// How the agent ended; `None` while it has not.
    pub end: Option<AttemptEnd>,
    /// Why the agent cannot start yet, as the scheduler or the kubelet says it.
    pub waiting: Option<String>,
}

/// How an agent's container ended.
#[derive(Clone, Debug, Default)]
pub struct AttemptEnd {
    /// Exit code of the container; `None` where the pod ended without telling.
    pub exit_code: Option<i32>,
    /// Whether it was killed for using too much memory.
    pub out_of_memory: bool,
    /// What it said; `None` where it said nothing that can be read.
    pub report: Option<Report>,
    /// When.
    pub at: Option<Time>,
}

/// Reads a Job and its pods.
pub async fn observe(client: &Client, run: &RunReference, job: &str) -> Result<Observation, Error> {
    let jobs = Api::<Job>::namespaced(client.clone(), &run.namespace);
    let found = jobs
        .get_opt(job)
        .await
        .map_err(Error::kubernetes("get", format_args!("Job {job}")))?;
    Ok(Observation {
        job: found,
        attempts: attempts(client, run, job).await?,
    })
}

async fn attempts(client: &Client, run: &RunReference, job: &str) -> Result<Vec<Attempt>, Error> {
    let mut pods = pods(client, run, job).await?;
    pods.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.name_any()));
    Ok(pods.iter().map(attempt).collect())
}

/// The pods of a run's Job.
pub async fn pods(client: &Client, run: &RunReference, job: &str) -> Result<Vec<Pod>, Error> {
    let parameters = ListParams::default().labels(&format!("{JOB_NAME}={job},{RUN_UID}={}", run.uid));
    let pods = Api::<Pod>::namespaced(client.clone(), &run.namespace)
        .list(&parameters)
        .await
        .map_err(Error::kubernetes("list", format_args!("pods of Job {job}")))?;
    Ok(pods.items)
}

/// What a pod tells about its attempt.
#[must_use]
pub fn attempt(pod: &Pod) -> Attempt {
    let status = pod.status.as_ref();
    let container = status
        .and_then(|status| status.container_statuses.as_deref())
        .and_then(|containers| containers.iter().find(|container| container.name == CONTAINER));
    let state = container.and_then(|container| container.state.as_ref());
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let end = container.and_then(end_of).or_else(|| {
        // An evicted or lost pod may end without its container's state.
        matches!(phase, "Failed" | "Succeeded").then(AttemptEnd::default)
    });
    Attempt {
        pod: pod.name_any(),
        running: end.is_none() && state.is_some_and(|state| state.running.is_some()),
        started: state.is_some_and(|state| state.running.is_some() || state.terminated.is_some()),
        waiting: if end.is_some() { None } else { waiting(pod, container) },
        end,
    }
}

fn end_of(container: &ContainerStatus) -> Option<AttemptEnd> {
    let terminated = container.state.as_ref()?.terminated.as_ref()?;
    let report = terminated
        .message
        .as_deref()
        .and_then(|message| serde_json::from_str(message).ok());
    Some(AttemptEnd {
        exit_code: Some(terminated.exit_code),
        out_of_memory: terminated.reason.as_deref() == Some("OOMKilled"),
        report,
        at: terminated.finished_at.clone(),
    })
}

fn waiting(pod: &Pod, container: Option<&ContainerStatus>) -> Option<String> {
    let sentence = |reason: Option<&str>, message: Option<&str>| match (reason, message) {
        (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
        (reason, message) => reason.or(message).map(str::to_owned),
    };
    let of_container = container
        .and_then(|container| container.state.as_ref()?.waiting.as_ref())
        .filter(|waiting| waiting.reason.as_deref() != Some("ContainerCreating"))
        .and_then(|waiting| sentence(waiting.reason.as_deref(), waiting.message.as_deref()));
    let conditions = pod
        .status
        .iter()
        .filter_map(|status| status.conditions.as_deref())
        .flatten();
    let of_scheduler = conditions
        .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .find_map(|condition| sentence(condition.reason.as_deref(), condition.message.as_deref()));
    of_container.or(of_scheduler)
}
