//! What a failure of `pg_restore` means: which object, which SQLSTATE, and what to do. The text of `pg_restore` names
//! the entry (it runs under `LC_ALL=C`); the SQLSTATE comes from PostgreSQL, by running the statement again in a
//! transaction that is rolled back.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::attempt::Attempt;
use super::pg_restore;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::archive::{Text, TocEntry};
use crate::postgres::connection::Session;
use crate::postgres::program::{ProgramOutput, without_secrets};
use crate::postgres::quote::identifier;
use crate::postgres::sqlstate;

/// A statement that ran for longer fails for another reason than at its beginning.
const LONGEST_REPEAT: Duration = Duration::from_secs(30);
/// Bytes that the probe for a full disk writes in a transaction that is rolled back.
const PROBE_ROWS: u32 = 4000;

/// What `pg_restore` said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Complaint {
    /// Number of the entry that failed.
    dump_id: Option<i32>,
    /// First line of the error.
    message: String,
    /// The statement, where it was quoted whole.
    statement: Option<String>,
    /// Whether libpq lost the connection.
    connection_lost: bool,
}

/// Texts of libpq, which has no SQLSTATE for a connection that is gone. They are the program's own, under `LC_ALL=C`.
const CONNECTION_LOST: [&str; 6] = [
    "server closed the connection unexpectedly",
    "connection to server",
    "could not receive data from server",
    "could not send data to server",
    "SSL connection has been closed unexpectedly",
    "no connection to the server",
];

/// Bytes of a statement that `pg_restore` quotes; a longer one ends in dots (`DB_MAX_ERR_STMT`).
const CUT: &str = "...";

fn read(stderr: &str) -> Complaint {
    let mut complaint = Complaint::default();
    let mut lines = stderr.lines();
    while let Some(line) = lines.next() {
        let line = line.strip_prefix("pg_restore: ").unwrap_or(line);
        if let Some(entry) = line.strip_prefix("from TOC entry ") {
            let digits = entry.split(';').next().unwrap_or_default();
            complaint.dump_id = digits.trim().parse().ok();
        } else if let Some(error) = line.strip_prefix("error: ") {
            // DETAIL and CONTEXT hold values of rows: the first line is enough.
            if complaint.message.is_empty() {
                let text = error.split_once("ERROR:  ").map_or(error, |(_, text)| text);
                text.clone_into(&mut complaint.message);
            }
        } else if let Some(statement) = line.strip_prefix("Command was: ") {
            // Workers of a parallel restore may have more to say behind it.
            let rest = lines.by_ref().take_while(|line| !line.starts_with("pg_restore: "));
            let whole = std::iter::once(statement).chain(rest).collect::<Vec<_>>().join("\n");
            let whole = whole.trim_end().to_owned();
            complaint.statement = (!whole.ends_with(CUT)).then_some(whole);
        }
    }
    complaint.connection_lost = CONNECTION_LOST.iter().any(|text| stderr.contains(text));
    complaint
}

/// A refusal with object, SQLSTATE and what to do.
pub(super) async fn explain(attempt: &Attempt<'_>, output: &ProgramOutput) -> Refusal {
    let complaint = read(&output.stderr);
    tracing::debug!(
        entry = complaint.dump_id,
        code = output.code,
        signal = output.signal,
        "pg_restore failed"
    );
    let session = match attempt.target.connect().await {
        Ok(session) => session,
        Err(refusal) => return lost(attempt, &refusal.message),
    };
    if complaint.connection_lost || attempt.guard.session().is_closed() {
        return lost(attempt, &complaint.message);
    }
    if output.signal.is_some() {
        let message = "pg_restore was killed by a signal, perhaps for want of memory.";
        return Refusal::temporary(reasons::RESTORE_FAILED, message).hint("Give the agent's container more memory.");
    }
    let entry = complaint.dump_id.and_then(|id| attempt.definitions.toc.entry(id));
    let cause = match entry {
        Some(entry) if entry.has_data => of_rows(entry, &session).await,
        Some(entry) => repeat(entry, &complaint, &session).await,
        None => None,
    };
    let label = entry.map(TocEntry::label);
    let what = label.as_deref().unwrap_or("the archive");
    let refusal = cause.unwrap_or_else(|| {
        Refusal::permanent(
            reasons::RESTORE_FAILED,
            format!("Restoring {what} failed: {}.", complaint.message.trim_end_matches('.')),
        )
    });
    // PostgreSQL quotes values that it does not like, and a value of an option may come from a Secret.
    let refusal = Refusal {
        message: without_secrets(&attempt.secrets, &refusal.message),
        ..refusal
    };
    match label {
        Some(label) => refusal.object(label),
        None => refusal,
    }
}

fn lost(attempt: &Attempt<'_>, message: &str) -> Refusal {
    Refusal::temporary(
        reasons::CONNECTION_LOST,
        format!(
            "The connection to the target server was lost during the restore: {}.",
            message.trim_end_matches('.')
        ),
    )
    .object(&attempt.target.database)
    .hint("Check that the server runs and was not restarted, and that nothing between cuts connections.")
}

