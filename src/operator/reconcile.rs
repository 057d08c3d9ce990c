//! One reconciliation: validate -> plan -> apply -> observe -> status. Which of them is next stands in the status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use super::begin;
use super::context::Context;
use super::deletion;
use super::error::{Category, Error};
use super::finalizers;
use super::finish;
use super::follow;
use super::follow_up;
use super::names;
use super::resource::RunResource;
use super::status::ControllerStatus;
use super::validate::{Request, validate};
use crate::api::status::{FollowUp, JobReference, Phase};

/// Pause after a conflict: the object is read again at once.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);
/// Pause after another error.
const AFTER_ERROR: Duration = Duration::from_secs(10);

/// What a reconciliation works on. Boxed, for it goes through many functions, and so do their futures below.
#[derive(Clone, Debug)]
pub struct Work<R> {
    /// The resource as it was read last.
    pub resource: Box<R>,
    /// What it asks for.
    pub request: Box<Request>,
    /// What the controller wrote last, and changes before it writes again.
    pub status: Box<ControllerStatus>,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was made.
    New,
    /// The name of its Job was recorded; the Job may have been made or not.
    Starting,
    /// Its Job was made.
    Started(String),
    /// A Job that looks after what it left open was named.
    FollowingUp(FollowUp),
    /// Nothing is left to do but to tidy up.
    Settled,
}

/// Brings one resource a step further. The cache says that it changed; what it is now is read anew, so that no old
/// state decides about an outcome.
pub async fn reconcile<R: RunResource>(
    seen: Arc<PartialObjectMeta<R>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let started = Instant::now();
    let action = Box::pin(advance::<R>(
        &context,
        &seen.namespace().unwrap_or_default(),
        &seen.name_any(),
    ))
    .await;
    context.metrics.reconciled(R::KIND, started.elapsed());
    action
}

/// What happens after an error.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the signature is that of kube's controller"
)]
pub fn after_error<R: RunResource>(seen: Arc<PartialObjectMeta<R>>, error: &Error, context: Arc<Context>) -> Action {
    context.metrics.failed(R::KIND, error.category());
    if error.category() == Category::Conflict {
        return Action::requeue(AFTER_CONFLICT);
    }
    tracing::warn!(
        kind = names::kind(R::KIND),
        namespace = seen.namespace(),
        name = seen.name_any(),
        why = error.explain(),
        "{error}"
    );
    Action::requeue(AFTER_ERROR)
}

async fn advance<R: RunResource>(context: &Context, namespace: &str, name: &str) -> Result<Action, Error> {
    let found = Api::<R>::namespaced(context.client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(Error::kubernetes(
            "get",
            format_args!("{} {name}", names::kind(R::KIND)),
        ))?;
    let Some(resource) = found else {
        return Ok(Action::await_change());
    };
    let request = validate(&resource, &context.settings)?;
    let status = ControllerStatus::recorded(&resource);
    let work = Work {
        resource: Box::new(resource),
        request: Box::new(request),
        status: Box::new(status),
    };
    if work.resource.meta().deletion_timestamp.is_some() {
        return Box::pin(deletion::proceed(context, work)).await;
    }
    let work = Box::pin(finalizers::hold(context, work)).await?;
    match stage(&work.status, &work.request) {
        Stage::New => Box::pin(begin::begin(context, work)).await,
        Stage::Starting => Box::pin(begin::resume(context, work)).await,
        Stage::Started(uid) => Box::pin(follow::follow(context, work, &uid)).await,
        Stage::FollowingUp(follow_up) => Box::pin(follow_up::follow(context, work, follow_up)).await,
        Stage::Settled => Box::pin(finish::settle(context, work)).await,
    }
}

fn stage(status: &ControllerStatus, request: &Request) -> Stage {
    if request.is_settled(status.phase) {
        return Stage::Settled;
    }
    match (&status.job, &status.follow_up) {
        // A dry run that has shown its steps is followed by the run itself.
        _ if status.phase == Some(Phase::Planned) => Stage::New,
        (None, _) => Stage::New,
        (Some(_), Some(follow_up)) => Stage::FollowingUp(follow_up.clone()),
        (Some(JobReference { uid: Some(uid), .. }), None) => Stage::Started(uid.clone()),
        (Some(JobReference { uid: None, .. }), None) => Stage::Starting,
    }
}
