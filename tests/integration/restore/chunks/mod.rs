//! Restores of rows that are stored as chunks.

mod chunked;
mod constraints;
mod damage;
mod faults;
mod hint_bits;
mod killed;
mod notes;
mod round_trip;

pub use chunked::Cut;

use std::time::{Duration, Instant};

use crate::parts::Database;

/// Three tables, one of which holds its restore up: the CHECK constraint of row 501 of `held` sleeps.
pub fn with_gate(source: &Database<'_>) {
    source.psql(
        "CREATE TABLE first AS SELECT i AS id, md5(i::text) AS filler FROM generate_series(1, 4000) i; \
         CREATE FUNCTION gate(int) RETURNS boolean LANGUAGE sql AS 'SELECT true'; \
         CREATE TABLE held (id int CONSTRAINT gate CHECK (gate(id))); \
         INSERT INTO held SELECT generate_series(1, 1000); \
         CREATE OR REPLACE FUNCTION gate(int) RETURNS boolean LANGUAGE plpgsql AS \
             'BEGIN IF $1 = 501 THEN PERFORM pg_catalog.pg_sleep(600); END IF; RETURN true; END'; \
         CREATE TABLE last AS SELECT i AS id FROM generate_series(1, 10) i; \
         CREATE INDEX ON first (id); CREATE UNIQUE INDEX ON held (id)",
    );
}

/// Waits until the restore sleeps at the gate, and has loaded all of `first`, which may be another session's.
pub async fn at_the_gate(target: &Database<'_>) {
    let sleepers = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event = 'PgSleep'",
        target.name
    );
    let is_reached =
        || target.server.psql("postgres", &sleepers) != "0" && target.psql("SELECT count(*) FROM first") == "4000";
    let deadline = Instant::now() + Duration::from_mins(1);
    while !tokio::task::block_in_place(is_reached) {
        assert!(Instant::now() < deadline, "nobody came to the gate");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets the next attempt pass.
pub fn open_gate(target: &Database<'_>) {
    target.psql("CREATE OR REPLACE FUNCTION gate(int) RETURNS boolean LANGUAGE sql AS 'SELECT true'");
}

/// Rows by the transaction that loaded them: those of an earlier attempt keep theirs.
pub fn loads(target: &Database<'_>, table: &str) -> Vec<String> {
    let lines = target.psql(&format!(
        "SELECT xmin, count(*) FROM {table} GROUP BY 1 ORDER BY 1::text"
    ));
    lines.lines().map(str::to_owned).collect()
}

/// Notes of loaded chunks.
pub fn notes(target: &Database<'_>) -> u64 {
    let sql =
        "SELECT (SELECT count(*) FROM pgrescue.loaded_chunks) + (SELECT count(*) FROM pgrescue.loaded_chunks_unlogged)";
    target.psql(sql).parse().expect("a number")
}
