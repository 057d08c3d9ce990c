//! Servers, stores and runs that end in the middle: no manifest, no lock, and the reason.

use std::time::Duration;

use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass;
use serde_json::json;

use super::{chunks, load_ranges};
use crate::backup::slow_store::{SlowStore, assert_no_orphan_parts};
use crate::backup::{request, request_as, s3};
use crate::parts::{PASSWORD, PostgresServer, SUPERUSER, Toxiproxy};

/// Chunks may stay: the next backup uses them, or a prune takes them.
async fn assert_no_backup_is_left(bucket: &str) {
    let keys = s3().keys(bucket);
    assert!(
        keys.iter()
            .all(|key| !key.contains("/snapshots/") && !key.contains("/locks/")),
        "{keys:?}"
    );
    assert_no_orphan_parts(bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_fails_the_backup_of_chunks_as_temporary() {
    let server = PostgresServer::start(17);
    let source = server.create_database("killed");
    load_ranges(&source, "big", 40);
    let toxiproxy = Toxiproxy::start();
    let store = SlowStore::behind(&toxiproxy);
    let request = request(&source, store.storage(), chunks(json!({})));
    let ended = store.with_fault(&request, || server.signal("KILL")).await;
    ended.assert_server_gone();
    assert_no_backup_is_left(&store.bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_fail_the_backup_of_chunks_and_the_next_attempt_stores_the_rest() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("cut");
    load_ranges(&source, "big", 40);
    let toxiproxy = Toxiproxy::start();
    let proxy = toxiproxy.proxy(server.port);
    let store = SlowStore::behind(&toxiproxy);
    let more = chunks(json!({"parallelism": 2}));
    let proxied = request_as(SUPERUSER, PASSWORD, proxy.port, &source.name, store.storage(), more);
    let ended = store.with_fault(&proxied, || proxy.toggle()).await;
    ended.assert_server_gone();
    assert_no_backup_is_left(&store.bucket).await;
    proxy.toggle();
    let artifact = proxied.again().run().await.artifact().clone();
    assert_eq!(artifact.rows, 40 * 512 * 4 + 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_session_is_ended_fails_the_backup_as_temporary() {
    let source = PostgresServer::shared(15).create_database("ended");
    load_ranges(&source, "big", 40);
    let toxiproxy = Toxiproxy::start();
    let store = SlowStore::behind(&toxiproxy);
    let request = request(&source, store.storage(), chunks(json!({"parallelism": 1})));
    let end = || {
        // Between two of its statements there is nothing to end.
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE datname = current_database() AND query LIKE '%COPY %' AND state = 'active' AND pid <> pg_backend_pid()";
        let until = std::time::Instant::now() + Duration::from_mins(1);
        while source.psql(sql) == "0" {
            assert!(std::time::Instant::now() < until, "a worker copies");
        }
    };
    let ended = store.with_fault(&request, end).await;
    ended.assert_connection_lost();
    assert_no_backup_is_left(&store.bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_leaves_no_manifest_beside_the_chunks() {
    let source = PostgresServer::shared(18).create_database("away");
    load_ranges(&source, "big", 40);
    let toxiproxy = Toxiproxy::start();
    let store = SlowStore::behind(&toxiproxy);
    let request = request(&source, store.storage(), chunks(json!({})));
    let ended = store.with_fault(&request, || store.proxy.toggle()).await;
    assert_eq!(ended.refusal().class, FailureClass::Temporary, "{:?}", ended.refusal());
    assert!(
        s3().keys(&store.bucket)
            .iter()
            .all(|key| !key.ends_with("manifest.json"))
    );
    store.proxy.toggle();
    assert_eq!(request.again().run().await.artifact().rows, 40 * 512 * 4 + 100);
    assert_no_orphan_parts(&store.bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_told_to_stop_leaves_no_lock_on_the_server_or_in_the_repository() {
    let source = PostgresServer::shared(14).create_database("stopped");
    load_ranges(&source, "big", 40);
    let toxiproxy = Toxiproxy::start();
    let store = SlowStore::behind(&toxiproxy);
    let request = request(&source, store.storage(), chunks(json!({})));
    let ended = store.with_fault(&request, || request.context.stop.cancel()).await;
    let refusal = ended.refusal();
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::INTERRUPTED, FailureClass::Interrupted)
    );
    assert_no_backup_is_left(&store.bucket).await;
    let locks = "SELECT count(*) FROM pg_locks WHERE relation = 'big'::regclass";
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while source.psql(locks) != "0" {
        assert!(std::time::Instant::now() < until, "a session still has its lock");
    }
    assert_eq!(request.again().run().await.artifact().rows, 40 * 512 * 4 + 100);
}
