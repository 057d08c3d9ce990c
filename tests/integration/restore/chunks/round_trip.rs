//! Databases restored whole from chunks, over versions, encodings and kinds of tables.

use pgrescue::api::conditions::DATA_VERIFIED;
use pgrescue::plan::report::Outcome;
use serde_json::json;

use super::Cut;
use crate::parts::{Database, PostgresServer};
use crate::restore::Request;
use crate::restore::snapshot::Snapshot;

/// What every good restore must show.
#[track_caller]
fn restored(source: &Database<'_>, target: &Database<'_>, request: Request) {
    let finished = request.succeed();
    assert_eq!(finished.done.outcome, Outcome::Succeeded, "{}", finished.done.message);
    assert_eq!(finished.condition(DATA_VERIFIED), Some(true));
    let progress = finished.status.progress.as_ref().expect("progress");
    assert_eq!(progress.percent, 100, "{:?}", finished.status.steps);
    source.content().assert_same(&target.content());
    let tables = "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                  WHERE nspname = 'pgrescue' AND relkind = 'r'";
    assert_eq!(
        target.psql(tables),
        "restore_progress,runs",
        "the notes of chunks are gone"
    );
    assert_eq!(target.psql("SELECT count(*) FROM pgrescue.restore_progress"), "0");
}

fn everything_is_restored(from: u32, to: &[u32]) {
    let source_server = PostgresServer::shared(from);
    let source = source_server.create_database("source \"x\".y");
    source.load_everything();
    let snapshot = Snapshot::chunked(&source, Cut::default());
    for to in to {
        let target_server = PostgresServer::shared(*to);
        target_server.load_roles();
        let target = target_server.reserve_database("target 'it''s'");
        let request = Request::into(&snapshot, &target)
            .with("jobs", json!(3))
            .with("subscriptions", json!({"drop": false}));
        restored(&source, &target, request);
        if from == *to {
            source.schema().assert_same(&target.schema());
            assert_eq!(source.properties(), target.properties());
        }
    }
}

macro_rules! upward {
    ($($name:ident: $from:expr => $to:expr;)*) => {$(
        #[test]
        fn $name() {
            everything_is_restored($from, &$to);
        }
    )*};
}

upward! {
    chunks_of_12_are_restored_onto_12_13_and_18: 12 => [12, 13, 18];
    chunks_of_16_are_restored_onto_16_and_17: 16 => [16, 17];
}

#[test]
fn an_empty_database_is_filled_from_chunks() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_everything();
    let target = server.create_database("target");
    target.psql("CREATE EXTENSION citext");
    restored(
        &source,
        &target,
        Request::into(&Snapshot::chunked(&source, Cut::default()), &target),
    );
}

#[test]
fn chunks_in_latin1_become_unicode_whatever_their_tables_are_called() {
    let from = PostgresServer::with(15).encoding("LATIN1").start();
    let source = from.create_database("latin");
    source.load_everything();
    source.psql(
        "CREATE TABLE \"täble\" (\"cölumn\" text, \"ÿ\" int); \
         INSERT INTO \"täble\" SELECT 'é ' || i, i FROM generate_series(1, 1000) i",
    );
    let cut = Cut {
        client_encoding: "LATIN1",
        ..Cut::default()
    };
    let snapshot = Snapshot::chunked(&source, cut);
    let to = PostgresServer::shared(18);
    to.load_roles();
    let target = to.create_database_with("unicode", "TEMPLATE template0 ENCODING 'UTF8'");
    restored(&source, &target, Request::into(&snapshot, &target));
}

