//! Why a foreign object of an archive cannot be read or changed.

use crate::api::reasons;
use crate::plan::Refusal;

/// Why a foreign object of an archive cannot be read or changed. No variant holds a definition: it may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// PostgreSQL's parser does not accept the definition.
    #[error("the definition of {object} cannot be parsed")]
    DefinitionUnreadable {
        /// Which object.
        object: String,
    },
    /// The definition holds other statements than expected.
    #[error("the definition of {object} is not the statement that pg_dump writes for it")]
    DefinitionUnexpected {
        /// Which object.
        object: String,
    },
    /// The changed definition would say something else than meant.
    #[error("the definition of {object} cannot be rewritten without changing more than was asked")]
    RewriteChangesMore {
        /// Which object.
        object: String,
    },
    /// The new value is none that PostgreSQL could store.
    #[error("{object} is given a value with a NUL character, which PostgreSQL cannot store")]
    ValueWithNul {
        /// Which object.
        object: String,
    },
    /// A rule names a column that the foreign table does not have.
    #[error("{object} has no column {column:?}")]
    ColumnMissing {
        /// Which table.
        object: String,
        /// The column.
        column: String,
    },
    /// The new value has letters that the archive's encoding may not have.
    #[error("{object} is given a value that is not ASCII, and the archive's encoding is {encoding}, not UTF8")]
    ValueNotInEncoding {
        /// Which object.
        object: String,
        /// Encoding of the archive.
        encoding: String,
    },
}

impl From<ForeignError> for Refusal {
    fn from(error: ForeignError) -> Self {
        let refusal = Self::permanent(reasons::MANIFEST_INVALID, error.to_string());
        match error {
            ForeignError::DefinitionUnreadable { object }
            | ForeignError::DefinitionUnexpected { object }
            | ForeignError::RewriteChangesMore { object } => refusal
                .object(object)
                .hint("Leave the server out (drop it with a rule), or report the definition as a bug of pgrescue."),
            ForeignError::ValueWithNul { object } => {
                let mut refusal = refusal.object(object);
                refusal.reason = reasons::INVALID_SPEC.into();
                refusal.hint("Remove the NUL character from the rule or from the Secret that it names.")
            }
            ForeignError::ColumnMissing { object, .. } => {
                let mut refusal = refusal.object(object);
                refusal.reason = reasons::FOREIGN_SERVER_RULE_UNUSED.into();
                refusal.hint("Correct the column in foreignTables, or remove the entry.")
            }
            ForeignError::ValueNotInEncoding { object, .. } => {
                let mut refusal = refusal.object(object);
                refusal.reason = reasons::INVALID_SPEC.into();
                refusal.hint("Use ASCII values, or back the database up with UTF8 as client encoding.")
            }
        }
    }
}
