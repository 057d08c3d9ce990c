//! Faults while chunks are loaded: what is there stays for the next attempt, which loads what is missing.

use std::process::Command;
use std::time::Duration;

use pgrescue::agent::execute::{MissingReferences, execute};
use pgrescue::agent::restore;
use pgrescue::api::reasons;
use pgrescue::api::status::{FailureClass, StepState};
use pgrescue::plan::Plan;
use pgrescue::plan::report::Failed;
use pgrescue::plan::restore::CleanUpRestorePlan;
use serde_json::json;

use super::{Cut, at_the_gate, loads, notes, open_gate, with_gate};
use crate::parts::{Database, PostgresServer, Toxiproxy};
use crate::restore::snapshot::Snapshot;
use crate::restore::{Request, runtime};

/// Runs until the gate, does something, and expects a failure.
#[track_caller]
fn is_ended_at_the_gate(request: &Request, target: &Database<'_>, fault: impl FnOnce()) -> Failed {
    runtime().block_on(async {
        let (result, ()) = tokio::join!(request.run(), async {
            at_the_gate(target).await;
            tokio::task::block_in_place(fault);
        });
        result.expect_err("it failed at the gate")
    })
}

/// The same while rows are loaded, with a failure that keeps what is there.
#[track_caller]
pub(super) fn fails_at_the_gate(request: &Request, target: &Database<'_>, fault: impl FnOnce()) -> Failed {
    let failed = is_ended_at_the_gate(request, target, fault);
    assert_eq!(failed.step.as_deref(), Some("data"), "{failed:?}");
    assert!(
        failed.refusal.message.contains("the next attempt goes on from there"),
        "{failed:?}"
    );
    failed
}

/// Ends the restore well, and sees that what was there was not loaded again.
#[track_caller]
fn goes_on(request: Request, source: &Database<'_>, target: &Database<'_>) {
    let (first, loaded) = (loads(target, "first"), notes(target));
    assert!(loaded > 0 && first.len() >= 2, "{first:?}");
    open_gate(target);
    let finished = request.succeed();
    source.content().assert_same(&target.content());
    let after = loads(target, "first");
    assert!(first.iter().all(|load| after.contains(load)), "{first:?} {after:?}");
    assert_eq!(finished.step("pre-data").state, StepState::Skipped);
    let message = finished.step("data").message.as_deref().expect("a message");
    assert!(message.contains(&format!("{loaded} were there")), "{message}");
    let progress = finished.status.progress.as_ref().expect("progress");
    assert_eq!((progress.tables, progress.rows), (3, 5010));
}

#[test]
fn a_stopped_restore_goes_on_where_it_stopped() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    with_gate(&source);
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let target = server.reserve_database("stopped");
    let request = Request::into(&snapshot, &target).with("jobs", json!(1));
    let failed = fails_at_the_gate(&request, &target, || request.stop.cancel());
    assert_eq!(failed.refusal.class, FailureClass::Interrupted, "{failed:?}");
    goes_on(Request::into(&snapshot, &target), &source, &target);
}

#[test]
fn a_cut_connection_keeps_what_is_loaded() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("source");
    with_gate(&source);
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let toxiproxy = Toxiproxy::start();
    let proxy = toxiproxy.proxy(server.port);
    let target = server.reserve_database("cut");
    let request = Request::through(&snapshot, proxy.port, &target.name).with("jobs", json!(2));
    let failed = fails_at_the_gate(&request, &target, || {
        proxy.toggle();
        std::thread::sleep(Duration::from_millis(300));
        proxy.toggle();
    });
    assert_eq!(failed.refusal.class, FailureClass::Temporary, "{failed:?}");
    assert_eq!(failed.refusal.reason, reasons::CONNECTION_LOST, "{failed:?}");
    goes_on(Request::through(&snapshot, proxy.port, &target.name), &source, &target);
}

