//! Undoes what a restore did: drops the database and the roles that carry its mark, or empties again the database that
//! it was given. Nothing without the mark is touched.

use tokio_postgres::error::SqlState;

use super::database_state::{self, DatabaseRow};
use super::mark::{self, Mark};
use super::target::Target;
use super::{before, ledger, objects, resume};
use crate::plan::{Refusal, Run};
use crate::postgres::connection::Session;
use crate::postgres::quote::identifier;
use crate::postgres::sqlstate;

/// Times that sessions are ended before a drop is given up.
const DROP_ATTEMPTS: u32 = 10;

/// What was undone, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Undone {
    /// Each thing in a sentence.
    pub done: Vec<String>,
    /// What is still there, each in a few words.
    pub left: Vec<String>,
}

impl Undone {
    /// One sentence or two for the message of the failure.
    pub(super) fn sentence(&self) -> String {
        let mut text = self.done.join(" ");
        if !self.left.is_empty() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str("Still there: ");
            text.push_str(&self.left.join(", "));
            text.push('.');
        }
        text
    }
}

/// Undoes everything of the run in the target database, and its roles where asked. `session` is outside the target database.
/// `attempt` holds it to what that attempt made; `None` takes every attempt of the run.
pub(super) async fn undo(
    session: &Session,
    target: &Target,
    run: &Run,
    attempt: Option<&str>,
    with_roles: bool,
) -> Result<Undone, Refusal> {
    let mut undone = Undone::default();
    let unmarked = mark::unmarked_name(run);
    if database_state::find_row(session, &unmarked).await?.is_some() {
        drop_database(session, target, &unmarked).await?;
    }
    match database_state::find_row(session, &target.database).await? {
        Some(DatabaseRow { mark: Some(mark), .. }) => {
            if is_of(&mark, run, attempt) {
                drop_database(session, target, &target.database).await?;
                undone.done.push(format!(
                    "The database {:?}, which the restore had created, was dropped.",
                    target.database
                ));
            }
        }
        Some(row) if row.connectable => empty(target, run, attempt, &mut undone).await?,
        Some(_) | None => {}
    }
    if with_roles {
        drop_roles(session, run, &mut undone).await?;
    }
    Ok(undone)
}

fn is_of(mark: &Mark, run: &Run, attempt: Option<&str>) -> bool {
    mark.run == run.uid && attempt.is_none_or(|attempt| mark.attempt == attempt)
}

/// Drops a database of ours: its sessions are ended, its subscriptions first.
pub(super) async fn drop_database(session: &Session, target: &Target, database: &str) -> Result<(), Refusal> {
    let failed = |error: &tokio_postgres::Error| {
        session.refusal(error, &format!("dropping the database {database:?}"), Some(database))
    };
    let row = database_state::find_row(session, database).await?;
    if row.is_some_and(|row| row.connectable) {
        drop_subscriptions(target, database).await?;
    }
    // FORCE is of 13 and later; sessions are ended by hand where it is not there or not allowed.
    let quoted = identifier(database);
    if session.server_major() >= 13 {
        match session
            .batch_execute(&format!("DROP DATABASE IF EXISTS {quoted} WITH (FORCE)"))
            .await
        {
            Err(error) if sqlstate::is(&error, &SqlState::OBJECT_IN_USE) => {}
            Err(error) if sqlstate::is(&error, &SqlState::INSUFFICIENT_PRIVILEGE) => {}
            result => return result.map_err(|error| failed(&error)),
        }
    }
    for attempt in 1.. {
        let sql =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()";
        // Sessions of roles above ours cannot be ended; then the drop says so.
        let _ = session.query(sql, &[&database]).await;
        match session
            .batch_execute(&format!("DROP DATABASE IF EXISTS {quoted}"))
            .await
        {
            Err(error) if sqlstate::is(&error, &SqlState::OBJECT_IN_USE) && attempt < DROP_ATTEMPTS => {}
            result => return result.map_err(|error| failed(&error)),
        }
    }
    Ok(())
}

