//! Step `pre-data`: schemas, types, functions, tables, foreign servers. What managed servers refuse although nothing is
//! lost is run by the agent itself, where the SQLSTATE is at hand, and becomes a warning.

use tokio_postgres::error::SqlState;

use super::attempt::Attempt;
use super::definitions::SetAside;
use super::pg_restore;
use crate::plan::Refusal;
use crate::postgres::connection::Session;
use crate::postgres::sqlstate;

/// Restores everything that rows need.
pub(super) async fn run(attempt: &Attempt<'_>) -> Result<String, Refusal> {
    let session = attempt.target.connect().await?;
    let (first, after): (Vec<_>, Vec<_>) = attempt.definitions.set_aside.iter().partition(|part| part.first);
    for part in first {
        run_set_aside(attempt, &session, part).await?;
    }
    let toc = attempt.definitions.toc.without_data();
    pg_restore::definitions(attempt, &attempt.target.settings(), &toc, "pre-data", 1).await?;
    for part in after {
        run_set_aside(attempt, &session, part).await?;
    }
    Ok("Definitions restored".to_owned())
}

/// Whether the error says that the role may not touch what the server's owner made, or that it is there already.
fn is_harmless(error: &tokio_postgres::Error) -> bool {
    [
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::DUPLICATE_SCHEMA,
        SqlState::UNDEFINED_OBJECT,
    ]
    .iter()
    .any(|code| sqlstate::is(error, code))
}

async fn run_set_aside(attempt: &Attempt<'_>, session: &Session, part: &SetAside) -> Result<(), Refusal> {
    // One simple query is one transaction: nothing of it stays where it fails, nor does another session's role.
    let Err(error) = session.batch_execute(&part.sql).await else {
        return Ok(());
    };
    if !is_harmless(&error) {
        let doing = format!("restoring {}", part.label);
        return Err(session.refusal(&error, &doing, Some(&part.label)));
    }
    attempt.context.reporter.warn(format!(
        "{} was not restored, which harms no data: {} (SQLSTATE {}).",
        part.label,
        sqlstate::text(&error).trim_end_matches('.'),
        error.code().map(SqlState::code).unwrap_or_default()
    ));
    Ok(())
}
