//! Lets pods go. The finalizer of a run's pod keeps its report until the outcome is recorded; a pod that is deleted
//! before must not hold up a drained node or a namespace.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::{StreamExt, TryStreamExt, pin_mut};
use json_patch::{Patch as JsonPatch, PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ObjectMeta, PartialObjectMeta, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

use super::error::Error;
use super::finalizers;
use super::names::{MANAGED_BY, REPORT_FINALIZER, RunReference};
use super::observe;
use super::resource::RunResource;
use crate::api::status::Phase;
use crate::api::{PgBackup, PgRestore};
use crate::plan::RunKind;
use crate::plan::report::Outcome;

/// A pod that could not be let go is tried again for that long.
const TRIES: usize = 40;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Lets the pods of a run's Job go.
pub async fn release_pods(client: &Client, run: &RunReference, job: &str) -> Result<(), Error> {
    for pod in observe::pods(client, run, job).await? {
        release(client, &pod.metadata).await?;
    }
    Ok(())
}

/// Lets go every pod that is being deleted and whose report nobody needs any more. Ends with the stream.
pub async fn release_deleted_pods(client: Client, pods: Api<PartialObjectMeta<Pod>>) {
    let ours = watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let deleted = watcher(pods, ours)
        .default_backoff()
        .applied_objects()
        .inspect_err(|error| tracing::warn!("pods cannot be watched: {error}"))
        .filter_map(async |pod| pod.ok().filter(|pod| pod.metadata.deletion_timestamp.is_some()));
    pin_mut!(deleted);
    deleted
        .for_each_concurrent(None, async |pod| {
            let retry = ExponentialBuilder::default()
                .with_max_delay(LONGEST_PAUSE)
                .with_max_times(TRIES);
            let released = (|| release_if_unneeded(&client, &pod.metadata)).retry(retry).await;
            if let Err(error) = released {
                tracing::error!(pod = pod.name_any(), "a pod could not be let go: {error}");
            }
        })
        .await;
}

/// Lets a pod go that is being deleted, unless its report may still be needed.
pub async fn release_if_unneeded(client: &Client, pod: &ObjectMeta) -> Result<(), Error> {
    let Some(run) = RunReference::from_metadata(pod) else {
        return Ok(());
    };
    let unneeded = match report_of(client, &run).await? {
        Report::Recorded => true,
        Report::DecidesOnDeletion => false,
        Report::OfThisAttempt => has_ended_without_success(client, &run, pod).await?,
    };
    if unneeded {
        release(client, pod).await?;
    }
    Ok(())
}

/// What the report of a run's pod is still good for.
enum Report {
    /// Nothing: the run has its outcome, or is gone.
    Recorded,
    /// It says whether the run, which is being deleted, left anything behind. The deletion lets the pods go.
    DecidesOnDeletion,
    /// The outcome, if it is a success.
    OfThisAttempt,
}

async fn report_of(client: &Client, run: &RunReference) -> Result<Report, Error> {
    match run.kind {
        RunKind::PgBackup => report_of_a::<PgBackup>(client, run).await,
        RunKind::PgRestore => report_of_a::<PgRestore>(client, run).await,
    }
}

async fn report_of_a<R: RunResource>(client: &Client, run: &RunReference) -> Result<Report, Error> {
    let resource = Api::<R>::namespaced(client.clone(), &run.namespace)
        .get_opt(&run.name)
        .await
        .map_err(Error::kubernetes("get", &run.name))?;
    let Some(resource) = resource.filter(|resource| resource.uid().as_ref() == Some(&run.uid)) else {
        return Ok(Report::Recorded);
    };
    let phase = resource.run_status().and_then(|status| status.phase);
    Ok(if phase.is_some_and(Phase::is_terminal) {
        Report::Recorded
    } else if resource.meta().deletion_timestamp.is_some() && finalizers::hold_back(&resource) {
        Report::DecidesOnDeletion
    } else {
        Report::OfThisAttempt
    })
}

/// A report of a failure is of no use while the Job goes on: the next attempt decides. One of success is the outcome.
async fn has_ended_without_success(client: &Client, run: &RunReference, pod: &ObjectMeta) -> Result<bool, Error> {
    let name = pod.name.as_deref().unwrap_or_default();
    let pod = Api::<Pod>::namespaced(client.clone(), &run.namespace)
        .get_opt(name)
        .await
        .map_err(Error::kubernetes("get", format_args!("pod {name}")))?;
    let end = pod.and_then(|pod| observe::attempt(&pod).end);
    Ok(end.is_some_and(|end| end.report.is_none_or(|report| report.outcome == Outcome::Failed)))
}

async fn release(client: &Client, pod: &ObjectMeta) -> Result<(), Error> {
    let name = pod.name.as_deref().unwrap_or_default();
    let Some(patch) = without_finalizer(pod, REPORT_FINALIZER) else {
        return Ok(());
    };
    let pods = Api::<PartialObjectMeta<Pod>>::namespaced(client.clone(), pod.namespace.as_deref().unwrap_or_default());
    match pods
        .patch(name, &PatchParams::default(), &Patch::<()>::Json(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::kubernetes("release", format_args!("pod {name}"))(error)),
    }
}

/// A patch that takes a finalizer off an object, and only off this object as it is; `None` where it has none.
#[must_use]
pub fn without_finalizer(metadata: &ObjectMeta, finalizer: &str) -> Option<JsonPatch> {
    let at = metadata
        .finalizers
        .as_ref()?
        .iter()
        .position(|name| name == finalizer)?;
    let path = PointerBuf::from_tokens(["metadata".into(), "finalizers".into(), at.to_string()]);
    Some(JsonPatch(vec![
        PatchOperation::Test(TestOperation {
            path: path.clone(),
            value: finalizer.into(),
        }),
        PatchOperation::Remove(RemoveOperation { path }),
    ]))
}
