//! What a storage asks of every object: encryption, storage class, tags; and how many requests an object takes.

use std::collections::BTreeMap;

use pgrescue::api::storage::ServerSideEncryption;
use pgrescue::plan::storage::{ObjectsPlan, S3Plan};
use pgrescue::store::{self, Store};

use super::{BUCKET, PART, PREFIX, content, open_plan, s3_plan, server};
use crate::parts::{FaultyProxy, Request, S3Server};

/// One object of every kind, some of them of several parts.
async fn write_everything(store: &dyn Store) {
    store.check_access(true).await.unwrap();
    for (key, size) in [
        ("pgrescue.json", 100),
        ("locks/x.json", 100),
        ("condemned/x.json", PART + 1),
        ("chunks/aa/small", 1000),
        ("chunks/aa/large", PART + 1),
        ("packs/aa/x", PART),
        ("snapshots/1/globals.sql", 100),
        ("snapshots/1/shop/pre-data.sql", PART + 1),
        ("snapshots/1/shop/archive.dump", 2 * PART + 1),
        ("snapshots/2/shop/archive.dump", 1000),
        ("snapshots/1/manifest.json", 1000),
    ] {
        store::put(store, key, content(size)).await.unwrap();
    }
}

/// The requests that make an object, and the options that are theirs alone.
fn makes_an_object(request: &Request) -> bool {
    (request.method == "PUT" && !request.target.contains("partNumber="))
        || (request.method == "POST" && request.target.contains("uploads") && !request.target.contains("uploadId="))
}

const HEADERS: [&str; 6] = [
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
];

#[tokio::test]
async fn every_object_is_made_with_what_the_storage_asks_for() {
    let server = server();
    let proxy = FaultyProxy::start(server.port);
    let key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let plan = S3Plan {
        objects: ObjectsPlan {
            sse: Some(ServerSideEncryption::AwsKms),
            kms_key_id: Some(key.into()),
            storage_class: Some("STANDARD_IA".into()),
            tags: [("team", "a b/ü"), ("cost+centre", "")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            object_lock: None,
        },
        ..s3_plan(&proxy.endpoint)
    };
    let store = open_plan(plan).await.unwrap();
    write_everything(&*store).await;
    let requests = proxy.requests();
    let making: Vec<_> = requests.iter().filter(|request| makes_an_object(request)).collect();
    assert_eq!(making.len(), 12, "eleven objects and the check of access: {making:?}");
    for request in &making {
        let of_rows = ["/chunks/", "/packs/", "archive.dump", "/access"];
        let class = of_rows
            .iter()
            .any(|part| request.path().contains(part))
            .then_some("STANDARD_IA");
        let found = HEADERS.map(|name| request.header(name));
        let tags = Some("cost%2Bcentre=&team=a%20b%2F%C3%BC");
        assert_eq!(
            found,
            [Some("aws:kms"), Some(key), class, tags, None, None],
            "{request:?}"
        );
    }
    for request in requests.iter().filter(|request| !makes_an_object(request)) {
        assert_eq!(HEADERS.map(|name| request.header(name)), [None; 6], "{request:?}");
    }
    // The server understands the tags.
    let client = S3Server::client(&server.endpoint);
    for key in ["chunks/aa/small", "chunks/aa/large", "locks/x.json"] {
        let request = client
            .get_object_tagging()
            .bucket(BUCKET)
            .key(format!("{PREFIX}/{key}"));
        let found = request.send().await.unwrap();
        let found: BTreeMap<_, _> = found.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
        assert_eq!(found, BTreeMap::from([("team", "a b/ü"), ("cost+centre", "")]), "{key}");
    }
}

#[tokio::test]
async fn where_nothing_is_asked_for_the_bucket_decides() {
    let server = server();
    let proxy = FaultyProxy::start(server.port);
    let store = open_plan(s3_plan(&proxy.endpoint)).await.unwrap();
    write_everything(&*store).await;
    for request in proxy.requests() {
        assert_eq!(HEADERS.map(|name| request.header(name)), [None; 6], "{request:?}");
    }
}

#[tokio::test]
async fn only_what_is_larger_than_a_part_takes_more_than_one_request() {
    let server = server();
    let proxy = FaultyProxy::start(server.port);
    let store = open_plan(s3_plan(&proxy.endpoint)).await.unwrap();
    store.list("").await.unwrap();
    for (size, expected) in [(0, 1), (PART, 1), (PART + 1, 4)] {
        let before = proxy.requests().len();
        store::put(&*store, "object", content(size)).await.unwrap();
        let requests = proxy.requests().split_off(before);
        assert_eq!(requests.len(), expected, "{size}: {requests:?}");
        for request in requests.iter().filter(|request| request.method == "PUT") {
            assert!(request.header("x-amz-checksum-crc32").is_some(), "{request:?}");
        }
    }
}
