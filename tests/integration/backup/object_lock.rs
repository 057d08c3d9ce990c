//! Backups that nobody can delete for a while, on a store that keeps no versions and on one that does.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use pgrescue::agent::backup::delete_artifact;
use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass;
use pgrescue::plan::report::Failed;
use pgrescue::store;
use pgrescue::store::repository::{PruneOptions, PruneReport, Repository};
use serde_json::{Value, json};

use super::{Request, in_bucket_of, request, s3};
use crate::parts::{Database, Fault, FaultyProxy, PostgresServer, S3Server};

const BUCKET: &str = "locked";

fn storage(endpoint: &str, bucket: &str, mode: &str, days: u32) -> Value {
    let mut storage = in_bucket_of(endpoint, bucket);
    storage["s3"]["objectLock"] = json!({"mode": mode, "retainDays": days});
    storage
}

/// When a backup of this moment is free again.
fn until(days: i64) -> Timestamp {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).start_of_day().expect("a day");
    today.checked_add((days + 1).days()).expect("a day").timestamp()
}

/// One large chunk, and small ones in a pack.
fn source(server: &'static PostgresServer) -> Database<'static> {
    let source = server.create_database("of_lock");
    source.psql(
        "CREATE TABLE large AS SELECT i AS id, (SELECT string_agg(md5(i || ' ' || j), '') \
             FROM generate_series(1, 400) j) AS filler FROM generate_series(1, 320) i; \
         CREATE TABLE small AS SELECT i AS id FROM generate_series(1, 450) i",
    );
    source
}

fn chunked(source: &Database<'_>, storage: Value) -> Request {
    request(source, storage, json!({"dataFormat": "Chunks"}))
}

/// Until when each object is locked, by key without the prefix.
async fn locks(server: &S3Server) -> Vec<(String, Option<Timestamp>)> {
    let client = S3Server::client(&server.endpoint);
    let mut locks = Vec::new();
    for key in server.keys(BUCKET) {
        let head = client
            .head_object()
            .bucket(BUCKET)
            .key(&key)
            .send()
            .await
            .expect("it is there");
        let until = head.object_lock_retain_until_date();
        let until = until.map(|until| Timestamp::from_second(until.secs()).expect("a time"));
        locks.push((key.trim_start_matches("team/a/").to_owned(), until));
    }
    locks
}

fn is_locked(failed: &Failed, until: Timestamp) {
    let refusal = &failed.refusal;
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::OBJECT_LOCKED, FailureClass::Permanent),
        "{refusal:?}"
    );
    assert!(refusal.message.contains(&until.to_string()), "{refusal:?}");
}

