//! Step `post-data`: indexes, constraints, triggers, policies, publications, materialized views' rows, in parallel.

use super::attempt::Attempt;
use super::pg_restore;
use super::resume::{self, Stage};
use crate::plan::Refusal;

/// Memory for building indexes that all connections share, in KiB. A server with more set for each keeps that.
const MAINTENANCE_KIB: u64 = 256 * 1024;

/// Builds what stands on the rows.
pub(super) async fn run(attempt: &mut Attempt<'_>) -> Result<String, Refusal> {
    let resumable = attempt.stage.is_some();
    if resumable {
        resume::note(attempt, Stage::PostDataBegun).await?;
    }
    let jobs = attempt.steps.jobs;
    let wanted = MAINTENANCE_KIB / u64::from(jobs.max(1));
    let session = attempt.target.connect().await?;
    let row = session
        .query_one(
            "SELECT setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem'",
            &[],
        )
        .await
        .map_err(|error| session.refusal(&error, "reading maintenance_work_mem", None))?;
    let set = u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    let settings = attempt
        .target
        .settings()
        .with_setting("maintenance_work_mem", &format!("{}kB", wanted.max(set)));
    pg_restore::definitions(attempt, &settings, "post-data", jobs).await?;
    if resumable {
        resume::note(attempt, Stage::PostDataDone).await?;
    }
    Ok("Indexes, constraints and triggers restored".to_owned())
}
