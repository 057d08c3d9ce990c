//! Faults in the middle: what failed is said, what was made is removed, a retry ends well.

use std::time::{Duration, Instant};

use pgrescue::api::reasons;
use pgrescue::api::status::{FailureClass, StepState};
use serde_json::json;

use super::snapshot::Snapshot;
use super::{Request, runtime};
use crate::parts::{Database, PostgresServer, Toxiproxy};
use crate::store::full_disk::SmallDisk;

/// Rows that take a moment to load.
fn filled(server: &PostgresServer) -> Database<'_> {
    let source = server.create_database("source");
    source.load_plain();
    source.psql("CREATE TABLE bulk AS SELECT i, repeat(md5(i::text), 20) AS filler FROM generate_series(1, 60000) i");
    source.psql("CREATE TABLE more AS SELECT * FROM bulk");
    source
}

/// Waits until a step of the run is under way.
async fn step_runs(request: &Request, name: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let status = request.reporter.status();
        let runs = status
            .steps
            .iter()
            .any(|step| step.name == name && step.state == StepState::Running);
        if runs && (name != "data" || status.progress.is_some_and(|progress| progress.bytes > 0)) {
            return;
        }
        assert!(Instant::now() < deadline, "{:?}", status.steps);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn a_stopped_restore_removes_what_it_made_and_a_retry_ends_well() {
    let server = PostgresServer::shared(17);
    let source = filled(server);
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("stopped");
    let request = Request::into(&snapshot, &target);
    let failed = runtime().block_on(async {
        let (result, ()) = tokio::join!(request.run(), async {
            step_runs(&request, "data").await;
            request.stop.cancel();
        });
        result.expect_err("it was stopped")
    });
    assert_eq!(failed.refusal.class, FailureClass::Interrupted);
    assert_eq!(failed.refusal.reason, reasons::INTERRUPTED);
    assert_eq!(failed.step.as_deref(), Some("data"));
    assert!(!target.exists(), "{failed:?}");
    Request::into(&snapshot, &target).succeed();
    source.content().assert_same(&target.content());
}

#[test]
fn a_cut_connection_is_temporary_and_a_retry_ends_well() {
    let server = PostgresServer::start(16);
    let source = filled(&server);
    let snapshot = Snapshot::of(&source);
    let toxiproxy = Toxiproxy::start();
    let proxy = toxiproxy.proxy(server.port);
    let target = server.reserve_database("cut");
    let request = Request::through(&snapshot, proxy.port, &target.name);
    let failed = runtime().block_on(async {
        let (result, ()) = tokio::join!(request.run(), async {
            step_runs(&request, "data").await;
            tokio::task::block_in_place(|| proxy.toggle());
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::task::block_in_place(|| proxy.toggle());
        });
        result.expect_err("the connection was cut")
    });
    assert_eq!(failed.refusal.reason, reasons::CONNECTION_LOST, "{failed:?}");
    assert_eq!(failed.refusal.class, FailureClass::Temporary);
    assert!(!target.exists(), "{failed:?}");
    Request::through(&snapshot, proxy.port, &target.name).succeed();
    source.content().assert_same(&target.content());
}

#[test]
fn a_killed_server_is_temporary_and_what_is_left_is_said() {
    let server = PostgresServer::start(17);
    let source = filled(&server);
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("killed");
    let request = Request::into(&snapshot, &target);
    let failed = runtime().block_on(async {
        let (result, ()) = tokio::join!(request.run(), async {
            step_runs(&request, "data").await;
            server.signal("KILL");
        });
        result.expect_err("the server is gone")
    });
    assert_eq!(failed.refusal.class, FailureClass::Temporary, "{failed:?}");
    assert_eq!(failed.refusal.reason, reasons::CONNECTION_LOST);
    assert!(
        failed.refusal.message.contains("could not be removed yet"),
        "{failed:?}"
    );
}

#[test]
fn a_new_attempt_ends_the_sessions_of_the_old_one() {
    let server = PostgresServer::shared(17);
    let source = filled(server);
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("overlapped");
    let toxiproxy = Toxiproxy::start();
    let slow = toxiproxy.proxy(server.port);
    // Kilobytes a second: the rows would take minutes.
    slow.add_toxic("bandwidth", &["rate=40"], true);
    let old = Request::through(&snapshot, slow.port, &target.name);
    let new = Request::into(&snapshot, &target);
    let (old, new) = runtime().block_on(async {
        tokio::join!(old.run(), async {
            step_runs(&old, "data").await;
            new.run().await
        })
    });
    let failed = old.expect_err("the new attempt took over");
    assert_eq!(failed.refusal.class, FailureClass::Temporary, "{failed:?}");
    new.expect("the new attempt ends well");
    source.content().assert_same(&target.content());
}

#[test]
fn a_statement_that_fails_is_named_with_its_sqlstate() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.psql(
        "CREATE TABLE t (id int); INSERT INTO t VALUES (1), (1); \
         CREATE FUNCTION wrong() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; \
         CREATE INDEX broken ON t ((id / wrong()))",
    );
    // The function is changed behind the index's back, so that building the index anew fails.
    source.psql("CREATE OR REPLACE FUNCTION wrong() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0'");
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("failed");
    let failed = Request::into(&snapshot, &target).fail();
    assert_eq!(failed.refusal.reason, reasons::RESTORE_FAILED, "{failed:?}");
    assert_eq!(failed.refusal.object.as_deref(), Some("INDEX public.broken"));
    assert_eq!(failed.refusal.sqlstate.as_deref(), Some("22012"), "{failed:?}");
    assert_eq!(failed.step.as_deref(), Some("indexes"));
    assert!(failed.refusal.message.contains("was dropped"), "{failed:?}");
    assert!(!target.exists());
}

