//! Writes where a run is, and tells it when it is news.

use jiff::Timestamp;

use super::context::Context;
use super::error::Error;
use super::events;
use super::names;
use super::reconcile::Work;
use super::resource::RunResource;
use super::status::{self, Situation};

/// Writes where the run is, and tells it when it is news.
pub async fn record<R: RunResource>(
    context: &Context,
    mut work: Work<R>,
    situation: &Situation,
) -> Result<Work<R>, Error> {
    let news = work.status.phase != Some(situation.phase)
        || !work
            .status
            .conditions
            .iter()
            .any(|condition| condition.reason == situation.reason);
    work.status.set(situation, work.request.generation, Timestamp::now());
    work.resource = status::write(context, work.resource, &work.status).await?;
    if news {
        tracing::info!(
            kind = names::kind(R::KIND),
            namespace = work.request.reference.namespace,
            name = work.request.reference.name,
            phase = ?situation.phase,
            reason = situation.reason,
            "{}",
            situation.message
        );
        events::tell(context, &*work.resource, situation).await;
        if work.resource.source_backup().is_none() {
            let run = &work.request.reference;
            context.waiting.wake(&run.namespace, &run.name);
        }
    }
    Ok(work)
}
