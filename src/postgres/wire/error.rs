//! What can go wrong in a session over the protocol.

use std::io;

use postgres_protocol::message::backend::ErrorResponseBody;
use tokio_postgres::error::SqlState;

use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::sqlstate::{self, ServerError};

/// A statement or a COPY that failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The server refused it, or ended the session.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// The connection was cut.
    #[error("the connection to the server was lost: {0}")]
    Lost(#[source] io::Error),
    /// The server, or what is between, sent what the protocol does not know in this place.
    #[error("the server does not keep to PostgreSQL's protocol: {0}")]
    Violation(String),
    /// The statement is not the COPY that it should be.
    #[error("the statement {0}")]
    NotTheCopy(&'static str),
    /// The statement holds a zero byte or is too long.
    #[error("the statement cannot be sent: {0}")]
    Unsendable(#[source] io::Error),
    /// The session was left in the middle of a statement.
    #[error("the session was left in the middle of an earlier statement")]
    Unfinished,
}

/// The error that the server reports.
pub(super) fn error_of(body: &ErrorResponseBody) -> WireError {
    match ServerError::read(body.fields()) {
        Ok(error) => WireError::Server(Box::new(error)),
        Err(error) => WireError::violation(error.to_string()),
    }
}

impl WireError {
    pub(super) fn violation(what: impl Into<String>) -> Self {
        Self::Violation(what.into())
    }

    /// The server's SQLSTATE.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Server(error) => Some(error.code()),
            Self::Lost(_) | Self::Violation(_) | Self::NotTheCopy(_) | Self::Unsendable(_) | Self::Unfinished => None,
        }
    }

    /// The server's primary message alone: its detail may hold values of rows.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(error.message()),
            Self::Lost(_) | Self::Violation(_) | Self::NotTheCopy(_) | Self::Unsendable(_) | Self::Unfinished => None,
        }
    }

    /// Turns it into a refusal, like `Session::refusal`. `doing` completes "… failed", such as `reading the rows`;
    /// `object` names what it is about where the server does not.
    #[must_use]
    pub fn refusal(&self, doing: &str, object: Option<&str>) -> Refusal {
        let message = sqlstate::failed(doing, &self.to_string());
        let refusal = match self {
            Self::Server(error) => return error.refusal(doing, object),
            Self::Lost(_) => sqlstate::connection_lost(message),
            Self::Violation(_) => Refusal::temporary(reasons::CONNECTION_LOST, message).hint(
                "Connect to PostgreSQL itself and not to a proxy that changes what passes; where there is none, report it \
                 with the server's version.",
            ),
            Self::NotTheCopy(_) | Self::Unsendable(_) | Self::Unfinished => {
                Refusal::permanent(reasons::INTERNAL, message)
            }
        };
        match object {
            Some(object) => refusal.object(object),
            None => refusal,
        }
    }
}
