//! Several sessions in the target database that share a list of tables.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures::future::try_join_all;

use super::attempt::Attempt;
use super::target::PASS_AUTOVACUUM;
use crate::plan::Refusal;
use crate::postgres::connection::Session;

/// Does `work` for every item, on at most as many sessions as the plan has jobs. The first refusal ends all.
pub(super) async fn for_each<T, R, F>(attempt: &Attempt<'_>, items: Vec<T>, work: F) -> Result<Vec<R>, Refusal>
where
    F: AsyncFn(&Session, T) -> Result<R, Refusal>,
{
    let sessions = usize::from(attempt.steps.jobs).min(items.len());
    let queue = Mutex::new(VecDeque::from(items));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let worker = async || {
        let session = attempt.target.connect().await?;
        let set = session.batch_execute(PASS_AUTOVACUUM).await;
        set.map_err(|error| session.refusal(&error, "preparing a session", None))?;
        let mut results = Vec::new();
        while let Some(item) = next() {
            attempt.check_stop()?;
            results.push(work(&session, item).await?);
        }
        Ok::<_, Refusal>(results)
    };
    let results = try_join_all((0..sessions).map(|_| worker())).await?;
    Ok(results.into_iter().flatten().collect())
}
