//! Slow, cut and broken connections; damage in the store; uploads that are given up.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::TryStreamExt;
use pgrescue::store::error::Change;
use pgrescue::store::{self, StoreError};
use sha2::{Digest, Sha256};

use super::{BUCKET, PART, PREFIX, assert_describes, content, open, read, server, unfinished_uploads};
use crate::parts::{S3Server, Toxiproxy};

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The server takes its entry of an upload away a moment after the parts.
async fn until_no_upload_is_unfinished(server: &S3Server) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while unfinished_uploads(server).await > 0 {
        assert!(Instant::now() < deadline, "an upload was left unfinished");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_upload_survives_connections_that_are_cut() {
    let (server, toxiproxy) = (server(), Toxiproxy::start());
    let proxy = toxiproxy.proxy(server.port);
    let store = open(&format!("http://127.0.0.1:{}", proxy.port)).await;
    store.check_access(true).await.unwrap();

    // Every connection dies after one and a half parts, so no part but the first of each gets through.
    proxy.add_toxic("limit_data", &[&format!("bytes={}", PART * 3 / 2)], true);
    let content = content(5 * PART + 99);
    let stored = store::put(&*store, "archive", content.clone()).await.unwrap();
    assert_describes(&stored, "archive", &content);
    assert!(server.object(BUCKET, &format!("{PREFIX}/archive")) == content);
    assert_eq!(unfinished_uploads(&server).await, 0);
    assert_eq!(server.orphan_parts(BUCKET).len(), 0);
}

#[tokio::test]
async fn an_upload_outlives_a_store_that_is_away_for_a_moment() {
    let (server, toxiproxy) = (server(), Toxiproxy::start());
    let proxy = toxiproxy.proxy(server.port);
    let store = open(&format!("http://127.0.0.1:{}", proxy.port)).await;
    let content = content(4 * PART);
    let mut upload = store.create("archive").await.unwrap();
    upload.write(content.slice(..2 * PART)).await.unwrap();
    proxy.toggle();
    let back = async {
        tokio::time::sleep(Duration::from_secs(2)).await; // how long the store is away
        proxy.toggle();
    };
    let (written, ()) = tokio::join!(upload.write(content.slice(2 * PART..)), back);
    written.unwrap();
    upload.finish().await.unwrap();
    assert!(server.object(BUCKET, &format!("{PREFIX}/archive")) == content);
}

#[tokio::test]
async fn reading_goes_on_from_the_byte_where_the_connection_was_cut() {
    let (server, toxiproxy) = (server(), Toxiproxy::start());
    let proxy = toxiproxy.proxy(server.port);
    let content = content(2 * PART + 77);
    let direct = open(&server.endpoint).await;
    store::put(&*direct, "archive", content.clone()).await.unwrap();

    let store = open(&format!("http://127.0.0.1:{}", proxy.port)).await;
    proxy.add_toxic("limit_data", &["bytes=3000000"], false);
    assert!(read(&*store, "archive").await.unwrap() == content);
    let part = store.read("archive", Some(1000..10_000_000)).await.unwrap();
    let part: Vec<_> = part.try_collect().await.unwrap();
    assert!(part.concat() == content[1000..10_000_000]);
}

#[tokio::test]
async fn reading_never_goes_on_in_another_version() {
    let (server, toxiproxy) = (server(), Toxiproxy::start());
    let proxy = toxiproxy.proxy(server.port);
    let direct = open(&server.endpoint).await;
    store::put(&*direct, "archive", content(PART)).await.unwrap();

    let store = open(&format!("http://127.0.0.1:{}", proxy.port)).await;
    proxy.add_toxic("limit_data", &["bytes=3000000"], false);
    let mut stream = store.read("archive", None).await.unwrap();
    stream.try_next().await.unwrap().expect("bytes arrive");
    let other: bytes::Bytes = content(PART).iter().map(|byte| !byte).collect();
    store::put(&*direct, "archive", other).await.unwrap();
    let error = loop {
        match stream.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("two versions were read as one"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error,
            StoreError::ObjectChanged {
                change: Change::Replaced,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn an_object_damaged_on_the_disk_of_the_store_is_noticed() {
    let server = server();
    let store = open(&server.endpoint).await;
    for size in [1000, PART + 1000] {
        let stored = store::put(&*store, "archive", content(size)).await.unwrap();
        let path = server.bucket_folder(BUCKET).join(PREFIX).join("archive");
        let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, b"damaged").unwrap();
        let error = read(&*store, "archive").await.unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::ObjectChanged {
                    change: Change::Checksum,
                    ..
                }
            ),
            "{size}: {error}"
        );
        // Also where only a part is read, which the store's checksum does not cover, and where the store has none.
        let part = store.read("archive", Some(0..stored.size)).await.unwrap();
        let error = store::verified(part, &stored)
            .try_collect::<Vec<_>>()
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::ObjectChanged { .. }), "{size}: {error}");
    }
}

#[tokio::test]
async fn a_store_without_tls_holds_an_object_against_the_hash_that_is_known_of_it() {
    let server = server();
    let store = open(&server.endpoint).await;
    let hash_of_another = hex::encode(Sha256::digest(b"another"));
    let content = content(1000);
    let error = store::put_hashed(&*store, "hashed", content, &hash_of_another)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::DamagedOnTheWay { .. }), "{error}");
    assert_eq!(store.stat("hashed").await.unwrap().map(|object| object.size), None);
}

#[tokio::test]
async fn the_store_keeps_a_checksum_of_the_whole_object() {
    let server = server();
    let store = open(&server.endpoint).await;
    for size in [0, 1000, 2 * PART + 1] {
        store::put(&*store, "archive", content(size)).await.unwrap();
        let head = S3Server::client(&server.endpoint)
            .head_object()
            .bucket(BUCKET)
            .key(format!("{PREFIX}/archive"))
            .checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled)
            .send()
            .await
            .unwrap();
        let expected = BASE64.encode(crc32fast::hash(&content(size)).to_be_bytes());
        assert_eq!(head.checksum_crc32(), Some(expected.as_str()), "{size}");
        assert_eq!(
            head.checksum_type(),
            Some(&aws_sdk_s3::types::ChecksumType::FullObject),
            "{size}"
        );
    }
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_no_parts() {
    let server = server();
    let store = open(&server.endpoint).await;
    let mut upload = store.create("archive").await.unwrap();
    upload.write(content(3 * PART)).await.unwrap();
    assert_eq!(unfinished_uploads(&server).await, 1);
    drop(upload);
    until("the parts are gone", || server.orphan_parts(BUCKET).is_empty()).await;
    until_no_upload_is_unfinished(&server).await;
}

#[tokio::test]
async fn an_upload_that_is_aborted_with_parts_in_flight_leaves_none() {
    let (server, toxiproxy) = (server(), Toxiproxy::start());
    let proxy = toxiproxy.proxy(server.port);
    let store = open(&format!("http://127.0.0.1:{}", proxy.port)).await;
    let mut upload = store.create("archive").await.unwrap();
    upload.write(content(PART + 1)).await.unwrap();
    proxy.add_toxic("bandwidth", &["rate=2000"], true); // kilobytes a second: a part takes four seconds
    upload.write(content(2 * PART)).await.unwrap();
    upload.abort().await.unwrap();
    until_no_upload_is_unfinished(&server).await;
    assert_eq!(server.orphan_parts(BUCKET).len(), 0);
    assert!(server.keys(BUCKET).is_empty());
}