async fn prune(request: &Request) -> PruneReport {
    let store = store::open(&request.plan.storage, request.context.references.as_ref()).await;
    let repository = Repository::open(store.expect("it opens")).await.expect("a repository");
    let options = PruneOptions {
        grace: Duration::ZERO,
        now: Timestamp::now(),
        silence: Duration::ZERO,
        dry_run: false,
    };
    repository.prune(&options).await.expect("it prunes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_object_lock_gets_no_backup_that_asks_for_it() {
    let source = source(PostgresServer::shared(16));
    let bucket = super::new_bucket();
    for more in [json!({"dryRun": true}), json!({}), json!({"dataFormat": "Chunks"})] {
        let request = request(&source, storage(&s3().endpoint, &bucket, "Compliance", 30), more);
        let ended = request.run().await;
        let refusal = ended.refusal();
        assert_eq!(refusal.reason, reasons::OBJECT_LOCK_MISSING, "{refusal:?}");
        assert_eq!(refusal.class, FailureClass::Permanent);
    }
    assert_eq!(s3().keys(&bucket), [""; 0]);
    assert_eq!(s3().orphan_parts(&bucket).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_backup_is_locked_and_a_later_backup_locks_what_it_shares_for_longer() {
    let server = S3Server::start();
    server.create_locked_bucket(BUCKET).await;
    let proxy = FaultyProxy::start(server.port);
    let source = source(PostgresServer::shared(17));
    let retentions = || {
        proxy
            .requests()
            .iter()
            .filter(|request| request.is("PUT", "?retention"))
            .count()
    };
    let backup = async |mode: &str, days: u32| {
        let before = retentions();
        let request = chunked(&source, storage(&proxy.endpoint, BUCKET, mode, days));
        request.run().await.artifact();
        (request, retentions() - before)
    };
    let (first, requests) = backup("Governance", 30).await;
    let all = locks(&server).await;
    assert!(all.iter().all(|(_, locked)| *locked == Some(until(30))), "{all:?}");
    // A chunk, a pack and pgrescue.json; archive, definitions and roles. The manifest is born with its lock.
    assert_eq!((all.len(), requests), (7, 6), "{all:?}");
    let objects = super::Objects(server.bucket_folder(BUCKET).join("team/a"));
    let lock = objects.manifest(&first.snapshot()).object_lock.expect("it says so");
    assert_eq!(lock.until, until(30));

    // As long: what is shared needs nothing. Longer: all of it does. Shorter: nothing is made shorter.
    let shared = |all: Vec<(String, Option<Timestamp>)>| {
        let shared = |key: &String| key.starts_with("chunks/") || key.starts_with("packs/") || key == "pgrescue.json";
        all.into_iter()
            .filter(|(key, _)| shared(key))
            .map(|(_, locked)| locked)
            .collect::<Vec<_>>()
    };
    assert_eq!(backup("Governance", 30).await.1, 3);
    assert_eq!(shared(locks(&server).await), [Some(until(30)); 3]);
    assert_eq!(backup("Governance", 60).await.1, 6);
    assert_eq!(shared(locks(&server).await), [Some(until(60)); 3]);
    let (short, requests) = backup("Governance", 10).await;
    assert_eq!(requests, 3);
    assert_eq!(shared(locks(&server).await), [Some(until(60)); 3]);
    let own = locks(&server)
        .await
        .into_iter()
        .filter(|(key, _)| key.contains(&short.snapshot()));
    assert!(own.clone().count() == 4 && own.into_iter().all(|(_, locked)| locked == Some(until(10))));
    assert!(server.keys(BUCKET).iter().all(|key| !key.contains("/locks/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_leaves_nothing_locked() {
    let server = S3Server::start();
    server.create_locked_bucket(BUCKET).await;
    let proxy = FaultyProxy::start(server.port);
    let source = source(PostgresServer::shared(15));
    proxy.always(Fault::Answer(403, "AccessDenied"), |request| {
        request.is("PUT", "globals.sql")
    });
    let request = chunked(&source, storage(&proxy.endpoint, BUCKET, "Compliance", 30));
    assert_eq!(request.run().await.refusal().reason, reasons::STORE_ACCESS_DENIED);
    let left = locks(&server).await;
    assert!(
        left.iter()
            .all(|(key, until)| until.is_none() && !key.starts_with("snapshots/")),
        "{left:?}"
    );
    proxy.heal();
    request.again().run().await.artifact();
    // Rights are asked for before rows are read.
    proxy.always(Fault::Answer(403, "AccessDenied"), |request| {
        request.header("x-amz-object-lock-mode").is_some()
    });
    let request = chunked(&source, storage(&proxy.endpoint, BUCKET, "Compliance", 30));
    let ended = request.run().await;
    assert_eq!(ended.refusal().reason, reasons::STORE_ACCESS_DENIED);
    assert!(ended.status.resolved.is_none(), "{:?}", ended.status.resolved);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_backup_is_not_deleted_and_a_prune_leaves_locked_chunks_for_later() {
    let server = S3Server::start();
    server.create_locked_bucket(BUCKET).await;
    let source = source(PostgresServer::shared(17));
    let request = chunked(&source, storage(&server.endpoint, BUCKET, "Governance", 3));
    request.run().await.artifact();
    let before = server.keys(BUCKET);
    let failed = delete_artifact(&request.delete_plan(), &request.context)
        .await
        .expect_err("it is locked");
    is_locked(&failed, until(3));
    assert_eq!(server.keys(BUCKET), before, "nothing was deleted");

    // Whoever owns the server can still lose the manifest; the chunks are locked all the same.
    std::fs::remove_dir_all(server.bucket_folder(BUCKET).join("team/a/snapshots")).expect("it is there");
    for condemned in [2, 0] {
        let report = prune(&request).await;
        assert_eq!(
            (report.condemned, report.locked, report.deleted),
            (condemned, 2, 0),
            "{report:?}"
        );
    }
    let client = S3Server::client(&server.endpoint);
    let of_rows = |key: &String| key.contains("/chunks/") || key.contains("/packs/");
    for key in server.keys(BUCKET).into_iter().filter(of_rows) {
        // This server lets a retention be made shorter.
        let soon = Timestamp::now() + Duration::from_secs(2);
        let retention = aws_sdk_s3::types::ObjectLockRetention::builder()
            .mode(aws_sdk_s3::types::ObjectLockRetentionMode::Governance)
            .retain_until_date(aws_sdk_s3::primitives::DateTime::from_secs(soon.as_second()))
            .build();
        let put = client
            .put_object_retention()
            .bucket(BUCKET)
            .key(key)
            .retention(retention);
        put.send().await.expect("it is made shorter");
    }
    // The two need not end in the same second: a prune may find one of them locked.
    let mut deleted = 0;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let report = prune(&request).await;
        deleted += report.deleted;
        assert_eq!(deleted + report.locked, 2, "{report:?}");
        if deleted == 2 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{report:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_bucket_keeps_versions_a_deletion_says_until_when_they_stay() {
    let server = S3Server::start_with_versions();
    server.create_locked_bucket(BUCKET).await;
    let source = source(PostgresServer::shared(18));
    let request = chunked(&source, storage(&server.endpoint, BUCKET, "Compliance", 3));
    request.run().await.artifact();
    let done = delete_artifact(&request.delete_plan(), &request.context)
        .await
        .expect("deleted");
    assert!(
        done.message.contains(&format!("locked until {}", until(3))),
        "{}",
        done.message
    );
    let report = prune(&request).await;
    assert_eq!((report.deleted, report.locked), (2, 0), "{report:?}");
    // The versions are there, and nobody can delete them.
    let client = S3Server::client(&server.endpoint);
    let listed = client
        .list_object_versions()
        .bucket(BUCKET)
        .send()
        .await
        .expect("it lists");
    let locked: Vec<_> = listed
        .versions()
        .iter()
        .filter(|version| !version.key().unwrap_or_default().contains("/locks/"))
        .filter(|version| !version.key().unwrap_or_default().contains("/condemned/"))
        .collect();
    assert!(locked.len() >= 7, "{locked:?}");
    for version in locked {
        let delete = client.delete_object().bucket(BUCKET);
        let delete = delete
            .set_key(version.key.clone())
            .set_version_id(version.version_id.clone());
        delete.send().await.expect_err("it is locked");
    }
    // A new backup stores what was deleted again.
    let again = chunked(&source, storage(&server.endpoint, BUCKET, "Compliance", 3));
    assert_eq!(again.run().await.artifact().rows, 770);
}
