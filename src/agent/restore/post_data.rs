//! Step `post-data`: foreign keys, triggers, policies, publications, rows of materialized views, and the indexes that the
//! step before left, in parallel.

use super::attempt::Attempt;
use super::build_limits::BuildLimits;
use super::pg_restore;
use super::resume::{self, Stage};
use crate::plan::Refusal;
use crate::postgres::archive::Section;

/// Restores what is left of post-data.
pub(super) async fn run(attempt: &mut Attempt<'_>) -> Result<String, Refusal> {
    let resumable = attempt.stage.is_some();
    if resumable {
        resume::note(attempt, Stage::PostDataBegun).await?;
    }
    let mut toc = attempt.definitions.toc.without_data();
    toc.remove(|entry| attempt.built_indexes.contains(&entry.dump_id));
    if toc.section(Section::PostData).next().is_some() {
        let jobs = attempt.steps.jobs;
        let session = attempt.target.connect().await?;
        let limits = BuildLimits::read(&session, jobs).await?;
        let settings = attempt
            .target
            .settings()
            .with_setting("maintenance_work_mem", &format!("{}kB", limits.memory_kib));
        pg_restore::definitions(attempt, &settings, &toc, "post-data", jobs).await?;
    }
    if resumable {
        resume::note(attempt, Stage::PostDataDone).await?;
    }
    Ok("Constraints, triggers and policies restored".to_owned())
}
