//! Errors of PostgreSQL by SQLSTATE and kind of input/output error, never by their English text.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::DbError;

use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::refusal::sentence;

/// What the server or the connection said, with the server's detail and hint, in one line.
#[must_use]
pub fn text(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return db_text(error);
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn db_text(error: &DbError) -> String {
    let mut text = error.message().to_owned();
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        text.push_str(" (");
        text.push_str(more);
        text.push(')');
    }
    text
}

/// Turns an error of a statement into a refusal. `doing` completes "… failed", such as `reading the roles`; `object`
/// names what it is about where the server does not.
#[must_use]
pub fn refusal(error: &tokio_postgres::Error, doing: &str, object: Option<&str>) -> Refusal {
    let message = sentence(&format!("{doing} failed: {}", text(error)));
    let refusal = match error.as_db_error() {
        Some(db) => of_sqlstate(db, message),
        None => of_connection(error, message),
    };
    let named = object
        .map(str::to_owned)
        .or_else(|| error.as_db_error().and_then(named_object));
    match named {
        Some(object) => refusal.object(object),
        None => refusal,
    }
}

/// Whether the statement failed with this SQLSTATE.
#[must_use]
pub fn is(error: &tokio_postgres::Error, code: &tokio_postgres::error::SqlState) -> bool {
    error.code() == Some(code)
}

/// The object that the server names in the error's fields.
fn named_object(error: &DbError) -> Option<String> {
    let name = error.constraint().or(error.table()).or(error.datatype())?;
    Some(match error.schema() {
        Some(schema) => format!("{schema}.{name}"),
        None => name.to_owned(),
    })
}

fn of_connection(error: &tokio_postgres::Error, message: String) -> Refusal {
    let input_output = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if error.is_closed() || input_output.is_some() {
        return Refusal::temporary(reasons::CONNECTION_LOST, message)
            .hint("Check that the server runs and was not restarted, and that nothing between cuts idle connections.");
    }
    Refusal::permanent(reasons::INTERNAL, message)
}

/// Classes and codes of the manual's appendix "PostgreSQL Error Codes".
fn of_sqlstate(error: &DbError, message: String) -> Refusal {
    let code = error.code().code();
    let refusal = match code {
        "28P01" | "28000" => Refusal::permanent(reasons::AUTHENTICATION_FAILED, message)
            .hint("Check the user, the password and the server's pg_hba.conf."),
        "3D000" => Refusal::permanent(reasons::DATABASE_MISSING, message).hint("Check the database's name."),
        "42501" => Refusal::permanent(reasons::PERMISSION_DENIED, message)
            .hint("Grant the privilege to the role of the connection, or use a role that has it."),
        "53100" => {
            Refusal::permanent(reasons::TARGET_FULL, message).hint("Make room on the server's disk, then try again.")
        }
        "53200" if error.hint().is_some() => Refusal::permanent(reasons::TOO_FEW_LOCKS, message)
            .hint("Raise max_locks_per_transaction on the server, or the memory that it may use."),
        "53300" => Refusal::temporary(reasons::CONNECTION_REFUSED, message)
            .hint("Raise max_connections on the server or the role's connection limit, or run fewer at once."),
        "57P03" => Refusal::temporary(reasons::CONNECTION_REFUSED, message)
            .hint("The server starts, stops or recovers; the next attempt comes by itself."),
        "57P01" | "57P02" | "57P04" | "57P05" => Refusal::temporary(reasons::CONNECTION_LOST, message)
            .hint("The server ended the session: it was stopped, restarted, or an administrator ended it."),
        "55P03" | "40001" | "40P01" | "55006" => Refusal::temporary(reasons::TARGET_BUSY, message)
            .hint("Another session holds a lock that is needed; the next attempt comes by itself."),
        "57014" => Refusal::temporary(reasons::TARGET_BUSY, message)
            .hint("A timeout or an administrator cancelled the statement."),
        code if code.starts_with("08") => Refusal::temporary(reasons::CONNECTION_LOST, message)
            .hint("Check that nothing between here and the server cuts connections."),
        code if code.starts_with("53") || code.starts_with("58") => Refusal::temporary(reasons::INTERNAL, message)
            .hint("Look into the server's log: it lacks a resource or met an error of its operating system."),
        _ => Refusal::permanent(reasons::INTERNAL, message),
    };
    refusal.sqlstate(code)
}
