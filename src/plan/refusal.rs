//! A refusal: the one shape in which a plan, a preflight or a step says no.

use serde::{Deserialize, Serialize};

use crate::api::reasons;
use crate::api::status::{Failure, FailureClass};

/// Why something is not done: a reason constant, what is wrong with which object, and what to do.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Constant from `api::reasons`.
    pub reason: String,
    /// Whether a retry can help.
    pub class: FailureClass,
    /// Object that it is about.
    pub object: Option<String>,
    /// SQLSTATE, where PostgreSQL gave one.
    pub sqlstate: Option<String>,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What to do, in a sentence.
    pub hint: Option<String>,
}

/// An error's text as a sentence: it begins with a capital and ends with one full stop.
#[must_use]
pub fn sentence(text: &str) -> String {
    let text = text.trim_end().trim_end_matches('.');
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).chain(['.']).collect()
}

impl Refusal {
    /// A refusal that no retry can lift.
    #[must_use]
    pub fn permanent(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            class: FailureClass::Permanent,
            object: None,
            sqlstate: None,
            message: message.into(),
            hint: None,
        }
    }

    /// A refusal that may be lifted by itself.
    #[must_use]
    pub fn temporary(reason: &str, message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Temporary,
            ..Self::permanent(reason, message)
        }
    }

    /// The run was told to stop.
    #[must_use]
    pub fn interrupted() -> Self {
        Self {
            class: FailureClass::Interrupted,
            ..Self::permanent(reasons::INTERRUPTED, "The run was told to stop before it was done.")
        }
        .hint("Nothing is kept of it; the next attempt begins anew.")
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the object.
    #[must_use]
    pub fn object(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Keeps the SQLSTATE.
    #[must_use]
    pub fn sqlstate(mut self, sqlstate: impl Into<String>) -> Self {
        self.sqlstate = Some(sqlstate.into());
        self
    }

    /// Reason, message and hint in one line, for the terminal.
    #[must_use]
    pub fn sentence(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!(" {hint}")).unwrap_or_default();
        format!("{}: {}.{hint}", self.reason, self.message.trim_end_matches('.'))
    }

    /// As it stands in a status, with the step that it stopped.
    #[must_use]
    pub fn into_failure(self, step: Option<String>) -> Failure {
        let Self {
            reason,
            class,
            object,
            sqlstate,
            message,
            hint,
        } = self;
        Failure {
            class,
            reason,
            step,
            object,
            sqlstate,
            message,
            hint,
        }
    }
}