#[test]
fn a_row_that_another_server_puts_into_another_partition_goes_there() {
    // Hashes of enums depend on OIDs, hashes of texts on the encoding.
    let from = PostgresServer::with(16).encoding("LATIN1").start();
    let source = from.create_database("partitioned");
    source.psql(
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'great'); \
         CREATE TABLE by_enum (m mood, i int) PARTITION BY HASH (m); \
         CREATE TABLE by_text (t text, i int) PARTITION BY HASH (t); \
         CREATE TABLE by_number (i int, t text) PARTITION BY HASH (i); \
         CREATE TABLE by_list (l int, m mood) PARTITION BY LIST (l); \
         CREATE TABLE by_list_1 PARTITION OF by_list FOR VALUES IN (1) PARTITION BY HASH (m); \
         CREATE TABLE by_list_2 PARTITION OF by_list FOR VALUES IN (2); \
         CREATE TABLE by_expression (t text) PARTITION BY HASH (lower(t)); \
         DO 'DECLARE parent text; BEGIN \
             FOREACH parent IN ARRAY ARRAY[''by_enum'', ''by_text'', ''by_number'', ''by_list_1'', ''by_expression''] LOOP \
                 FOR part IN 0..2 LOOP \
                     EXECUTE format(''CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 3, REMAINDER %s)'', parent || ''_'' || part, parent, part); \
                 END LOOP; \
             END LOOP; END'; \
         INSERT INTO by_enum SELECT (enum_range(NULL::mood))[1 + i % 4], i FROM generate_series(1, 2000) i; \
         INSERT INTO by_text SELECT 'é' || i, i FROM generate_series(1, 2000) i; \
         INSERT INTO by_number SELECT i, 'é' || i FROM generate_series(1, 2000) i; \
         INSERT INTO by_list SELECT 1 + i % 2, (enum_range(NULL::mood))[1 + i % 4] FROM generate_series(1, 2000) i; \
         INSERT INTO by_expression SELECT 'É' || i FROM generate_series(1, 2000) i; \
         CREATE TABLE by_range (t text) PARTITION BY RANGE (t); \
         CREATE TABLE by_range_low PARTITION OF by_range FOR VALUES FROM (MINVALUE) TO ('b'); \
         CREATE TABLE by_range_high PARTITION OF by_range FOR VALUES FROM ('b') TO (MAXVALUE); \
         INSERT INTO by_range SELECT chr(65 + i % 58) || i FROM generate_series(1, 2000) i",
    );
    let snapshot = Snapshot::chunked(&source, Cut::default());
    // As where texts sort in another order: each range holds rows that belong into the other one here.
    let mut manifest = snapshot.manifest();
    let relations = manifest["databases"][0]["relations"].as_array_mut().expect("relations");
    let number = |name: &str| relations.iter().position(|relation| relation["name"] == name);
    let (low, high) = (
        number("by_range_low").expect("a table"),
        number("by_range_high").expect("a table"),
    );
    for field in ["chunks", "rows"] {
        let swapped = relations[low][field].take();
        relations[low][field] = std::mem::replace(&mut relations[high][field], swapped);
    }
    snapshot.write_manifest(&manifest);
    let to = PostgresServer::shared(18);
    // Other OIDs than at the source.
    let target = to.create_database_with("sorted", "TEMPLATE template0 ENCODING 'UTF8'");
    target.psql("CREATE TABLE shifts_oids (); DROP TABLE shifts_oids");
    restored(
        &source,
        &target,
        Request::into(&snapshot, &target).with("jobs", json!(3)),
    );
    let low = "SELECT count(*), sum(ascii(t)) FROM by_range_low";
    assert_eq!(source.psql(low), target.psql(low));
}

#[test]
fn odd_tables_are_restored_from_chunks() {
    let server = PostgresServer::shared(18);
    let source = server.create_database("odd");
    source.psql(
        "CREATE TABLE empty (id int); \
         CREATE TABLE \"no columns\" (); INSERT INTO \"no columns\" SELECT FROM generate_series(1, 5); \
         CREATE TABLE generated (a int, b int GENERATED ALWAYS AS (a * 2) STORED, id int GENERATED ALWAYS AS IDENTITY); \
         INSERT INTO generated (a) SELECT generate_series(1, 700); \
         CREATE TABLE only_generated (b int GENERATED ALWAYS AS (7) STORED); INSERT INTO only_generated DEFAULT VALUES; \
         CREATE TABLE dropped (x int, a int, y text); INSERT INTO dropped SELECT 1, i, 'y' FROM generate_series(1, 700) i; \
         ALTER TABLE dropped DROP COLUMN x; \
         CREATE UNLOGGED TABLE unlogged (id int); INSERT INTO unlogged SELECT generate_series(1, 700); \
         CREATE TABLE parent (id int); CREATE TABLE child (more int) INHERITS (parent); \
         INSERT INTO parent SELECT generate_series(1, 400); INSERT INTO child SELECT i, i FROM generate_series(1, 400) i; \
         CREATE TABLE secret (id int); INSERT INTO secret VALUES (1); ALTER TABLE secret ENABLE ROW LEVEL SECURITY; \
         ALTER TABLE secret FORCE ROW LEVEL SECURITY",
    );
    let target = server.reserve_database("odd_copy");
    let snapshot = Snapshot::chunked(&source, Cut::default());
    restored(&source, &target, Request::into(&snapshot, &target));
    source.schema().assert_same(&target.schema());
    assert_eq!(
        target.psql("SELECT relpersistence FROM pg_class WHERE relname = 'unlogged'"),
        "u"
    );
}

#[test]
fn a_database_that_was_restored_from_chunks_can_be_restored_from_again() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("source");
    source.load_plain();
    let first = server.reserve_database("first");
    restored(
        &source,
        &first,
        Request::into(&Snapshot::chunked(&source, Cut::default()), &first),
    );
    // Its ledger is a table with a row, which is stored as a chunk too.
    let second = server.reserve_database("second");
    restored(
        &source,
        &second,
        Request::into(&Snapshot::chunked(&first, Cut::default()), &second),
    );
    let ledger = second.psql("SELECT run FROM pgrescue.runs");
    assert_eq!(ledger, format!("uid of {}", second.name));
}

#[test]
fn a_dry_run_shows_the_chunks_and_the_same_hash_as_the_run() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_plain();
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let target = server.reserve_database("shown");
    let shown = Request::into(&snapshot, &target).with("dryRun", json!(true)).succeed();
    let description = shown.step("data").description.as_deref().expect("a sentence");
    assert!(description.contains("chunks on 2 connections"), "{description}");
    assert!(!target.exists());
    let done = Request::into(&snapshot, &target).succeed();
    assert_eq!(shown.done.plan_hash, done.done.plan_hash);
}
