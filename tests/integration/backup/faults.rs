//! Servers and stores that fail in the middle: no manifest, no orphan part, and the reason.

use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass;
use serde_json::json;

use super::slow_store::{SlowStore, assert_no_orphan_parts};
use super::{in_bucket, new_bucket, request, request_as, s3};
use crate::parts::{Database, PASSWORD, PostgresServer, SUPERUSER, Toxiproxy};

/// Rows enough that a dump is under way for a while and an upload has several parts.
fn load_much(database: &Database<'_>) {
    database.psql(
        "CREATE TABLE much AS SELECT i, (SELECT string_agg(md5(i || '/' || j), '') FROM generate_series(1, 30) j) AS body \
         FROM generate_series(1, 60000) i",
    );
}

async fn assert_nothing_left(bucket: &str) {
    assert_eq!(s3().keys(bucket), Vec::<String>::new());
    assert_no_orphan_parts(bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_fails_the_backup_as_temporary() {
    let server = PostgresServer::start(17);
    let source = server.create_database("killed");
    load_much(&source);
    let toxiproxy = Toxiproxy::start();
    let store = SlowStore::behind(&toxiproxy);
    let request = request(&source, store.storage(), json!({}));
    let ended = store.with_fault_while_slow(&request, || server.signal("KILL")).await;
    ended.assert_server_gone();
    assert_nothing_left(&store.bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_fails_the_backup_as_temporary() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("cut");
    load_much(&source);
    let toxiproxy = Toxiproxy::start();
    let proxy = toxiproxy.proxy(server.port);
    let store = SlowStore::behind(&toxiproxy);
    let proxied = request_as(
        SUPERUSER,
        PASSWORD,
        proxy.port,
        &source.name,
        store.storage(),
        json!({}),
    );
    let ended = store.with_fault_while_slow(&proxied, || proxy.toggle()).await;
    ended.assert_server_gone();
    assert_nothing_left(&store.bucket).await;
    proxy.toggle();
    assert_eq!(proxied.again().run().await.artifact().rows, 60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_pg_dump_that_is_ended_fails_the_backup_as_temporary() {
    let server = PostgresServer::shared(15);
    let source = server.create_database("ended");
    load_much(&source);
    let toxiproxy = Toxiproxy::start();
    let store = SlowStore::behind(&toxiproxy);
    let end = || {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND query LIKE 'COPY %'";
        assert_eq!(source.psql(sql), "t");
    };
    let ended = store
        .with_fault(&request(&source, store.storage(), json!({})), end)
        .await;
    let refusal = ended.refusal();
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::DUMP_FAILED, FailureClass::Temporary),
        "{refusal:?}"
    );
    assert_nothing_left(&store.bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_that_is_ended_fails_the_backup_as_temporary() {
    let server = PostgresServer::shared(18);
    let source = server.create_database("exporter");
    load_much(&source);
    let toxiproxy = Toxiproxy::start();
    let store = SlowStore::behind(&toxiproxy);
    let end = || {
        // Its transaction is the oldest of the clients'. It may be at one of its looks at the server, so not idle.
        let ended = source.psql(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity \
             WHERE datname = current_database() AND backend_type = 'client backend' \
             AND pid <> pg_backend_pid() AND xact_start IS NOT NULL \
             ORDER BY xact_start LIMIT 1) AS exporter",
        );
        assert_eq!(ended, "t");
    };
    let ended = store
        .with_fault_while_slow(&request(&source, store.storage(), json!({})), end)
        .await;
    ended.assert_connection_lost();
    assert_nothing_left(&store.bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_fails_the_backup_without_a_manifest() {
    let source = PostgresServer::shared(17).create_database("away");
    load_much(&source);
    let toxiproxy = Toxiproxy::start();
    let store = SlowStore::behind(&toxiproxy);
    let request = request(&source, store.storage(), json!({}));
    let ended = store.with_fault(&request, || store.proxy.toggle()).await;
    assert_eq!(ended.refusal().class, FailureClass::Temporary, "{:?}", ended.refusal());
    assert!(
        s3().keys(&store.bucket)
            .iter()
            .all(|key| !key.ends_with("manifest.json"))
    );
    // The next attempt, with the store back, removes what could not be removed.
    store.proxy.toggle();
    request.again().run().await.artifact();
    assert_no_orphan_parts(&store.bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_change_that_holds_its_lock_is_named() {
    let source = PostgresServer::shared(14).create_database("locked");
    source.load_plain();
    let bucket = new_bucket();
    let other = source.server.connect(&source.name).await;
    other
        .batch_execute("SET application_name = 'migration'; BEGIN; ALTER TABLE purchase ADD COLUMN note text")
        .await
        .expect("altered");
    let request = request(&source, in_bucket(&bucket), json!({}));
    let ended = request.run().await;
    let refusal = ended.refusal();
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::DEFINITIONS_CHANGED, FailureClass::Temporary),
        "{refusal:?}"
    );
    assert!(
        refusal.message.contains("migration") && refusal.message.contains("purchase"),
        "{refusal:?}"
    );
    assert_nothing_left(&bucket).await;
    other.batch_execute("COMMIT").await.expect("committed");
    assert_eq!(request.again().run().await.artifact().rows, 1100);
}
