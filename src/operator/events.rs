//! Events about a run. They are news, not state: one that is lost does not stop a run.

use kube::runtime::events::{Event, EventType, Recorder};

use super::context::Context;
use super::error::answer;
use super::resource::RunResource;
use super::status::Situation;
use crate::api::status::Phase;

/// Longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Tells where a run is now.
pub async fn tell<R: RunResource>(context: &Context, resource: &R, situation: &Situation) {
    let r#type = match situation.phase {
        Phase::Failed | Phase::Waiting => EventType::Warning,
        Phase::Pending
        | Phase::Running
        | Phase::Succeeded
        | Phase::AlreadyApplied
        | Phase::Planned
        | Phase::Deleting => EventType::Normal,
    };
    publish(context, resource, r#type, &situation.reason, &situation.message).await;
}

/// Tells of a trouble that does not change where the run is.
pub async fn warn<R: RunResource>(context: &Context, resource: &R, reason: &str, message: &str) {
    publish(context, resource, EventType::Warning, reason, message).await;
}

async fn publish<R: RunResource>(context: &Context, resource: &R, type_: EventType, reason: &str, message: &str) {
    let end = message.floor_char_boundary(LONGEST_NOTE);
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(message[..end].to_owned()),
        action: "Reconcile".into(),
        secondary: None,
    };
    // A recorder that has told a reason only counts what follows under it, and drops the text.
    let recorder = Recorder::new(context.client.clone(), context.reporter.clone());
    if let Err(error) = recorder.publish(&event, &resource.object_ref(&())).await {
        tracing::warn!(reason, "an Event could not be written: {}", answer(&error));
    }
}