/// A subscription keeps its database from being dropped. From here on nobody can go on with what is left.
async fn drop_subscriptions(target: &Target, database: &str) -> Result<(), Refusal> {
    let inside = target.connect_to(database).await?;
    let failed = |error: tokio_postgres::Error| {
        inside.refusal(
            &error,
            "dropping the subscriptions of the unfinished database",
            Some(database),
        )
    };
    resume::forget(&inside).await.map_err(failed)?;
    let sql = "SELECT format('%I', subname) FROM pg_subscription \
               WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    for row in inside.query(sql, &[]).await.map_err(failed)? {
        for statement in objects::drop_subscription(row.get(0)) {
            inside.batch_execute(&statement).await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Empties the database that the run was given, if it had begun to fill it.
async fn empty(target: &Target, run: &Run, attempt: Option<&str>, undone: &mut Undone) -> Result<(), Refusal> {
    let inside = target.connect().await?;
    let database = &target.database;
    let failed =
        |error: tokio_postgres::Error| inside.refusal(&error, "emptying the target database again", Some(database));
    let rows = ledger::read(&inside).await.map_err(failed)?;
    let begun = rows.iter().find(|row| {
        row.applied_at.is_none() && row.run == run.uid && attempt.is_none_or(|attempt| row.attempt == attempt)
    });
    let Some(begun) = begun else {
        return Ok(());
    };
    resume::forget(&inside).await.map_err(failed)?;
    // Sessions that still load rows would keep their tables from being dropped. The lock is held outside this database.
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND starts_with(application_name, $1) AND pid <> pg_backend_pid()";
    inside
        .query(sql, &[&mark::application_prefix(run)])
        .await
        .map_err(failed)?;
    let mut left = objects::drop_all(&inside, ledger::SCHEMA, &begun.extensions_before)
        .await
        .map_err(failed)?;
    left.extend(before::bring_back(&inside, &begun.bring_back).await.map_err(failed)?);
    if left.is_empty() {
        ledger::forget(&inside, run).await.map_err(failed)?;
        undone
            .done
            .push(format!("The database {database:?} was emptied again."));
    } else {
        // The note stays: a retry goes on with it, and nobody takes the database for empty.
        undone.left.extend(
            left.into_iter()
                .map(|each| format!("{each} in the database {database:?}")),
        );
    }
    Ok(())
}

/// Drops the roles that the run made and that nothing uses by now.
async fn drop_roles(session: &Session, run: &Run, undone: &mut Undone) -> Result<(), Refusal> {
    let mut dropped = Vec::new();
    for role in marked_roles(session, run).await? {
        match session.batch_execute(&format!("DROP ROLE {}", identifier(&role))).await {
            Ok(()) => dropped.push(format!("{role:?}")),
            Err(error) if error.as_db_error().is_some() => undone.left.push(format!("role {role:?}")),
            Err(error) => return Err(session.refusal(&error, "dropping the roles that the restore had made", None)),
        }
    }
    if !dropped.is_empty() {
        undone.done.push(format!(
            "The roles that the restore had made were dropped: {}.",
            dropped.join(", ")
        ));
    }
    Ok(())
}

/// Roles that carry the mark of the run.
pub(super) async fn marked_roles(session: &Session, run: &Run) -> Result<Vec<String>, Refusal> {
    let sql = "SELECT rolname::text, shobj_description(oid, 'pg_authid') FROM pg_roles \
               WHERE shobj_description(oid, 'pg_authid') IS NOT NULL ORDER BY oid DESC";
    let rows = session.query(sql, &[]).await;
    let rows = rows.map_err(|error| session.refusal(&error, "looking for roles that the restore made", None))?;
    let marked = rows.iter().filter(|row| {
        let mark = Mark::of_comment(row.get::<_, Option<&str>>(1).unwrap_or_default());
        mark.is_some_and(|mark| mark.run == run.uid)
    });
    Ok(marked.map(|row| row.get(0)).collect())
}
