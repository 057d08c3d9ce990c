//! Removes what a restore's agent that died for good left behind. It drops nothing that the restore's own mark does not
//! name.

use super::guard::Guard;
use super::ledger;
use super::mark::{self, Mark};
use super::target::Target;
use super::undo;
use crate::agent::Context;
use crate::plan::Refusal;
use crate::plan::report::{Done, Failed, Outcome};
use crate::plan::restore::CleanUpRestorePlan;
use crate::postgres::connection::{ConnectionSettings, Session};

/// Finds what the run left, ends its sessions, and removes it.
pub async fn clean_up(plan: &CleanUpRestorePlan, context: &Context) -> Result<Done, Failed> {
    let message = remove(plan, context).await?;
    Ok(Done {
        outcome: Outcome::Succeeded,
        message,
        artifact: None,
        plan_hash: None,
    })
}

/// The same; returns what was removed in a sentence.
pub(super) async fn remove(plan: &CleanUpRestorePlan, context: &Context) -> Result<String, Refusal> {
    let settings = ConnectionSettings::resolve(&plan.target, &*context.references).await?;
    let attempt = mark::new_attempt();
    let name = mark::application_name(&plan.run, &attempt);
    let database = match &plan.database {
        Some(database) => database.clone(),
        None => match find_database(&settings, &name, plan).await? {
            Some(database) => database,
            // Roles and a database without its mark are found whatever the name.
            None => mark::unmarked_name(&plan.run),
        },
    };
    let (target, _session) = Target::of_settings(&settings, &name, &database).await?;
    let guard = Guard::take(&target, &plan.run, &attempt).await?;
    let undone = undo::undo(guard.session(), &target, &plan.run, None, true).await?;
    Ok(match undone.sentence() {
        sentence if sentence.is_empty() => "The restore had left nothing behind.".to_owned(),
        sentence => sentence,
    })
}

/// The database that carries the run's mark: in its comment, or in its ledger.
async fn find_database(
    settings: &ConnectionSettings,
    name: &str,
    plan: &CleanUpRestorePlan,
) -> Result<Option<String>, Refusal> {
    let (target, session) = Target::of_settings(settings, name, &mark::unmarked_name(&plan.run)).await?;
    let sql = "SELECT datname::text, coalesce(shobj_description(oid, 'pg_database'), ''), \
                   datallowconn AND has_database_privilege(oid, 'CONNECT') FROM pg_database ORDER BY oid";
    let rows = session.query(sql, &[]).await;
    let rows = rows.map_err(|error| session.refusal(&error, "listing the databases of the target server", None))?;
    let mut open = Vec::new();
    for row in &rows {
        let (database, comment, may_connect): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        if Mark::of_comment(&comment).is_some_and(|mark| mark.run == plan.run.uid) {
            return Ok(Some(database));
        }
        if may_connect {
            open.push(database);
        }
    }
    for database in open {
        // One that cannot be looked into was not filled by this role either.
        let Ok(inside) = target.connect_to(&database).await else {
            continue;
        };
        if holds_unfinished(&inside, plan).await {
            return Ok(Some(database));
        }
    }
    Ok(None)
}

async fn holds_unfinished(session: &Session, plan: &CleanUpRestorePlan) -> bool {
    let rows = ledger::read(session).await.unwrap_or_default();
    rows.iter()
        .any(|row| row.applied_at.is_none() && row.run == plan.run.uid)
}
