//! Whether rows stand in the order of a column, as those of a key that counts up do. Pure.

use crate::agent::restore::count_rows::Table;
use crate::postgres::quote::{identifier, qualified};

/// Blocks of a table that are looked at, about, and the bytes of one.
const BLOCKS: u64 = 64;
const BLOCK_BYTES: u64 = 8192;

/// Rows that may come before the row that stands before them: where several connections filled a table, it is in order
/// but for where their blocks meet. In no order, it is half of all rows.
const OUT_OF_ORDER: u64 = BLOCKS / 4;

/// Asks for one value: whether some blocks of the table have rows, and these are in the order of the column. They are
/// sorted as its type is by default, which needs no operator's name.
pub(super) fn question((schema, table): &Table, column: &str, table_bytes: u64) -> String {
    format!(
        "SELECT count(*) > 0 AND count(*) FILTER (WHERE rank < before) <= {OUT_OF_ORDER} FROM (\
         SELECT rank, lag(rank) OVER (ORDER BY place) AS before FROM (\
         SELECT ctid AS place, rank() OVER (ORDER BY {}) AS rank \
         FROM ONLY {} TABLESAMPLE SYSTEM (LEAST(100, {}.0 / {}))) AS ranked) AS pairs",
        identifier(column),
        qualified(schema, table),
        100 * BLOCKS * BLOCK_BYTES,
        table_bytes.max(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_quotes_every_name() {
        let table = ("s.x".into(), "t\"y".into());
        insta::assert_snapshot!(question(&table, "a \"b\"", 1 << 30));
    }
}
