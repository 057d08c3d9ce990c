//! Step `finish`: the database gets its comment, grants, connection limit and owner, its mark goes, and the ledger
//! notes that the request was applied: all in one transaction. Before its commit the restore is not there; after it,
//! the same request changes nothing any more.

use super::attempt::Attempt;
use super::mark::Mark;
use super::{database_state, ledger, resume, roles, undo};
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::restore_steps::MakeDatabase;
use crate::postgres::quote::identifier;

/// Commits the restore.
pub(super) async fn run(attempt: &mut Attempt<'_>) -> Result<String, Refusal> {
    attempt.guard.renew(&attempt.target).await?;
    let attempt = &*attempt;
    let database = &attempt.target.database;
    let marked = undo::marked_roles(attempt.guard.session(), &attempt.plan.run).await?;
    let statements = statements(attempt, &marked).await?;
    let mut session = attempt.target.connect().await?;
    let result = async {
        let transaction = session.transaction().await?;
        for statement in &statements {
            transaction.batch_execute(statement).await?;
        }
        if attempt.stage.is_some() {
            transaction.batch_execute(resume::CLEAR).await?;
        }
        let ours = ledger::finish(&transaction, attempt.plan, &attempt.name).await?;
        if ours {
            transaction.commit().await?;
        }
        Ok::<_, tokio_postgres::Error>(ours)
    }
    .await;
    match result {
        Ok(true) => Ok("Properties set, run noted".to_owned()),
        Ok(false) => {
            let message = format!("Another attempt of this restore took over the database {database:?}.");
            Err(Refusal::temporary(reasons::TARGET_BUSY, message).object(database))
        }
        Err(error) => Err(session.refusal(&error, &format!("finishing the database {database:?}"), Some(database))),
    }
}

async fn statements(attempt: &Attempt<'_>, marked: &[String]) -> Result<Vec<String>, Refusal> {
    let database = &attempt.target.database;
    let quoted = identifier(database);
    let definitions = &attempt.definitions;
    let mut statements = Vec::new();
    match &attempt.steps.make {
        MakeDatabase::Create(_) => {
            let row = database_state::find_row(attempt.guard.session(), database).await?;
            let mark = row.and_then(|row| row.mark);
            if mark.as_ref() != Some(&Mark::new(&attempt.plan.run, &attempt.name)) {
                let message = format!("The database {database:?} no longer carries the mark of this restore.");
                return Err(Refusal::permanent(reasons::RESTORE_FAILED, message)
                    .object(database)
                    .hint("Somebody changed or replaced it while it was restored."));
            }
            // Back to what a new database has; the archive's grants are written as a difference from that.
            statements.push(format!("GRANT CONNECT, TEMPORARY ON DATABASE {quoted} TO PUBLIC"));
            statements.push(format!("COMMENT ON DATABASE {quoted} IS NULL"));
        }
        MakeDatabase::Fill(empty) if empty.owned => statements.extend(definitions.settings.iter().cloned()),
        MakeDatabase::Fill(_) => return Ok(roles::unmark(attempt, marked)),
    }
    // The owner first: the archive's grants are made by the owner.
    if let Some(owner) = &definitions.owner {
        statements.push(format!("ALTER DATABASE {quoted} OWNER TO {}", identifier(owner)));
    }
    statements.extend(definitions.properties.iter().cloned());
    // Last: until here the restoring role acts for the roles that it made.
    statements.extend(roles::unmark(attempt, marked));
    Ok(statements)
}
