//! The controllers: what they watch, and what wakes them. Only metadata is kept, so that thousands of runs cost
//! little; Jobs and pods are not kept at all.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use kube::api::PartialObjectMeta;
use kube::runtime::controller::Error as ControllerError;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::{Context, NamespacedName, WaitingRestores};
use super::names::{self, MANAGED_BY, RUN_KIND, RunReference};
use super::reconcile::{after_error, reconcile};
use super::release::release_deleted_pods;
use super::resource::RunResource;
use crate::api::{PgBackup, PgRestore};
use kube::runtime::Predicate;

/// Resources that are reconciled at the same time, of each kind.
const CONCURRENCY: u16 = 16;

/// A namespace, or all.
type Scope = Option<String>;

/// Runs all controllers until `stop` is set and what they had begun is done. `context` builds the context for a
/// sender that wakes restores.
pub async fn run(scopes: &[Scope], context: impl Fn(WaitingRestores) -> Context, stop: &CancellationToken) {
    let tasks = TaskTracker::new();
    for scope in scopes {
        let (wake, woken) = mpsc::unbounded_channel();
        let context = Arc::new(context(WaitingRestores::new(wake)));
        let woken = UnboundedReceiverStream::new(woken).map(|name| object_ref::<PgRestore>(&name));
        tasks.spawn(controller::<PgBackup>(
            scope,
            &context,
            futures::stream::pending(),
            stop,
        ));
        tasks.spawn(controller::<PgRestore>(scope, &context, woken, stop));
        let pods = release_deleted_pods(context.client.clone(), api(&context.client, scope));
        let stopped = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = pods => {}
                () = stopped.cancelled() => {}
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

fn controller<R: RunResource>(
    scope: &Scope,
    context: &Arc<Context>,
    woken: impl Stream<Item = ObjectRef<PartialObjectMeta<R>>> + Send + 'static,
    stop: &CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let client = &context.client;
    let (reader, writer) = reflector::store();
    // Progress is written to the status every few seconds; only the spec and the finalizers call for work.
    let resources = watcher(api::<PartialObjectMeta<R>>(client, scope), watcher::Config::default())
        .default_backoff()
        .modify(strip)
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::finalizers),
            PredicateConfig::default(),
        );
    let selector = format!("{}={},{RUN_KIND}={}", MANAGED_BY.0, MANAGED_BY.1, names::kind(R::KIND));
    let jobs = watcher(
        api::<PartialObjectMeta<Job>>(client, scope),
        watcher::Config::default().labels(&selector),
    )
    .default_backoff()
    .touched_objects()
    .inspect_err(|error| tracing::warn!("Jobs cannot be watched: {error}"))
    .filter_map(async |job| RunReference::from_metadata(&job.ok()?.metadata))
    .map(|run| object_ref::<R>(&(run.namespace, run.name)));
    let controller = Controller::for_stream(resources, reader)
        .with_config(kube::runtime::controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(jobs)
        .reconcile_on(woken)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile::<R>, after_error::<R>, Arc::clone(context));
    controller.for_each(async |result| {
        // Errors of a reconciliation were told where they were met; a resource that is gone is none.
        if let Err(ControllerError::QueueError(error)) = result {
            tracing::warn!(kind = names::kind(R::KIND), "resources cannot be watched: {error}");
        }
    })
}

fn api<K>(client: &Client, scope: &Scope) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn strip<R: RunResource>(resource: &mut PartialObjectMeta<R>) {
    resource.managed_fields_mut().clear();
    resource.annotations_mut().clear();
    resource.labels_mut().clear();
}

fn object_ref<R: RunResource>((namespace, name): &NamespacedName) -> ObjectRef<PartialObjectMeta<R>> {
    ObjectRef::new(name).within(namespace)
}
