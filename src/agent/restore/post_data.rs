//! Step `post-data`: indexes, constraints, triggers, policies, publications, materialized views' rows, in parallel.

use super::attempt::Attempt;
use super::resume::{self, Stage};
use super::{index_builds, pg_restore};
use crate::plan::Refusal;

/// Memory for building indexes that all connections share, in KiB: twice the server's `shared_buffers`, which says how
/// large a server it is, within these bounds. A server with more set for each connection keeps that.
const LEAST_KIB: u64 = 256 * 1024;
const MOST_KIB: u64 = 1024 * 1024;

/// Builds what stands on the rows.
pub(super) async fn run(attempt: &mut Attempt<'_>) -> Result<String, Refusal> {
    let resumable = attempt.stage.is_some();
    if resumable {
        resume::note(attempt, Stage::PostDataBegun).await?;
    }
    let jobs = attempt.steps.jobs;
    let session = attempt.target.connect().await?;
    let row = session
        .query_one(
            "SELECT pg_size_bytes(current_setting('maintenance_work_mem')) / 1024, \
                    pg_size_bytes(current_setting('shared_buffers')) / 1024, \
                    current_setting('max_parallel_maintenance_workers')::bigint",
            &[],
        )
        .await
        .map_err(|error| session.refusal(&error, "reading what indexes are built with", None))?;
    let [set, buffers, parallel_workers] =
        [0, 1, 2].map(|column| u64::try_from(row.get::<_, i64>(column)).unwrap_or_default());
    let memory = ((2 * buffers).clamp(LEAST_KIB, MOST_KIB) / u64::from(jobs.max(1))).max(set);
    let settings = attempt
        .target
        .settings()
        .with_setting("maintenance_work_mem", &format!("{memory}kB"));
    let mut toc = attempt.definitions.toc.without_data();
    index_builds::prepare(&mut toc, parallel_workers, memory);
    pg_restore::definitions(attempt, &settings, &toc, "post-data", jobs).await?;
    if resumable {
        resume::note(attempt, Stage::PostDataDone).await?;
    }
    Ok("Indexes, constraints and triggers restored".to_owned())
}
