//! Chunks that a constraint refused: whether another try may help, and what to say where it did not.

use tokio_postgres::error::SqlState;

use super::Load;
use super::queue::Place;
use crate::agent::restore::failure::checks_with_functions;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::wire::WireError;

/// A chunk that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Which.
    pub place: Place,
    sqlstate: String,
    /// What the server said, without values of rows.
    message: String,
}

impl Refused {
    pub(super) fn new(place: Place, error: &WireError) -> Self {
        Self {
            place,
            sqlstate: error.code().map(SqlState::code).unwrap_or_default().to_owned(),
            message: error.message().unwrap_or_default().to_owned(),
        }
    }
}

/// Whether the same rows may be taken once all others are there, or through the root of the partitions: CHECK
/// constraints and bounds of partitions were not met, or a function that they call gave up (class P0).
pub(super) fn may_be_accepted_later(code: Option<&SqlState>) -> bool {
    code.is_some_and(|code| *code == SqlState::CHECK_VIOLATION || code.code().starts_with("P0"))
}

/// Why a chunk cannot be loaded at all.
pub(super) async fn explain(load: &Load<'_>, refused: &Refused) -> Refusal {
    let Refused {
        place,
        sqlstate,
        message,
    } = refused;
    let table = &load.tables[place.table];
    let relation = table.relation;
    let mut text = format!(
        "Loading {} failed, also after all others: {}.",
        load.label(*place),
        message.trim_end_matches('.')
    );
    let checks = match load.attempt.target.connect().await {
        Ok(session) => checks_with_functions(&session, &relation.schema, &relation.name).await,
        Err(refusal) => return refusal,
    };
    let checks = checks.unwrap_or_default();
    if !checks.is_empty() {
        text.push_str(" Its CHECK constraints call functions, which may read what is not there yet: ");
        text.push_str(&checks.join(", "));
        text.push('.');
    }
    Refusal::permanent(reasons::RESTORE_FAILED, text)
        .object(table.name())
        .sqlstate(sqlstate)
        .hint("At the source, make the constraint hold for every row, or make it a trigger, or drop it and add it again as NOT VALID before the backup.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_get_a_second_try_and_wrong_values_do_not() {
        for (code, again) in [
            ("23514", true),
            ("P0001", true),
            ("22P02", false),
            ("53100", false),
            ("57014", false),
        ] {
            assert_eq!(may_be_accepted_later(Some(&SqlState::from_code(code))), again, "{code}");
        }
        assert!(!may_be_accepted_later(None));
    }
}
