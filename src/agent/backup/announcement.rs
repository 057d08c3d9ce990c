//! A backup that stores rows as chunks announces itself in the repository, so that no prune takes what it relies on.

use std::sync::Arc;
use std::time::Duration;

use super::BackupRun;
use crate::plan::Refusal;
use crate::plan::backup_steps::names;
use crate::store::Store;
use crate::store::repository::{Repository, RepositoryError, Writer, WriterOptions};

/// Compressed bytes of chunks that may be in memory at once: workers with ranges of 4 MiB do not wait for each other to
/// compress, those with larger chunks only where these compress badly, and all of them wait for a store that is slower
/// than they are.
fn bytes_in_flight(parallelism: u8) -> u64 {
    (u64::from(parallelism) + 1) * WriterOptions::SESSION_BYTES_IN_FLIGHT
}

/// Time for taking the lock away, within the 30 s that Kubernetes gives a pod to end.
const UNLOCK_LIMIT: Duration = Duration::from_secs(5);

/// A repository that this release does not understand is found before anything is done. Where there is none, the backup
/// will make one.
pub(super) async fn check_repository(store: &Arc<dyn Store>) -> Result<(), Refusal> {
    match Repository::open(Arc::clone(store)).await {
        Ok(_) | Err(RepositoryError::Missing { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Announces the backup, where rows are stored as chunks.
pub(super) async fn begin(run: &BackupRun<'_>) -> Result<Option<Arc<Writer>>, Refusal> {
    let Some(chunks) = &run.steps.chunks else {
        return Ok(None);
    };
    let reporter = &run.context.reporter;
    reporter.step_started(names::REPOSITORY);
    let options = WriterOptions {
        run: run.plan.run.uid.clone(),
        snapshot: run.steps.snapshot.clone(),
        zstd_level: i32::from(chunks.zstd_level),
        bytes_in_flight: bytes_in_flight(chunks.parallelism),
    };
    let begin = async {
        let mut repository = Repository::open_or_create(Arc::clone(&run.store)).await?;
        if let Some(recipients) = &run.recipients {
            repository = repository.encrypted(recipients.clone(), None);
        }
        Ok(Writer::begin(Arc::new(repository), options).await?)
    };
    let writer = run.or_stopped(begin).await?;
    reporter.step_done(names::REPOSITORY, "The backup is announced.");
    Ok(Some(Arc::new(writer)))
}

/// Takes the lock away. One that stays is the next prune's.
pub(super) async fn end(writer: &Writer) {
    match tokio::time::timeout(UNLOCK_LIMIT, writer.end()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("the backup's lock stays in the repository: {error}"),
        Err(_) => tracing::warn!("the backup's lock stays in the repository: the store did not answer"),
    }
}
