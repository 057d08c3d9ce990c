//! Restores one database of a snapshot: finds out, decides, and runs the steps, one file each. Whatever fails after the
//! first change is undone, under the lock that keeps other attempts away; but what the next attempt can go on with stays
//! where one will come.

mod analyze;
mod attempt;
mod before;
mod build_limits;
mod chunk_objects;
mod chunks;
mod clean_up;
mod count_rows;
mod data;
mod database_state;
mod definitions;
mod failure;
mod finish;
mod foreign_servers;
mod guard;
pub(super) mod identity;
mod indexes;
mod ledger;
mod make_database;
mod mark;
mod objects;
mod passwords;
mod pg_restore;
mod post_data;
mod pre_data;
mod prepare;
mod resume;
mod roles;
pub(super) mod source;
mod statements;
mod target;
mod undo;
mod verify;
mod workers;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Context;
use crate::api::conditions::PREFLIGHT_PASSED;
use crate::api::reasons;
use crate::api::status::{FailureClass, StepState};
use crate::plan::Refusal;
use crate::plan::report::{Done, Failed, Outcome};
use crate::plan::restore::{CleanUpRestorePlan, RestorePlan, SnapshotSource};
use crate::plan::restore_steps::names;
use crate::postgres::archive::Toc;
use crate::postgres::foreign::StrippedCredential;
use attempt::{Attempt, interrupted};
pub use clean_up::clean_up;
use prepare::{Prepared, prepare};
use resume::Stage;
use source::Source;

/// How long undoing may take: a large database takes its time to go.
const UNDO_TIME: Duration = Duration::from_mins(5);
/// The same where the run was told to stop, and will be killed soon.
const UNDO_TIME_WHEN_STOPPED: Duration = Duration::from_secs(20);
/// How long a server that has just gone away is waited for.
const SERVER_RETURN: Duration = Duration::from_secs(30);

/// Runs a restore, or shows its steps.
pub async fn run(plan: &RestorePlan, context: &Context) -> Result<Done, Failed> {
    let prepared = tokio::select! {
        prepared = prepare(plan, context) => prepared,
        () = context.stop.cancelled() => Err(interrupted()),
    };
    let prepared = prepared.map_err(|refusal| {
        if refusal.class != FailureClass::Interrupted {
            let reporter = &context.reporter;
            reporter.condition(PREFLIGHT_PASSED, Some(false), &refusal.reason, &refusal.message);
        }
        Failed::from(refusal)
    })?;
    match prepared {
        Prepared::AlreadyApplied { at, database } => Ok(Done {
            outcome: Outcome::AlreadyApplied,
            message: format!(
                "This request was applied to the database {database:?} at {at}. Nothing was changed. To restore again, give the resource another name."
            ),
            artifact: None,
            plan_hash: None,
        }),
        Prepared::Shown(steps) => {
            let hash = steps.hash();
            context.reporter.plan(steps.describe(StepState::Planned), hash.clone());
            Ok(Done {
                outcome: Outcome::Planned,
                message: format!(
                    "{} steps would restore {} rows of {} tables into the database {:?}. Nothing was changed.",
                    steps.describe(StepState::Planned).len(),
                    steps.rows,
                    steps.tables,
                    steps.database
                ),
                artifact: None,
                plan_hash: Some(hash),
            })
        }
        Prepared::Attempt(attempt) => execute(*attempt).await,
    }
}

async fn execute(mut attempt: Attempt<'_>) -> Result<Done, Failed> {
    let hash = attempt.steps.hash();
    let reporter = attempt.context.reporter.clone();
    reporter.plan(attempt.steps.describe(StepState::Pending), hash.clone());
    match run_steps(&mut attempt).await {
        Ok(()) => Ok(Done {
            outcome: Outcome::Succeeded,
            message: format!(
                "Restored {} rows of {} tables of the snapshot {} into the database {:?}.",
                attempt.steps.rows, attempt.steps.tables, attempt.steps.snapshot, attempt.target.database
            ),
            artifact: None,
            plan_hash: Some(hash),
        }),
        Err(refusal) => {
            let step = reporter.current_step();
            reporter.step_failed(&step, &refusal.message);
            let left = if is_kept(&attempt, &refusal) {
                format!(
                    "What was restored stays in the database {:?}: the next attempt goes on from there.",
                    attempt.target.database
                )
            } else {
                undo_in_time(&mut attempt, refusal.class).await
            };
            Err(Failed {
                refusal: with_left(refusal, &left),
                step: Some(step),
                plan_hash: Some(hash),
            })
        }
    }
}

/// Whether the next attempt goes on with what this one made.
fn is_kept(attempt: &Attempt<'_>, refusal: &Refusal) -> bool {
    attempt.plan.is_retried() && refusal.class != FailureClass::Permanent && attempt.stage.is_some_and(Stage::can_go_on)
}

/// A step that is dropped where the run is told to stop. What it left half done is undone like any failure.
macro_rules! step {
    ($attempt:ident, $name:expr, $work:expr) => {{
        let stop = $attempt.context.stop.clone();
        let reporter = $attempt.context.reporter.clone();
        if stop.is_cancelled() {
            return Err(interrupted());
        }
        reporter.step_started($name);
        let result = tokio::select! {
            result = $work => result,
            () = stop.cancelled() => Err(interrupted()),
        };
        reporter.step_done($name, result?);
    }};
}

