//! Errors of PostgreSQL by SQLSTATE and kind of input/output error, never by their English text.

use std::error::Error as _;
use std::io;

use postgres_protocol::message::backend::ErrorFields;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::fallible_iterator::FallibleIterator as _;

use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::refusal::sentence;

/// What a server said of an error, by field (manual, "Error and Notice Message Fields").
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct ServerError {
    code: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    schema: Option<String>,
    table: Option<String>,
    datatype: Option<String>,
    constraint: Option<String>,
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> Self {
        Self {
            code: error.code().clone(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            schema: error.schema().map(str::to_owned),
            table: error.table().map(str::to_owned),
            datatype: error.datatype().map(str::to_owned),
            constraint: error.constraint().map(str::to_owned),
        }
    }
}

impl ServerError {
    /// Reads the fields of an ErrorResponse; those that are not known are skipped, as the manual asks for.
    pub(super) fn read(mut fields: ErrorFields<'_>) -> io::Result<Self> {
        let mut error = Self {
            code: SqlState::INTERNAL_ERROR,
            message: String::new(),
            detail: None,
            hint: None,
            schema: None,
            table: None,
            datatype: None,
            constraint: None,
        };
        while let Some(field) = fields.next()? {
            // The server's words are in its own encoding until a session has agreed on one.
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => error.code = SqlState::from_code(&value),
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b's' => error.schema = Some(value),
                b't' => error.table = Some(value),
                b'd' => error.datatype = Some(value),
                b'n' => error.constraint = Some(value),
                _ => {}
            }
        }
        Ok(error)
    }

    /// The SQLSTATE.
    #[must_use]
    pub const fn code(&self) -> &SqlState {
        &self.code
    }

    /// The primary message, without detail and hint.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Message, detail and hint in one line.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            text.push_str(" (");
            text.push_str(more);
            text.push(')');
        }
        text
    }

    /// The object that the server names in the error's fields.
    fn object(&self) -> Option<String> {
        let name = self
            .constraint
            .as_ref()
            .or(self.table.as_ref())
            .or(self.datatype.as_ref())?;
        Some(match &self.schema {
            Some(schema) => format!("{schema}.{name}"),
            None => name.clone(),
        })
    }

    /// As [`refusal`].
    pub(super) fn refusal(&self, doing: &str, object: Option<&str>) -> Refusal {
        let refusal = of_sqlstate(self, failed(doing, &self.text()));
        match object.map(str::to_owned).or_else(|| self.object()) {
            Some(object) => refusal.object(object),
            None => refusal,
        }
    }
}

/// What the server or the connection said, with the server's detail and hint, in one line.
#[must_use]
pub fn text(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return ServerError::from(error).text();
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

/// Turns an error of a statement into a refusal. `doing` completes "… failed", such as `reading the roles`; `object`
/// names what it is about where the server does not.
#[must_use]
pub fn refusal(error: &tokio_postgres::Error, doing: &str, object: Option<&str>) -> Refusal {
    if let Some(db) = error.as_db_error() {
        return ServerError::from(db).refusal(doing, object);
    }
    let refusal = of_connection(error, failed(doing, &text(error)));
    match object {
        Some(object) => refusal.object(object),
        None => refusal,
    }
}

/// Whether the statement failed with this SQLSTATE.
#[must_use]
pub fn is(error: &tokio_postgres::Error, code: &SqlState) -> bool {
    error.code() == Some(code)
}

/// "… failed: …", as a sentence.
pub(super) fn failed(doing: &str, text: &str) -> String {
    sentence(&format!("{doing} failed: {text}"))
}

fn of_connection(error: &tokio_postgres::Error, message: String) -> Refusal {
    let input_output = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if error.is_closed() || input_output.is_some() {
        return connection_lost(message);
    }
    Refusal::permanent(reasons::INTERNAL, message)
}

/// The connection was cut, and the server did not say why.
pub(super) fn connection_lost(message: String) -> Refusal {
    Refusal::temporary(reasons::CONNECTION_LOST, message)
        .hint("Check that the server runs and was not restarted, and that nothing between cuts idle connections.")
}

/// Classes and codes of the manual's appendix "PostgreSQL Error Codes".
fn of_sqlstate(error: &ServerError, message: String) -> Refusal {
    let code = error.code.code();
    let refusal = match code {
        "28P01" | "28000" => Refusal::permanent(reasons::AUTHENTICATION_FAILED, message)
            .hint("Check the user, the password and the server's pg_hba.conf."),
        "3D000" => Refusal::permanent(reasons::DATABASE_MISSING, message).hint("Check the database's name."),
        "42501" => Refusal::permanent(reasons::PERMISSION_DENIED, message)
            .hint("Grant the privilege to the role of the connection, or use a role that has it."),
        "53100" => {
            Refusal::permanent(reasons::TARGET_FULL, message).hint("Make room on the server's disk, then try again.")
        }
        "53200" if error.hint.is_some() => Refusal::permanent(reasons::TOO_FEW_LOCKS, message)
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