/// Runs the statement that failed again, to hear from PostgreSQL why.
async fn repeat(entry: &TocEntry, complaint: &Complaint, session: &Session) -> Option<Refusal> {
    let definition = entry.definition.as_ref().and_then(Text::to_str);
    let statement = complaint.statement.as_deref().or(definition)?;
    session.batch_execute(pg_restore::SESSION).await.ok()?;
    session.batch_execute("BEGIN").await.ok()?;
    let result = timeout(LONGEST_REPEAT, session.batch_execute(statement)).await;
    let error = result.ok()?.err()?;
    let refusal = session.refusal(&error, &format!("restoring {}", entry.label()), None);
    Some(of_restore(refusal))
}

/// A failure of a statement of the archive.
pub(super) fn of_restore(mut refusal: Refusal) -> Refusal {
    if refusal.reason == reasons::INTERNAL {
        reasons::RESTORE_FAILED.clone_into(&mut refusal.reason);
    }
    if refusal.reason == reasons::PERMISSION_DENIED {
        refusal = refusal.hint("Restore as a role that may do this, or set noOwner and noPrivileges.");
    }
    refusal
}

/// Rows cannot be sent again. What can be looked at: whether the disk is full, and whether the table has a CHECK
/// constraint that calls a function, which may read tables that are not filled yet.
async fn of_rows(entry: &TocEntry, session: &Session) -> Option<Refusal> {
    if let Some(full) = disk_is_full(session).await {
        return Some(full);
    }
    let schema = entry.schema.as_ref()?.to_str()?;
    let table = entry.tag.as_ref()?.to_str()?;
    let checks = checks_with_functions(session, schema, table).await.ok()?;
    if checks.is_empty() {
        return None;
    }
    let message = format!(
        "The rows of {} could not be loaded. Its CHECK constraints call functions, which may read tables that are not filled yet: {}.",
        entry.label(),
        checks.join(", ")
    );
    Some(
        Refusal::permanent(reasons::RESTORE_FAILED, message)
            .sqlstate(SqlState::CHECK_VIOLATION.code())
            .hint("A CHECK constraint that reads other tables cannot be restored in any order: at the source, make it a trigger, or drop it and add it again as NOT VALID before the backup."),
    )
}

async fn disk_is_full(session: &Session) -> Option<Refusal> {
    let probe = format!(
        "BEGIN; CREATE TABLE pgrescue.probe AS \
         SELECT string_agg(md5(i::text || j::text), '') AS filler FROM generate_series(1, {PROBE_ROWS}) i, generate_series(1, 60) j GROUP BY i"
    );
    let result = timeout(LONGEST_REPEAT, session.batch_execute(&probe)).await;
    let refusal = match result {
        Ok(Err(error)) if sqlstate::is(&error, &SqlState::DISK_FULL) => {
            Some(session.refusal(&error, "loading rows", None))
        }
        _ => None,
    };
    let _ = session.batch_execute("ROLLBACK").await;
    refusal
}

/// CHECK constraints of the table that depend on functions of users, each with the functions.
pub(super) async fn checks_with_functions(
    session: &Session,
    schema: &str,
    table: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "
        SELECT conname::text, string_agg(DISTINCT d.refobjid::regprocedure::text, ', ')
        FROM pg_constraint c JOIN pg_class t ON t.oid = conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
        JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
            AND d.refclassid = 'pg_proc'::regclass
        WHERE contype = 'c' AND nspname = $1 AND relname = $2 GROUP BY 1 ORDER BY 1";
    let rows = session.query(sql, &[&schema, &table]).await?;
    rows.iter()
        .map(|row| {
            let (name, functions): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            Ok(format!("{} (calls {functions})", identifier(&name)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_the_message_and_the_statement_are_read_and_no_value_of_a_row() {
        let complaint = read(
            "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 4711; 1259 16385 TABLE \"a\nb\" owner\n\
             pg_restore: error: could not execute query: ERROR:  role \"x\" does not exist\nCommand was: ALTER TABLE \"a\nb\" OWNER TO x;\n\n\
             pg_restore: error: a worker process died unexpectedly\n",
        );
        assert_eq!(complaint.dump_id, Some(4711));
        assert_eq!(complaint.message, "role \"x\" does not exist");
        assert_eq!(complaint.statement.as_deref(), Some("ALTER TABLE \"a\nb\" OWNER TO x;"));
        let rows = read(
            "pg_restore: from TOC entry 5; 0 16385 TABLE DATA t o\n\
             pg_restore: error: COPY failed for table \"t\": ERROR:  new row for relation \"t\" violates check constraint \"c\"\n\
             DETAIL:  Failing row contains (secret).\nCONTEXT:  COPY t, line 1: \"secret\"\n",
        );
        assert_eq!(rows.dump_id, Some(5));
        assert!(!format!("{rows:?}").contains("secret"));
        let cut = read("pg_restore: error: could not execute query: ERROR:  x\nCommand was: CREATE TABLE a (...\n");
        assert_eq!(cut.statement, None);
        assert!(read("pg_restore: error: server closed the connection unexpectedly").connection_lost);
    }
}