#[test]
fn a_check_constraint_that_reads_another_table_is_explained() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.psql(
        "CREATE TABLE zz (id int); INSERT INTO zz VALUES (1); \
         CREATE FUNCTION known(int) RETURNS boolean LANGUAGE plpgsql AS \
             'BEGIN RETURN EXISTS (SELECT FROM public.zz WHERE id = $1); END'; \
         CREATE TABLE aa (id int CONSTRAINT \"is known\" CHECK (known(id))); INSERT INTO aa VALUES (1)",
    );
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("checked");
    let failed = Request::into(&snapshot, &target).fail();
    assert_eq!(
        failed.refusal.object.as_deref(),
        Some("TABLE DATA public.aa"),
        "{failed:?}"
    );
    for word in ["\"is known\"", "known(integer)", "not filled yet"] {
        assert!(failed.refusal.message.contains(word), "{failed:?}");
    }
    assert!(!target.exists());
}

#[test]
fn a_given_database_is_emptied_again() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_everything();
    source.psql(
        "CREATE TABLE zz (id int); INSERT INTO zz VALUES (1), (1); CREATE SCHEMA last; CREATE TABLE last.t (id int)",
    );
    let mut snapshot = Snapshot::of(&source);
    // The manifest speaks of a row more than the table has: the last check fails.
    miscount(&mut snapshot);
    let target = server.create_database("given");
    target.psql("CREATE EXTENSION citext");
    let before = (target.content(), target.schema());
    let failed = Request::into(&snapshot, &target)
        .with("subscriptions", json!({"drop": false}))
        .fail();
    assert_eq!(failed.refusal.reason, reasons::VERIFICATION_FAILED, "{failed:?}");
    assert!(failed.refusal.message.contains("was emptied again"), "{failed:?}");
    assert_eq!((target.content(), target.schema()), before);
    assert_eq!(target.psql("SELECT to_regnamespace('pgrescue') IS NULL"), "t");
}

/// Makes an index of the manifest valid that is not, or the reverse: here, a table gets an unvalidated constraint less.
fn miscount(snapshot: &mut Snapshot) {
    let mut manifest = snapshot.manifest();
    let relations = manifest["databases"][0]["relations"].as_array_mut().expect("relations");
    for relation in relations {
        for constraint in relation["constraints"].as_array_mut().into_iter().flatten() {
            constraint["validated"] = json!(true);
        }
    }
    snapshot.write_manifest(&manifest);
}

#[test]
fn a_count_that_differs_from_the_manifest_is_a_failure() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_plain();
    let snapshot = Snapshot::of(&source);
    let mut manifest = snapshot.manifest();
    for relation in manifest["databases"][0]["relations"].as_array_mut().expect("relations") {
        if relation["name"] == "purchase" {
            relation["rows"] = json!(999);
        }
    }
    snapshot.write_manifest(&manifest);
    let target = server.reserve_database("miscounted");
    let failed = Request::into(&snapshot, &target).fail();
    assert_eq!(failed.refusal.reason, reasons::VERIFICATION_FAILED, "{failed:?}");
    assert!(failed.refusal.message.contains("1000 of 999"), "{failed:?}");
    assert!(!target.exists());
}

/// Between the first step and the last, sessions wait for as long as the rows take.
#[test]
fn a_server_that_ends_idle_sessions_and_long_transactions_is_restored_into() {
    let target_server = PostgresServer::with(17)
        .setting("idle_session_timeout", "700ms")
        .setting("idle_in_transaction_session_timeout", "700ms")
        .setting("transaction_timeout", "1500ms")
        .setting("statement_timeout", "1500ms")
        .start();
    let source = PostgresServer::shared(17).create_database("slow");
    source.psql(
        "CREATE TABLE slow (i int CHECK (pg_sleep(0.02) IS NOT NULL)); INSERT INTO slow SELECT generate_series(1, 150)",
    );
    let target = target_server.reserve_database("slow");
    Request::into(&Snapshot::of(&source), &target).succeed();
    source.content().assert_same(&target.content());
}

/// What holds the target's name may be cut by something between that forgets quiet connections.
#[test]
fn a_guard_that_was_cut_on_the_way_is_set_again_before_the_end() {
    let server = PostgresServer::start(16);
    let source = filled(&server);
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("quiet");
    let request = Request::into(&snapshot, &target);
    runtime().block_on(async {
        let (result, ()) = tokio::join!(request.run(), async {
            step_runs(&request, "data").await;
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' \
                AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = 'postgres' AND application_name LIKE 'pgrescue restore %')";
            assert_eq!(server.psql("postgres", sql), "1");
        });
        result.expect("it goes on");
    });
    source.content().assert_same(&target.content());
}

#[test]
fn a_target_without_room_is_said_to_be_full_and_is_emptied_again() {
    let server = PostgresServer::start(17);
    let source = filled(&server);
    let snapshot = Snapshot::of(&source);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let _disk = SmallDisk::mount(folder.path());
    let tablespace = folder.path().join("small");
    std::fs::create_dir(&tablespace).expect("the disk is ours");
    let sql = format!("CREATE TABLESPACE small LOCATION '{}'", tablespace.display());
    server.psql("postgres", &sql);
    let target = server.create_database_with("full", "TEMPLATE template0 TABLESPACE small");
    let failed = Request::into(&snapshot, &target).fail();
    assert_eq!(failed.refusal.reason, reasons::TARGET_FULL, "{failed:?}");
    assert_eq!(failed.step.as_deref(), Some("data"));
    assert!(failed.refusal.message.contains("emptied again"), "{failed:?}");
    assert_eq!(target.psql("SELECT count(*) FROM pg_class WHERE oid >= 16384"), "0");
}
