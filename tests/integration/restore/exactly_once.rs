//! The same request is applied once, whatever becomes of its resource or its agent.

use pgrescue::agent::restore;
use pgrescue::api::reasons;
use pgrescue::plan::connection::ConnectionPlan;
use pgrescue::plan::report::Outcome;
use pgrescue::plan::restore::CleanUpRestorePlan;
use serde_json::json;

use super::snapshot::Snapshot;
use super::{Request, runtime};
use crate::parts::{Database, PostgresServer};

fn restored(server: &PostgresServer) -> (Database<'_>, Database<'_>, Snapshot) {
    let source = server.create_database("source");
    source.load_plain();
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("once");
    Request::into(&snapshot, &target).succeed();
    (source, target, snapshot)
}

#[test]
fn the_same_request_applied_again_changes_nothing() {
    let server = PostgresServer::shared(17);
    let (_source, target, snapshot) = restored(server);
    target.psql("DELETE FROM purchase WHERE id > 10");
    let before = target.content();
    // The resource was deleted and created anew: another UID, the same spec.
    let mut again = Request::into(&snapshot, &target);
    // Not that of another test: a run ends the sessions of its earlier attempts, on the whole server.
    again.uid = format!("another than {}", again.uid);
    let finished = again.succeed();
    assert_eq!(finished.done.outcome, Outcome::AlreadyApplied);
    before.assert_same(&target.content());
    // A retry of the same run, too.
    let retry = Request::into(&snapshot, &target).with("jobs", json!(7)).succeed();
    assert_eq!(retry.done.outcome, Outcome::AlreadyApplied);
    before.assert_same(&target.content());
}

#[test]
fn the_same_request_is_remembered_when_its_backup_is_gone() {
    let server = PostgresServer::shared(17);
    let (_source, target, snapshot) = restored(server);
    std::fs::remove_dir_all(snapshot.path("snapshots")).expect("the folder is ours");
    let finished = Request::into(&snapshot, &target).succeed();
    assert_eq!(finished.done.outcome, Outcome::AlreadyApplied);
}

#[test]
fn another_request_into_the_restored_database_is_refused() {
    let server = PostgresServer::shared(17);
    let (_source, target, snapshot) = restored(server);
    let before = target.content();
    let mut other_name = Request::into(&snapshot, &target);
    other_name.name = "orders-copy-2".into();
    assert_eq!(other_name.fail().refusal.reason, reasons::TARGET_NOT_EMPTY);
    let other_spec = Request::into(&snapshot, &target).with("noOwner", json!(true));
    assert_eq!(other_spec.fail().refusal.reason, reasons::TARGET_NOT_EMPTY);
    before.assert_same(&target.content());
}

/// What an agent leaves behind that was killed in the middle: the marked database with half of its rows.
fn left_behind(server: &PostgresServer, snapshot: &Snapshot, target: &Database<'_>) {
    let request = Request::into(snapshot, target);
    let mark = json!({"run": request.uid, "resource": "shop/orders-copy", "attempt": "1"});
    server.psql(
        "postgres",
        &format!("CREATE DATABASE \"{}\" TEMPLATE template0", target.name),
    );
    target.psql("CREATE TABLE customer (id int); INSERT INTO customer SELECT generate_series(1, 50)");
    let comment = format!("pgrescue has not finished this restore: {mark}");
    server.psql(
        "postgres",
        &format!("COMMENT ON DATABASE \"{}\" IS '{comment}'", target.name),
    );
}

#[test]
fn a_retry_begins_with_a_fresh_database() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_plain();
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("retried");
    left_behind(server, &snapshot, &target);
    let finished = Request::into(&snapshot, &target).succeed();
    assert_eq!(finished.done.outcome, Outcome::Succeeded);
    source.content().assert_same(&target.content());
    assert_eq!(target.properties().comment, "");
}

#[test]
fn what_another_run_left_unfinished_is_not_touched() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_plain();
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("left");
    left_behind(server, &snapshot, &target);
    let mut other = Request::into(&snapshot, &target);
    other.uid = format!("another than {}", other.uid);
    let failed = other.fail();
    assert_eq!(failed.refusal.reason, reasons::TARGET_NOT_EMPTY);
    assert!(failed.refusal.message.contains("unfinished"), "{failed:?}");
    assert_eq!(target.psql("SELECT count(*) FROM customer"), "50");
}

/// Cleans up after the run of `request`.
fn clean_up(request: &Request, database: Option<&str>) -> String {
    let plan = request.plan();
    let plan = CleanUpRestorePlan {
        run: plan.run,
        target: ConnectionPlan { ..plan.target },
        database: database.map(str::to_owned),
    };
    let done = runtime().block_on(restore::clean_up(&plan, &request.context()));
    done.expect("the clean-up ends well").message
}

#[test]
fn the_clean_up_drops_what_the_run_made_and_nothing_else() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_plain();
    let snapshot = Snapshot::of(&source);
    for named in [true, false] {
        let target = server.reserve_database("cleaned");
        left_behind(server, &snapshot, &target);
        let request = Request::into(&snapshot, &target);
        let mut other = Request::into(&snapshot, &target);
        other.uid = format!("another than {}", other.uid);
        clean_up(&other, named.then_some(target.name.as_str()));
        assert_eq!(target.psql("SELECT count(*) FROM customer"), "50");
        let message = clean_up(&request, named.then_some(target.name.as_str()));
        assert!(message.contains("was dropped"), "{message}");
        assert!(!target.exists());
        assert_eq!(clean_up(&request, None), "The restore had left nothing behind.");
    }
}

#[test]
fn the_clean_up_leaves_a_finished_restore_alone() {
    let server = PostgresServer::shared(17);
    let (source, target, snapshot) = restored(server);
    clean_up(&Request::into(&snapshot, &target), Some(&target.name));
    clean_up(&Request::into(&snapshot, &target), None);
    source.content().assert_same(&target.content());
}

#[test]
fn two_restores_into_one_name_do_not_mix() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("source");
    source.load_plain();
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("contended");
    let mut first = Request::into(&snapshot, &target);
    first.name = "first".into();
    first.uid = "first".into();
    let mut second = Request::into(&snapshot, &target);
    second.name = "second".into();
    second.uid = "second".into();
    let (one, other) = runtime().block_on(async { tokio::join!(first.run(), second.run()) });
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    let failed = one.err().or(other.err()).expect("one of them");
    assert!(
        [reasons::TARGET_BUSY, reasons::TARGET_NOT_EMPTY].contains(&failed.refusal.reason.as_str()),
        "{failed:?}"
    );
    source.content().assert_same(&target.content());
}
