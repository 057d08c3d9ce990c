//! Which options of user mappings may be shown and stored: see `postgres::foreign::is_secret`.

use crate::postgres::foreign::{OptionOf, is_secret};

/// Whether an option of a user mapping may be shown and stored.
#[must_use]
pub fn is_harmless(name: &str, value: &str) -> bool {
    !is_secret(OptionOf::UserMapping, name, value)
}