/// Kills a backend, so that the server ends every session and recovers as after a crash.
fn crash(server: &PostgresServer) {
    let pid = server.psql(
        "postgres",
        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' LIMIT 1",
    );
    assert!(
        Command::new("kill")
            .args(["-9", &pid])
            .status()
            .expect("kill")
            .success()
    );
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    while server.try_psql("postgres", "SELECT 1").is_err()
        || server.psql(
            "postgres",
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
        ) != "0"
    {
        assert!(std::time::Instant::now() < deadline, "the server does not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_crash_of_the_server_loses_no_logged_row_and_loads_unlogged_ones_again() {
    for major in [12, 18] {
        let server = PostgresServer::start(major);
        let source = server.create_database("source");
        with_gate(&source);
        source.psql(
            "CREATE UNLOGGED TABLE lost AS SELECT i AS id, md5(i::text) AS filler FROM generate_series(1, 6000) i",
        );
        let snapshot = Snapshot::chunked(&source, Cut::default());
        let content = source.content();
        let target = server.reserve_database("crashed");
        let request = Request::into(&snapshot, &target).with("jobs", json!(1));
        fails_at_the_gate(&request, &target, || {
            target.psql("CHECKPOINT");
            assert_ne!(target.psql("SELECT count(*) FROM lost"), "0");
            crash(&server);
        });
        assert_eq!(
            target.psql("SELECT count(*) FROM lost"),
            "0",
            "the crash has emptied it"
        );
        assert_eq!(target.psql("SELECT count(*) FROM pgrescue.loaded_chunks_unlogged"), "0");
        let first = loads(&target, "first");
        assert!(first.len() >= 2);
        open_gate(&target);
        Request::into(&snapshot, &target).succeed();
        content.assert_same(&target.content());
        assert!(first.iter().all(|load| loads(&target, "first").contains(load)));
    }
}

#[test]
fn a_crash_that_takes_rows_which_no_note_shows_begins_anew() {
    let server = PostgresServer::start(17);
    let source = server.create_database("source");
    with_gate(&source);
    // An identity of an unlogged table is an unlogged sequence, whose value comes with the archive.
    source.psql(
        "CREATE UNLOGGED TABLE counted (id int GENERATED ALWAYS AS IDENTITY); \
         INSERT INTO counted SELECT FROM generate_series(1, 50)",
    );
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let content = source.content();
    let target = server.reserve_database("anew");
    let request = Request::into(&snapshot, &target).with("jobs", json!(1));
    fails_at_the_gate(&request, &target, || crash(&server));
    let first = loads(&target, "first");
    let again = Request::into(&snapshot, &target);
    // It begins anew, so the gate is closed again.
    runtime().block_on(async {
        let (result, ()) = tokio::join!(again.run(), async {
            at_the_gate(&target).await;
            tokio::task::block_in_place(|| {
                assert!(!first.iter().any(|load| loads(&target, "first").contains(load)));
                open_gate(&target);
                server.psql(
                    "postgres",
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
                );
            });
        });
        let failed = result.expect_err("the statement was cancelled");
        assert_eq!(failed.refusal.class, FailureClass::Temporary, "{failed:?}");
    });
    Request::into(&snapshot, &target).succeed();
    content.assert_same(&target.content());
}

#[test]
fn a_failure_after_the_indexes_are_built_goes_on_behind_them() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    with_gate(&source);
    source.psql("DROP FUNCTION gate CASCADE");
    // ANALYZE runs the function of an index on an expression.
    source.psql(
        "CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS \
            'BEGIN IF pg_catalog.current_query() LIKE ''ANALYZE%'' THEN PERFORM pg_catalog.pg_sleep(600); END IF; RETURN $1; END'; \
         CREATE INDEX slow ON last ((slow(id)))",
    );
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let target = server.reserve_database("analyzed");
    let request = Request::into(&snapshot, &target).with("jobs", json!(1));
    let failed = is_ended_at_the_gate(&request, &target, || request.stop.cancel());
    assert_eq!(failed.step.as_deref(), Some("analyze"), "{failed:?}");
    let index = target.psql("SELECT 'first_id_idx'::regclass::oid");
    target.psql("CREATE OR REPLACE FUNCTION slow(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'");
    let finished = Request::into(&snapshot, &target).succeed();
    for name in ["pre-data", "data", "indexes", "post-data"] {
        assert_eq!(finished.step(name).state, StepState::Skipped, "{name}");
    }
    assert_eq!(target.psql("SELECT 'first_id_idx'::regclass::oid"), index);
    source.content().assert_same(&target.content());
}

#[test]
fn a_failure_among_the_indexes_goes_on_with_those_that_are_missing() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    with_gate(&source);
    source.psql(
        "ALTER TABLE held DROP CONSTRAINT gate; ALTER TABLE first ADD CONSTRAINT \"the.first\" UNIQUE (filler); \
         CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'; \
         CREATE INDEX slow ON last ((slow(id)))",
    );
    source.psql(
        "CREATE OR REPLACE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS \
            'BEGIN IF pg_catalog.current_query() LIKE ''%CREATE INDEX%'' THEN PERFORM pg_catalog.pg_sleep(600); END IF; RETURN $1; END'",
    );
    let snapshot = Snapshot::chunked(&source, Cut::default());
    for crashed in [false, true] {
        // As servers have it, unlike those of other tests: what is committed survives a crash.
        let server = PostgresServer::with(17).setting("synchronous_commit", "on").start();
        let target = server.reserve_database("indexed");
        let request = Request::into(&snapshot, &target).with("jobs", json!(1));
        let failed = is_ended_at_the_gate(&request, &target, || {
            if crashed {
                crash(&server);
            } else {
                request.stop.cancel();
            }
        });
        assert_eq!(failed.step.as_deref(), Some("indexes"), "{failed:?}");
        let message = &failed.refusal.message;
        assert!(message.contains("the next attempt goes on from there"), "{message}");
        let indexes = "SELECT indexrelid::regclass, indexrelid FROM pg_index \
                       WHERE indrelid IN ('first'::regclass, 'held'::regclass) ORDER BY 1::text";
        let (built, first) = (target.psql(indexes), loads(&target, "first"));
        assert_eq!(built.lines().count(), 3, "{built}");
        target.psql("CREATE OR REPLACE FUNCTION slow(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'");
        let finished = Request::into(&snapshot, &target).succeed();
        assert_eq!((target.psql(indexes), loads(&target, "first")), (built, first));
        let message = finished.step("indexes").message.as_deref().expect("a message");
        assert_eq!(message, "1 indexes built, 3 were there from an earlier attempt");
        source.content().assert_same(&target.content());
    }
}

