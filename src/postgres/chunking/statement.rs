//! The COPY that reads a range of a table, and what makes its rows a stream of their own.

use super::BlockRange;
use crate::postgres::quote;
use crate::store::manifest::RowFormat;

/// What a binary stream begins with: signature, flags, length of the extension (manual, "COPY", "Binary Format").
pub const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What a binary stream ends with.
pub const BINARY_TRAILER: &[u8] = &[0xff, 0xff];

/// The statement for these columns of a table's own rows; its children's are never among them.
#[must_use]
pub fn copy_out(schema: &str, table: &str, columns: &[String], format: RowFormat, range: Option<BlockRange>) -> String {
    let columns: Vec<String> = columns.iter().map(|column| quote::identifier(column)).collect();
    let columns = columns.join(", ");
    let table = quote::qualified(schema, table);
    let format = match format {
        RowFormat::Binary => "binary",
        RowFormat::Text => "text",
    };
    match range {
        None => format!("COPY {table} ({columns}) TO STDOUT (FORMAT {format})"),
        Some(BlockRange { first, end }) => {
            let end = end.map_or_else(String::new, |end| format!(" AND ctid < '({end},0)'::pg_catalog.tid"));
            format!(
                "COPY (SELECT {columns} FROM ONLY {table} WHERE ctid >= '({first},0)'::pg_catalog.tid{end}) \
                 TO STDOUT (FORMAT {format})"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_names_its_columns_and_reads_the_table_alone() {
        let columns = ["id".to_owned(), "a \"b\"".to_owned()];
        let range = |first, end| Some(BlockRange { first, end });
        insta::assert_snapshot!(
            [
                copy_out("s.x", "t", &columns, RowFormat::Binary, None),
                copy_out("s.x", "t", &columns, RowFormat::Text, range(2048, Some(4096))),
                copy_out("s.x", "t", &columns[..1], RowFormat::Binary, range(4096, None)),
            ]
            .join("\n"),
            @r#"
        COPY "s.x"."t" ("id", "a ""b""") TO STDOUT (FORMAT binary)
        COPY (SELECT "id", "a ""b""" FROM ONLY "s.x"."t" WHERE ctid >= '(2048,0)'::pg_catalog.tid AND ctid < '(4096,0)'::pg_catalog.tid) TO STDOUT (FORMAT text)
        COPY (SELECT "id" FROM ONLY "s.x"."t" WHERE ctid >= '(4096,0)'::pg_catalog.tid) TO STDOUT (FORMAT binary)
        "#
        );
    }
}