async fn run_steps(attempt: &mut Attempt<'_>) -> Result<(), Refusal> {
    if !attempt.steps.roles.is_empty() {
        step!(attempt, names::ROLES, roles::run(attempt));
    }
    step!(attempt, names::DATABASE, make_database::run(attempt));
    let found = attempt.stage;
    if found.is_some() {
        skip(attempt, names::PRE_DATA);
    } else {
        step!(attempt, names::PRE_DATA, pre_data::run(attempt));
    }
    if found == Some(Stage::PostDataDone) {
        skip(attempt, names::DATA);
        skip(attempt, names::INDEXES);
        skip(attempt, names::POST_DATA);
    } else {
        if attempt.steps.has_data() {
            step!(attempt, names::DATA, data::run(attempt));
            step!(attempt, names::INDEXES, indexes::run(attempt));
        }
        step!(attempt, names::POST_DATA, post_data::run(attempt));
    }
    step!(attempt, names::ANALYZE, analyze::run(attempt));
    step!(attempt, names::VERIFY, verify::run(attempt));
    if attempt.steps.rewritten_servers().next().is_some() {
        step!(attempt, names::FOREIGN_SERVERS, foreign_servers::run(attempt));
    }
    // A commit is not interrupted: whether it took place could not be told.
    let reporter = attempt.context.reporter.clone();
    reporter.step_started(names::FINISH);
    let message = finish::run(attempt).await?;
    reporter.step_done(names::FINISH, message);
    Ok(())
}

fn skip(attempt: &Attempt<'_>, step: &str) {
    attempt
        .context
        .reporter
        .step_skipped(step, "Done by an earlier attempt");
}

/// Undoes, and says what was and what could not be.
async fn undo_in_time(attempt: &mut Attempt<'_>, class: FailureClass) -> String {
    let limit = if class == FailureClass::Interrupted {
        UNDO_TIME_WHEN_STOPPED
    } else {
        UNDO_TIME
    };
    let what = match timeout(limit, undo_when_reachable(attempt)).await {
        Ok(Ok(undone)) => return undone.sentence(),
        Ok(Err(refusal)) if refusal.reason == reasons::TARGET_BUSY => {
            return "Another attempt of this restore has taken over: nothing was undone.".to_owned();
        }
        Ok(Err(refusal)) => refusal.message.trim_end_matches('.').to_owned(),
        Err(_) => format!("it took longer than {} seconds", limit.as_secs()),
    };
    format!(
        "What the restore made in the database {:?} could not be removed yet: {what}. The next attempt or the clean-up removes it.",
        attempt.target.database
    )
}

/// A server that was restarted is back soon.
async fn undo_when_reachable(attempt: &mut Attempt<'_>) -> Result<undo::Undone, Refusal> {
    let deadline = Instant::now() + SERVER_RETURN;
    loop {
        let result = undo_once(attempt).await;
        match result {
            Err(refusal)
                if refusal.class == FailureClass::Temporary
                    && refusal.reason != reasons::TARGET_BUSY
                    && Instant::now() < deadline =>
            {
                sleep(Duration::from_secs(1)).await;
            }
            result => return result,
        }
    }
}

async fn undo_once(attempt: &mut Attempt<'_>) -> Result<undo::Undone, Refusal> {
    attempt.guard.renew(&attempt.target).await?;
    let Attempt {
        plan,
        target,
        guard,
        name,
        ..
    } = attempt;
    undo::undo(guard.session(), target, &plan.run, Some(name), true).await
}

fn with_left(mut refusal: Refusal, left: &str) -> Refusal {
    if !left.is_empty() {
        refusal.message = format!("{} {left}", refusal.message);
    }
    refusal
}

/// Removes what an interrupted attempt kept for the next one, where none will come.
pub async fn keep_nothing(plan: &RestorePlan, context: &Context, mut failed: Failed) -> Failed {
    if failed.refusal.class != FailureClass::Interrupted || !plan.is_retried() || plan.dry_run {
        return failed;
    }
    let clean_up = CleanUpRestorePlan {
        run: plan.run.clone(),
        target: plan.target.clone(),
        database: plan.database.clone().or_else(|| plan.source.database.clone()),
    };
    let cleaned = timeout(UNDO_TIME_WHEN_STOPPED, clean_up::remove(&clean_up, context)).await;
    let left = match cleaned {
        Ok(Ok(sentence)) => sentence,
        Ok(Err(refusal)) => format!("What it left could not be removed: {}", refusal.message),
        Err(_) => "What it left could not be removed in time.".to_owned(),
    };
    failed.refusal = with_left(failed.refusal, &left);
    failed
}

/// The table of contents of a stored backup's archive, and what was taken out of it.
pub async fn stored_definitions(
    source: &SnapshotSource,
    context: &Context,
) -> Result<(Toc, Vec<StrippedCredential>), Refusal> {
    let source = Source::find(source, context).await?;
    let stripped = source.manifest_database()?.stripped_credentials.clone();
    Ok((source.toc, stripped))
}
