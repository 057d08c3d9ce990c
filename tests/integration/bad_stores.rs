//! Stores that fail, lie, slow down or change their mind while rows are stored as chunks or come back from them.

mod backups;
mod repositories;
mod restores;

use std::sync::{Arc, OnceLock};

use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass;
use pgrescue::plan::Refusal;
use pgrescue::plan::storage::StoragePlan;
use pgrescue::references::manifests::ManifestReferences;
use pgrescue::store::repository::{CheckLevel, check};
use pgrescue::store::{self, Store};
use serde_json::{Value, json};

use crate::backup::{self, in_bucket_of, s3, s3_keys};
use crate::parts::{Content, Database, FaultyProxy, PostgresServer, Request};

/// Rows of the source.
const ROWS: u64 = 4 * 320 + 900;

/// A database of which nobody changes anything: four tables whose chunks are objects of their own, and two that share
/// a pack.
fn source() -> &'static Database<'static> {
    static SOURCE: OnceLock<Database<'static>> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let source = PostgresServer::shared(17).create_database("of_bad_stores");
        for number in 0..4 {
            source.psql(&format!(
                "CREATE TABLE large_{number} AS SELECT i AS id, (SELECT string_agg(md5({number} || ' ' || i || ' ' || j), '') \
                     FROM generate_series(1, 400) j) AS filler FROM generate_series(1, 320) i"
            ));
        }
        source.psql(
            "CREATE TABLE small AS SELECT i AS id FROM generate_series(1, 450) i; \
             CREATE TABLE other AS SELECT -i AS id FROM generate_series(1, 450) i",
        );
        source
    })
}

fn content() -> &'static Content {
    static CONTENT: OnceLock<Content> = OnceLock::new();
    CONTENT.get_or_init(|| source().content())
}

/// A backup of the source with rows as chunks, into a bucket behind an endpoint.
fn backup_through(endpoint: &str, bucket: &str) -> backup::Request {
    backup_into(in_bucket_of(endpoint, bucket))
}

fn backup_into(storage: Value) -> backup::Request {
    let more = json!({"dataFormat": "Chunks", "parallelism": 2});
    backup::request(source(), storage, more)
}

/// A proxy before the S3 server of the backups.
fn proxy() -> FaultyProxy {
    FaultyProxy::start(s3().port)
}

/// Whether a chunk or a pack is written.
fn stores_rows(request: &Request) -> bool {
    request.method == "PUT" && is_of_rows(request)
}

/// Whether a chunk or a pack is read.
fn reads_rows(request: &Request) -> bool {
    request.method == "GET" && is_of_rows(request)
}

fn is_of_rows(request: &Request) -> bool {
    request.path().contains("/chunks/") || request.path().contains("/packs/")
}

fn is_temporary(refusal: &Refusal, reason: &str) {
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reason, FailureClass::Temporary),
        "{refusal:?}"
    );
}

fn is_permanent(refusal: &Refusal, reason: &str) {
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reason, FailureClass::Permanent),
        "{refusal:?}"
    );
}

/// No manifest: nothing counts as a backup.
fn holds_no_backup(bucket: &str) {
    let keys = s3().keys(bucket);
    assert!(keys.iter().all(|key| !key.ends_with("manifest.json")), "{keys:?}");
}

/// The store as pgrescue opens it, without any proxy.
async fn open(storage: &StoragePlan) -> Arc<dyn Store> {
    let mut references = ManifestReferences::default();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": s3_keys()});
    references.add(&secret).expect("a Secret");
    store::open(storage, &references).await.expect("it opens")
}

/// Every chunk of every backup is decoded and its rows are counted.
async fn is_whole(storage: &StoragePlan) {
    let report = check(&open(storage).await, CheckLevel::Rows, None)
        .await
        .expect("it can be checked");
    assert_eq!((report.snapshots, report.damages), (1, vec![]));
}

/// The reason of a store that fails for a while.
const FAILED: &str = reasons::STORE_FAILED;