#[test]
fn a_failure_in_post_data_begins_anew() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    with_gate(&source);
    source.psql(
        "ALTER TABLE held DROP CONSTRAINT gate; \
         CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'; \
         CREATE MATERIALIZED VIEW slowly AS SELECT slow(id) FROM last",
    );
    source.psql(
        "CREATE OR REPLACE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql AS \
            'BEGIN PERFORM pg_catalog.pg_sleep(600); RETURN $1; END'",
    );
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let target = server.reserve_database("refreshed");
    let request = Request::into(&snapshot, &target);
    let failed = is_ended_at_the_gate(&request, &target, || request.stop.cancel());
    assert_eq!(failed.step.as_deref(), Some("post-data"), "{failed:?}");
    assert!(failed.refusal.message.contains("was dropped"), "{failed:?}");
    assert!(!target.exists());
}

#[test]
fn what_is_kept_is_not_taken_for_another_backup() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    with_gate(&source);
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let target = server.reserve_database("other");
    let request = Request::into(&snapshot, &target).with("jobs", json!(1));
    fails_at_the_gate(&request, &target, || request.stop.cancel());
    // The same run, but the manifest is another one by now.
    source.psql("DROP FUNCTION gate CASCADE; DELETE FROM first WHERE id % 2 = 0");
    let other = Snapshot::chunked(&source, Cut::default());
    Request::into(&other, &target).succeed();
    source.content().assert_same(&target.content());
}

#[test]
fn a_given_database_goes_on_too_and_is_emptied_when_the_run_is_given_up() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("source");
    with_gate(&source);
    let snapshot = Snapshot::chunked(&source, Cut::default());
    for give_up in [false, true] {
        let target = server.create_database("given");
        let before = (target.content(), target.schema());
        let request = Request::into(&snapshot, &target).with("jobs", json!(1));
        fails_at_the_gate(&request, &target, || request.stop.cancel());
        if give_up {
            let plan = request.plan();
            let plan = CleanUpRestorePlan {
                run: plan.run,
                target: plan.target,
                database: None,
            };
            let done = runtime().block_on(restore::clean_up(&plan, &request.context()));
            let message = done.expect("cleaned").message;
            assert!(message.contains("was emptied again"), "{message}");
            assert_eq!((target.content(), target.schema()), before);
            assert_eq!(target.psql("SELECT to_regnamespace('pgrescue') IS NULL"), "t");
        } else {
            goes_on(Request::into(&snapshot, &target), &source, &target);
        }
    }
}

#[test]
fn a_permanent_failure_of_a_later_attempt_undoes_what_the_earlier_one_kept() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    with_gate(&source);
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let target = server.reserve_database("given_up");
    let request = Request::into(&snapshot, &target).with("jobs", json!(1));
    fails_at_the_gate(&request, &target, || request.stop.cancel());
    target.psql("CREATE OR REPLACE FUNCTION gate(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 <> 900'");
    let failed = Request::into(&snapshot, &target).fail();
    assert_eq!(failed.refusal.class, FailureClass::Permanent, "{failed:?}");
    assert!(failed.refusal.message.contains("was dropped"), "{failed:?}");
    assert!(!target.exists());
}

#[test]
fn nothing_is_kept_where_no_attempt_follows() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    with_gate(&source);
    let snapshot = Snapshot::chunked(&source, Cut::default());
    // The run's own deadline is final.
    let target = server.reserve_database("overdue");
    let request = Request::into(&snapshot, &target).with("jobs", json!(1));
    let mut plan = request.plan();
    plan.run.deadline_seconds = Some(10);
    let plan = Plan::Restore(plan);
    let report = runtime().block_on(execute(&plan, &request.context(), MissingReferences::Fail));
    let failure = report.failure.expect("it is overdue");
    assert_eq!(failure.reason, reasons::DEADLINE_EXCEEDED, "{failure:?}");
    assert_eq!(failure.step.as_deref(), Some("data"), "{failure:?}");
    assert!(failure.message.contains("was dropped"), "{failure:?}");
    assert!(!target.exists());
    // Outside Kubernetes, where no snapshot is pinned, nobody begins another attempt.
    let target = server.reserve_database("by_hand");
    let mut request = Request::into(&snapshot, &target).with("jobs", json!(1));
    request.source.snapshot = None;
    let failed = is_ended_at_the_gate(&request, &target, || request.stop.cancel());
    assert!(failed.refusal.message.contains("was dropped"), "{failed:?}");
    assert!(!target.exists());
}
