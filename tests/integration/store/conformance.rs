//! What every store does alike.

use std::future::Future;
use std::path::Path;

use bytes::Bytes;
use futures::TryStreamExt;
use pgrescue::plan::storage::StoragePlan;
use pgrescue::store::{self, Store, StoreError};
use sha2::{Digest, Sha256};

use super::{PART, PREFIX, assert_describes, content, good_secret, open, read, server};

/// Runs a test over a bucket and over a folder, each empty.
async fn over_every_store<F: Future<Output = ()>>(test: impl Fn(std::sync::Arc<dyn Store>) -> F) {
    let server = server();
    test(open(&server.endpoint).await).await;

    let folder = tempfile::tempdir().expect("a temporary folder");
    test(open_folder(&folder.path().join("made/by the store")).await).await;
}

async fn open_folder(path: &Path) -> std::sync::Arc<dyn Store> {
    let plan = StoragePlan::Folder {
        path: path.display().to_string(),
    };
    store::open(&plan, &good_secret()).await.expect("a folder opens")
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let objects = store.list(prefix).await.expect("the store lists");
    objects.into_iter().map(|object| object.key).collect()
}

#[tokio::test]
async fn what_was_written_is_read_back() {
    over_every_store(async |store| {
        let sizes = [0, 1, PART - 1, PART, PART + 1, 3 * PART + 5];
        for size in sizes {
            let (key, content) = (format!("objects/{size}"), content(size));
            let mut upload = store.create(&key).await.unwrap();
            for chunk in content.chunks(1_234_567) {
                upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            assert_describes(&upload.finish().await.unwrap(), &key, &content);
            assert_eq!(store.stat(&key).await.unwrap().unwrap().size, size as u64);
            assert!(read(&*store, &key).await.unwrap() == content, "{size}");
        }
    })
    .await;
}

#[tokio::test]
async fn bytes_may_come_in_chunks_of_any_size() {
    over_every_store(async |store| {
        let content = content(2 * PART + 7);
        let stored = store::put(&*store, "one", content.clone()).await.unwrap();
        assert_describes(&stored, "one", &content);
        assert!(read(&*store, "one").await.unwrap() == content);

        let mut upload = store.create("other").await.unwrap();
        for size in [0, 1, PART, 0, 3] {
            upload.write(content.slice(..size)).await.unwrap();
        }
        let expected = [&content[..1], &content[..PART], &content[..3]].concat();
        assert_describes(&upload.finish().await.unwrap(), "other", &expected);
        assert!(read(&*store, "other").await.unwrap() == expected);
    })
    .await;
}

#[tokio::test]
async fn an_object_whose_hash_is_known_is_stored_as_any_other() {
    over_every_store(async |store| {
        for size in [0, 10, 2 * PART + 1] {
            let content = content(size);
            let sha256 = hex::encode(Sha256::digest(&content));
            let stored = store::put_hashed(&*store, "hashed", content.clone(), &sha256)
                .await
                .unwrap();
            assert_describes(&stored, "hashed", &content);
            assert!(read(&*store, "hashed").await.unwrap() == content, "{size}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_object_is_seen_whole_or_not_at_all() {
    over_every_store(async |store| {
        for size in [10, 2 * PART + 1] {
            store::put(&*store, "a/old", Bytes::from_static(b"old")).await.unwrap();
            let mut new = store.create("a/new").await.unwrap();
            let mut old = store.create("a/old").await.unwrap();
            for upload in [&mut new, &mut old] {
                upload.write(content(size)).await.unwrap();
            }
            assert_eq!(keys(&*store, "").await, ["a/old"]);
            assert!(store.stat("a/new").await.unwrap().is_none());
            assert_eq!(read(&*store, "a/old").await.unwrap(), b"old");
            new.abort().await.unwrap();
            assert_eq!(keys(&*store, "").await, ["a/old"]);
            old.finish().await.unwrap();
            assert!(read(&*store, "a/old").await.unwrap() == content(size));
            assert_eq!(store.abort_uploads("").await.unwrap(), 0, "nothing is left");
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_object_never_overwrites() {
    over_every_store(async |store| {
        for size in [10, PART + 1] {
            let key = format!("snapshots/{size}/manifest.json");
            let mut first = store.create_new(&key).await.unwrap();
            let mut second = store.create_new(&key).await.unwrap();
            first.write(content(size)).await.unwrap();
            second.write(content(size + 1)).await.unwrap();
            first.finish().await.unwrap();
            let error = second.finish().await.unwrap_err();
            assert!(matches!(error, StoreError::ObjectExists { .. }), "{error}");
            assert!(read(&*store, &key).await.unwrap() == content(size));
            assert_eq!(store.abort_uploads("").await.unwrap(), 0, "nothing is left");
        }
        let error = store::put_new(&*store, "snapshots/10/manifest.json", Bytes::new()).await;
        assert!(matches!(error, Err(StoreError::ObjectExists { .. })));
    })
    .await;
}

#[tokio::test]
async fn ranges_are_read_exactly() {
    over_every_store(async |store| {
        let content = content(PART + 100);
        store::put(&*store, "a b/ü%2F+&=", content.clone()).await.unwrap();
        let end = content.len() as u64;
        for range in [0..1, 5..5, 10..20, end - 1..end, end..end, 0..end, 7..end - 7] {
            let stream = store.read("a b/ü%2F+&=", Some(range.clone())).await.unwrap();
            let parts: Vec<Bytes> = stream.try_collect().await.unwrap();
            let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
            assert!(parts.concat() == content[start.unwrap()..end.unwrap()], "{range:?}");
        }
        for range in [end - 1..end + 1, end..end + 1, end + 1..end + 1, end + 5..end + 9] {
            let error = store.read("a b/ü%2F+&=", Some(range.clone())).await.err();
            assert!(
                matches!(error, Some(StoreError::RangeOutside { .. })),
                "{range:?}: {error:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn listing_goes_by_prefix_and_in_the_order_of_keys() {
    over_every_store(async |store| {
        assert!(keys(&*store, "").await.is_empty());
        let all = ["a.b", "a/b d", "a/c/x", "a/c/y", "ab/x", "b/%2E", "b/ü"];
        for key in all.iter().rev() {
            store::put(&*store, key, Bytes::from_static(b"xyz")).await.unwrap();
        }
        assert_eq!(keys(&*store, "").await, all);
        assert_eq!(keys(&*store, "a/").await, ["a/b d", "a/c/x", "a/c/y"]);
        assert_eq!(keys(&*store, "a").await, ["a.b", "a/b d", "a/c/x", "a/c/y", "ab/x"]);
        assert_eq!(keys(&*store, "a/c").await, ["a/c/x", "a/c/y"]);
        assert_eq!(keys(&*store, "b/%2E").await, ["b/%2E"]);
        assert!(keys(&*store, "c/").await.is_empty());
        assert!(store.list("a/").await.unwrap().iter().all(|object| object.size == 3));
    })
    .await;
}

#[tokio::test]
async fn deleting_takes_what_is_named_and_forgives_what_is_missing() {
    over_every_store(async |store| {
        for key in ["a/b", "a/c", "d"] {
            store::put(&*store, key, Bytes::from_static(b"x")).await.unwrap();
        }
        let delete = ["a/b", "missing", "a/missing", "d/e"].map(str::to_owned);
        store.delete(&delete).await.unwrap();
        store.delete(&delete).await.unwrap();
        store.delete(&[]).await.unwrap();
        assert_eq!(keys(&*store, "").await, ["a/c", "d"]);
        store.delete(&["a/c".into(), "d".into()]).await.unwrap();
        assert!(keys(&*store, "").await.is_empty());
        store::put(&*store, "a/again", Bytes::from_static(b"x")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_missing_object_is_said_to_be_missing() {
    over_every_store(async |store| {
        store::put(&*store, "file", Bytes::from_static(b"x")).await.unwrap();
        for key in ["missing", "a/missing", "file/below"] {
            assert!(store.stat(key).await.unwrap().is_none());
            for range in [None, Some(0..1), Some(0..0)] {
                let error = store.read(key, range).await.err();
                assert!(
                    matches!(error, Some(StoreError::ObjectMissing { .. })),
                    "{key}: {error:?}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_that_leaves_the_storage_is_refused() {
    over_every_store(async |store| {
        for key in ["../outside", "a/../../outside", "/etc/passwd", ""] {
            let refused = |error: Option<StoreError>| matches!(error, Some(StoreError::InvalidKey { .. }));
            assert!(refused(store.create(key).await.err()), "{key}");
            assert!(refused(store.create_new(key).await.err()), "{key}");
            assert!(refused(store.read(key, None).await.err()), "{key}");
            assert!(refused(store.stat(key).await.err()), "{key}");
            assert!(refused(store.delete(&[key.to_owned()]).await.err()), "{key}");
        }
    })
    .await;
}

#[tokio::test]
async fn uploads_that_a_dead_agent_left_are_aborted_by_prefix() {
    over_every_store(async |store| {
        for key in ["snapshots/1/a", "snapshots/1/b", "snapshots/2/a"] {
            let mut upload = store.create(key).await.unwrap();
            upload.write(content(PART + 1)).await.unwrap();
            std::mem::forget(upload);
        }
        assert!(keys(&*store, "").await.is_empty());
        assert_eq!(store.abort_uploads("snapshots/1/").await.unwrap(), 2);
        assert_eq!(store.abort_uploads("snapshots/1/").await.unwrap(), 0);
        assert_eq!(store.abort_uploads("").await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn checking_access_leaves_nothing_behind() {
    over_every_store(async |store| {
        store.check_access(true).await.unwrap();
        store.check_access(false).await.unwrap();
        assert!(keys(&*store, "").await.is_empty());
        assert_eq!(store.abort_uploads("").await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn reading_a_whole_object_has_a_limit() {
    over_every_store(async |store| {
        store::put(&*store, "ten", content(10)).await.unwrap();
        assert!(store::read_all(&*store, "ten", 10).await.unwrap() == content(10));
        let error = store::read_all(&*store, "ten", 9).await.unwrap_err();
        assert!(matches!(error, StoreError::ObjectTooLarge { limit: 9, .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_object_that_was_exchanged_does_not_pass_verification() {
    over_every_store(async |store| {
        let stored = store::put(&*store, "a", content(100)).await.unwrap();
        let verified = async || {
            let stream = store::verified(store.read("a", None).await.unwrap(), &stored);
            stream.try_collect::<Vec<Bytes>>().await
        };
        assert!(verified().await.unwrap().concat() == content(100));
        for other in [content(99), content(101), content(100).iter().rev().copied().collect()] {
            store::put(&*store, "a", other).await.unwrap();
            let error = verified().await.unwrap_err();
            assert!(matches!(error, StoreError::ObjectChanged { .. }), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn two_prefixes_of_a_bucket_do_not_see_each_other() {
    let server = server();
    let store = open(&server.endpoint).await;
    let mut plan = super::s3_plan(&server.endpoint);
    plan.prefix = format!("{PREFIX}-other");
    let other = super::open_plan(plan.clone()).await.unwrap();
    store::put(&*store, "a", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(server.keys(super::BUCKET), [format!("{PREFIX}/a")]);
    assert_eq!(store.location(), format!("s3://backups/{PREFIX}"));
    assert!(keys(&*other, "").await.is_empty());
    plan.prefix = String::new();
    let whole = super::open_plan(plan).await.unwrap();
    assert_eq!(keys(&*whole, "").await, [format!("{PREFIX}/a")]);
    assert_eq!(whole.location(), "s3://backups");
}

#[tokio::test]
async fn files_are_for_their_owner_alone_and_no_empty_folder_stays() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open_folder(&folder.path().join("backups")).await;
    store::put(&*store, "a/b/c", Bytes::from_static(b"x")).await.unwrap();
    let mode = |path: &str| {
        let path = folder.path().join("backups").join(path);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("a/b/c"), mode("a/b"), mode("")), (0o600, 0o700, 0o700));
    store.delete(&["a/b/c".into()]).await.unwrap();
    assert!(!folder.path().join("backups/a").exists());
    assert!(folder.path().join("backups").exists());
    assert_eq!(store.location(), format!("file://{}/backups", folder.path().display()));
}
