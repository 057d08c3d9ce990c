//! The SQL of loading one chunk, its note included. Pure.

use crate::plan::Run;
use crate::postgres::quote::{identifier, literal, qualified};
use crate::store::manifest::{ChunkedRows, RowFormat};

use super::destinations::Name;
use crate::agent::restore::pg_restore;

/// What a session begins with: the settings with which `pg_restore` runs, and those with which rows were written as text.
/// No commit waits for a standby, and none but that of `commit_and_hint` for the disk: a crash takes a chunk away together
/// with its note, and the note of the next stage, which does wait, comes behind all of them in the log. What
/// `commit_and_hint` reads is a range of blocks, also where the database turns such scans off.
pub(super) fn session() -> String {
    format!(
        "{}; SET standard_conforming_strings = on; SET DateStyle = ISO; SET IntervalStyle = postgres; \
         SET synchronous_commit = off; SET max_parallel_workers_per_gather = 0; SET jit = off; SET enable_tidscan = on",
        pg_restore::SESSION
    )
}

/// The table that the notes of a table's chunks stand in: a crash of the server must empty both or none.
pub(super) const fn notes(unlogged: bool) -> &'static str {
    if unlogged {
        "pgrescue.loaded_chunks_unlogged"
    } else {
        "pgrescue.loaded_chunks"
    }
}

/// Begins the transaction with the note. One row comes back where the chunk is this session's to load: the blocks that
/// the `heap` has. None where it is loaded, also by a session of an earlier attempt that is just about to commit (the statement waits for that one), or
/// where another attempt has taken over.
pub(super) fn begin(
    run: &Run,
    attempt: &str,
    (relation, ordinal): (u32, usize),
    unlogged: bool,
    heap: Option<&Name>,
) -> String {
    let blocks = heap.map_or_else(|| "0".into(), blocks);
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
         INSERT INTO {} (relation, ordinal) SELECT {relation}, {ordinal} FROM pgrescue.runs \
             WHERE run = {} AND attempt = {} AND state = 'Started' \
         ON CONFLICT DO NOTHING RETURNING {blocks}",
        notes(unlogged),
        literal(&run.uid),
        literal(attempt)
    )
}

/// How many blocks a table has.
fn blocks((schema, table): &Name) -> String {
    let table = literal(&qualified(schema, table));
    let bytes = format!("pg_catalog.pg_relation_size({table}::pg_catalog.regclass)");
    format!("{bytes} / pg_catalog.current_setting('block_size')::bigint")
}

/// Commits, then reads what the `heap` has from this block on: the first who reads a row notes in the page that its
/// transaction has committed (the hint bits of `heapam_visibility.c`). Here the pages are in memory and not written yet.
/// Later, when an index is built, each page of a large table would be read and written once more for it, and, with
/// checksums, go whole into the log where a checkpoint lies in between (`MarkBufferDirtyHint` in `bufmgr.c`). The commit
/// waits for the server's disk, or no hint would be set (`SetHintBits`); not for a standby.
pub(super) fn commit_and_hint((schema, table): &Name, block: u64) -> String {
    format!(
        "SET LOCAL synchronous_commit = local; COMMIT; SELECT pg_catalog.count(*) FROM ONLY {} WHERE ctid >= '({block},0)'",
        qualified(schema, table)
    )
}

/// Whether this attempt is still the one that the database belongs to: one row where it is.
pub(super) fn is_ours(run: &Run, attempt: &str) -> String {
    format!(
        "SELECT 1 FROM pgrescue.runs WHERE run = {} AND attempt = {} AND state = 'Started'",
        literal(&run.uid),
        literal(attempt)
    )
}

/// Takes the rows. One query: names are read in the encoding before `SET`, rows in the one after it.
pub(super) fn copy(destination: &Name, rows: &ChunkedRows) -> String {
    let columns: Vec<_> = rows.columns.iter().map(|column| identifier(column)).collect();
    // A table without columns has rows too.
    let columns = if columns.is_empty() {
        String::new()
    } else {
        format!(" ({})", columns.join(", "))
    };
    let format = match rows.format {
        RowFormat::Binary => "binary",
        RowFormat::Text => "text",
    };
    format!(
        "SET LOCAL client_encoding = {}; COPY {}{columns} FROM STDIN (FORMAT {format})",
        literal(&rows.client_encoding),
        qualified(&destination.0, &destination.1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::RunKind;

    #[test]
    fn the_statements_quote_every_name() {
        let run = Run {
            kind: RunKind::PgRestore,
            namespace: "n".into(),
            name: "n".into(),
            uid: "it's".into(),
            generation: 1,
            created: jiff::Timestamp::UNIX_EPOCH,
            deadline_seconds: None,
        };
        let rows = ChunkedRows {
            format: RowFormat::Binary,
            columns: vec!["id".into(), "a \"b\"".into()],
            client_encoding: "LATIN1".into(),
            chunks: Vec::new(),
        };
        let bare = ChunkedRows {
            format: RowFormat::Text,
            columns: Vec::new(),
            ..rows.clone()
        };
        let table = ("s.x".into(), "t\"y".into());
        insta::assert_snapshot!(
            [
                begin(&run, "1", (4711, 3), false, None),
                begin(&run, "1", (4711, 3), true, Some(&table)),
                commit_and_hint(&table, 512),
                is_ours(&run, "1"),
                copy(&table, &rows),
                copy(&table, &bare),
            ]
            .join("\n")
        );
    }
}
