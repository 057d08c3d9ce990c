//! Databases restored whole, over versions, encodings and kinds of targets.

use pgrescue::api::conditions::{DATA_VERIFIED, PREFLIGHT_PASSED};
use pgrescue::plan::report::Outcome;
use serde_json::json;

use super::Request;
use super::snapshot::Snapshot;
use crate::parts::{Database, PostgresServer};

/// What every good restore must show.
#[track_caller]
fn assert_restored(source: &Database<'_>, target: &Database<'_>, request: Request) {
    let finished = request.succeed();
    assert_eq!(finished.done.outcome, Outcome::Succeeded, "{}", finished.done.message);
    assert_eq!(finished.condition(DATA_VERIFIED), Some(true));
    assert_eq!(finished.condition(PREFLIGHT_PASSED), Some(true));
    let progress = finished.status.progress.expect("progress");
    assert_eq!(progress.percent, 100, "{:?}", finished.status.steps);
    source.content().assert_same(&target.content());
}

fn everything_is_restored(from: u32, to: u32) {
    let source_server = PostgresServer::shared(from);
    let source = source_server.create_database("source \"x\".y");
    source.load_everything();
    let target_server = PostgresServer::shared(to);
    target_server.load_roles();
    let target = target_server.reserve_database("target 'it''s'");
    let request = Request::into(&Snapshot::of(&source), &target)
        .with("jobs", json!(3))
        .with("subscriptions", json!({"drop": false}));
    assert_restored(&source, &target, request);
    if from == to {
        source.schema().assert_same(&target.schema());
        assert_eq!(source.properties(), target.properties());
    }
}

macro_rules! upward {
    ($($name:ident: $from:expr => $to:expr;)*) => {$(
        #[test]
        fn $name() {
            everything_is_restored($from, $to);
        }
    )*};
}

// Every version onto itself and upward: `whole.rs`.
upward! {
    everything_is_restored_from_12_to_12: 12 => 12;
    everything_is_restored_from_15_to_15: 15 => 15;
    everything_is_restored_from_18_to_18: 18 => 18;
    everything_is_restored_from_14_to_16: 14 => 16;
}

#[test]
fn an_empty_database_is_filled() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_everything();
    let target = server.create_database("target");
    target.psql("CREATE EXTENSION citext; CREATE EXTENSION pgcrypto");
    let request = Request::into(&Snapshot::of(&source), &target);
    assert_restored(&source, &target, request);
    target.psql("DROP EXTENSION pgcrypto");
    target.psql("DROP SUBSCRIPTION IF EXISTS \"odd \"\"subscription\"\"\"");
    assert_eq!(source.properties().settings, target.properties().settings);
    assert_eq!(source.properties().comment, target.properties().comment);
}

#[test]
fn an_empty_latin1_database_becomes_a_unicode_one() {
    let from = PostgresServer::with(15).encoding("LATIN1").start();
    let source = from.create_database("latin");
    source.load_everything();
    let to = PostgresServer::shared(18);
    to.load_roles();
    let target = to.create_database_with("unicode", "TEMPLATE template0 ENCODING 'UTF8'");
    let request = Request::into(&Snapshot::of(&source), &target);
    assert_restored(&source, &target, request);
}

#[test]
fn a_latin1_database_is_created_with_its_encoding() {
    let from = PostgresServer::with(15).encoding("LATIN1").start();
    let source = from.create_database("latin");
    source.load_everything();
    // The names of roles are bytes in the encoding of whoever made them: the whole server is of this encoding.
    let to = PostgresServer::with(16).encoding("LATIN1").start();
    to.load_roles();
    let target = to.reserve_database("latin_copy");
    let request = Request::into(&Snapshot::of(&source), &target);
    assert_restored(&source, &target, request);
    assert_eq!(target.properties().encoding, "LATIN1");
    assert_eq!(source.properties(), target.properties());
}

#[test]
fn definitions_alone_are_restored() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("source");
    source.load_plain();
    let target = server.reserve_database("definitions");
    Request::into(&Snapshot::with(&source, 16, &["--schema-only"], false), &target).succeed();
    source.schema().assert_same(&target.schema());
    assert_eq!(target.psql("SELECT count(*) FROM customer"), "0");
}

#[test]
fn a_restored_database_can_be_restored_from_again() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("source");
    source.load_plain();
    let first = server.reserve_database("first");
    Request::into(&Snapshot::of(&source), &first).succeed();
    let second = server.reserve_database("second");
    Request::into(&Snapshot::of(&first), &second).succeed();
    source.content().assert_same(&second.content());
    let ledger = second.psql("SELECT run FROM pgrescue.runs");
    assert_eq!(ledger, format!("uid of {}", second.name));
}

#[test]
fn statistics_are_collected_and_the_progress_counts_rows_and_tables() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("source");
    source.load_plain();
    let target = server.reserve_database("counted");
    let finished = Request::into(&Snapshot::of(&source), &target).succeed();
    let progress = finished.status.progress.expect("progress");
    assert_eq!((progress.rows, progress.tables, progress.tables_total), (1100, 2, 2));
    assert_eq!(
        target.psql("SELECT reltuples::int FROM pg_class WHERE relname = 'purchase'"),
        "1000"
    );
}
