//! One writer, and two beside each other.

use super::*;
use crate::api::status::FailureClass;
use crate::plan::Refusal;

#[tokio::test(start_paused = true)]
async fn chunks_are_read_as_they_were_put_small_and_large_ones() {
    let store = calm();
    let repository = repository(&store).await;
    let chunks = back_up(&repository, "a", 0..20).await;
    for (number, chunk) in (0..20).zip(&chunks) {
        assert_eq!(repository.read_chunk(chunk).await.unwrap(), rows(number));
        assert_eq!(chunk.object.starts_with("packs/"), number % 2 == 0, "{chunk:?}");
    }
    // Four frames fill a pack of the tests.
    assert_eq!(keys(&store, "packs/").await.len(), 3);
    assert_eq!(keys(&store, "chunks/").await.len(), 10);
    assert!(keys(&store, "locks/").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_repository_has_is_not_sent_again() {
    let store = calm();
    let repository = repository(&store).await;
    let first = back_up(&repository, "a", 0..6).await;
    let before = keys(&store, "").await;
    let writer = Writer::begin(Arc::clone(&repository), options("b")).await.unwrap();
    let second = put(&writer, (0..6).chain(0..6)).await.unwrap();
    let statistics = writer.statistics();
    assert_eq!(
        (statistics.chunks, statistics.new_chunks, statistics.new_bytes),
        (12, 0, 0)
    );
    assert_eq!(
        statistics.stored_bytes,
        first.iter().map(|chunk| chunk.stored_bytes).sum::<u64>()
    );
    assert_eq!(second, [&first[..], &first[..]].concat());
    writer.commit(manifest("b", &second)).await.unwrap();
    writer.end().await.unwrap();
    let new: Vec<_> = keys(&store, "")
        .await
        .into_iter()
        .filter(|key| !before.contains(key))
        .collect();
    assert_eq!(new, ["snapshots/b/manifest.json"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_chunk_of_two_workers_is_stored_once() {
    let store = calm();
    let repository = repository(&store).await;
    let writer = Writer::begin(Arc::clone(&repository), options("a")).await.unwrap();
    let (one, other) = tokio::join!(writer.put(rows(1)), writer.put(rows(1)));
    assert_eq!(one.unwrap().0, other.unwrap().0);
    writer.flush().await.unwrap();
    assert_eq!(writer.statistics().new_chunks, 1);
    assert_eq!(keys(&store, "chunks/").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_backups_that_store_the_same_chunk_at_once_both_have_it() {
    let store = calm();
    let repository = repository(&store).await;
    let one = Writer::begin(Arc::clone(&repository), options("a")).await.unwrap();
    let other = Writer::begin(Arc::clone(&repository), options("b")).await.unwrap();
    let (of_one, of_other) = tokio::join!(put(&one, 0..4), put(&other, 0..4));
    let (of_one, of_other) = (of_one.unwrap(), of_other.unwrap());
    one.end().await.unwrap();
    other.commit(manifest("b", &of_other)).await.unwrap();
    other.end().await.unwrap();
    // The one that failed takes nothing with it.
    repository.prune(&prune_now()).await.unwrap();
    for (number, chunk) in (0..4).zip(&of_other) {
        assert_eq!(repository.read_chunk(chunk).await.unwrap(), rows(number));
    }
    assert!(repository.read_chunk(&of_one[1]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_an_unfinished_backup_left_is_used() {
    let store = calm();
    let repository = repository(&store).await;
    let dead = Writer::begin(Arc::clone(&repository), options("a")).await.unwrap();
    let left = put(&dead, [1]).await.unwrap();
    drop(dead);
    let next = Writer::begin(Arc::clone(&repository), options("b")).await.unwrap();
    let chunks = put(&next, [1]).await.unwrap();
    assert_eq!(next.statistics().new_chunks, 0);
    assert_eq!(chunks, left);
    assert_eq!(repository.read_chunk(&chunks[0]).await.unwrap(), rows(1));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_whose_object_has_another_size_is_stored_again() {
    let store = calm();
    let repository = repository(&store).await;
    let first = back_up(&repository, "a", [0, 1]).await;
    for chunk in &first {
        put_object(&store, &chunk.object, "x").await;
    }
    let second = back_up(&repository, "b", [0, 1]).await;
    for (number, chunk) in second.iter().enumerate() {
        assert_eq!(repository.read_chunk(chunk).await.unwrap(), rows(number as u64));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_fails_the_backup_for_every_worker() {
    let store = SimulatedStore::new(Network::calm());
    let calm = store.client(0, Network::calm());
    drop(repository(&calm).await);
    let failing = Network {
        lost_request: 200,
        ..Network::calm()
    };
    let mut failures = 0;
    for seed in 0..200 {
        let client = store.client(seed, failing);
        let Ok(mut repository) = Repository::open(client).await else {
            continue;
        };
        repository.pack_sizes = SIZES;
        let Ok(writer) = Writer::begin(Arc::new(repository), options("a")).await else {
            continue;
        };
        match put(&writer, seed * 20..seed * 20 + 20).await {
            Ok(_) => {}
            Err(error @ RepositoryError::NotStored(_)) => {
                failures += 1;
                assert!(error.is_temporary());
                assert!(writer.put(rows(100)).await.is_err());
                assert!(writer.commit(manifest("a", &[])).await.is_err());
                assert_eq!(Refusal::from(error).class, FailureClass::Temporary);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(failures > 10, "{failures}");
    assert!(references::list(&*calm).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_is_dropped_ends_no_upload() {
    let slow = Network {
        latency: Duration::from_secs(20),
        ..Network::calm()
    };
    let store = SimulatedStore::new(slow).client(0, slow);
    let writer = Writer::begin(repository(&store).await, options("a")).await.unwrap();
    for number in 0..10 {
        writer.put(rows(number)).await.unwrap();
    }
    assert!(futures::poll!(Box::pin(writer.flush())).is_pending());
    writer.put(rows(11)).await.unwrap();
    writer.flush().await.unwrap();
    assert!(!keys(&store, "chunks/").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_chunk_whose_worker_is_dropped_is_stored_by_the_next_unless_another_relied_on_it() {
    // On a busy machine a chunk may be stored before it can be dropped.
    for _ in 0..50 {
        if drop_workers().await.is_some() {
            return;
        }
    }
    panic!("no chunk was ever under way");
}

/// Waits until the chunk is hashed and not compressed yet; `None` where it was stored meanwhile.
async fn is_under_way(writer: &Writer, put: &mut (impl Future + Unpin)) -> Option<()> {
    while writer.statistics().chunks == 0 {
        if futures::poll!(&mut *put).is_ready() {
            return None;
        }
        tokio::task::yield_now().await;
    }
    Some(())
}

async fn drop_workers() -> Option<()> {
    let store = calm();
    let repository = repository(&store).await;
    let writer = Writer::begin(Arc::clone(&repository), options("a")).await.unwrap();
    // So many bytes that the hash and the compression each take a while.
    let stream = rows(1).repeat(20_000);
    let mut put = Box::pin(writer.put(stream.clone()));
    is_under_way(&writer, &mut put).await?;
    drop(put);
    assert_eq!(writer.statistics(), WriterStatistics::default());
    let mut put = Box::pin(writer.put(stream.clone()));
    is_under_way(&writer, &mut put).await?;
    // Another worker is told that the chunk is there.
    writer.put(stream).await.unwrap();
    drop(put);
    assert!(writer.put(rows(2)).await.is_err());
    assert!(writer.flush().await.is_err());
    Some(())
}

#[tokio::test(start_paused = true)]
async fn many_tiny_chunks_do_not_fill_the_budget() {
    let store = calm();
    let mut repository = Repository::open_or_create(Arc::clone(&store)).await.unwrap();
    repository.pack_sizes.frames = usize::MAX;
    let writer = Writer::begin(Arc::new(repository), options("a")).await.unwrap();
    for number in 0..40_000_u64 {
        writer.put(format!("{number}\n").into_bytes()).await.unwrap();
    }
    writer.flush().await.unwrap();
    assert_eq!(keys(&store, "packs/").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_of_many_makes_the_repository_and_all_use_it() {
    let store = calm();
    let made = futures::future::join_all((0..8).map(|_| Repository::open_or_create(Arc::clone(&store)))).await;
    let keys: std::collections::BTreeSet<_> = made.into_iter().map(|made| made.unwrap().key).collect();
    assert_eq!(keys.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_repository_of_this_release_is_refused_and_left_alone() {
    for (content, reason) in [
        ("", "RepositoryInvalid"),
        ("PK", "RepositoryInvalid"),
        (r#"{"formatVersion": 1}"#, "RepositoryInvalid"),
        (
            r#"{"formatVersion": 1, "id": "x", "hashKey": "12", "created": "2026-01-02T03:04:05Z"}"#,
            "RepositoryInvalid",
        ),
        (r#"{"formatVersion": 2, "else": 1}"#, "RepositoryTooNew"),
    ] {
        let store = calm();
        put_object(&store, layout::REPOSITORY, content).await;
        for opened in [
            Repository::open(Arc::clone(&store)).await,
            Repository::open_or_create(Arc::clone(&store)).await,
        ] {
            let refusal = Refusal::from(opened.err().unwrap());
            assert_eq!(refusal.reason, reason, "{content}");
            assert_eq!(refusal.class, FailureClass::Permanent);
        }
        assert_eq!(
            store::read_all(&*store, layout::REPOSITORY, 1000).await.unwrap(),
            content
        );
    }
    assert!(matches!(
        Repository::open(calm()).await,
        Err(RepositoryError::Missing { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_lost_key_is_not_made_anew_over_chunks() {
    let store = calm();
    let repository = repository(&store).await;
    back_up(&repository, "a", [1]).await;
    store.delete(&[layout::REPOSITORY.to_owned()]).await.unwrap();
    let opened = Repository::open_or_create(Arc::clone(&store)).await;
    assert!(matches!(opened, Err(RepositoryError::Missing { .. })));
    assert!(keys(&store, layout::REPOSITORY).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_there_is_not_begun_again() {
    let store = calm();
    let repository = repository(&store).await;
    back_up(&repository, "a", [1]).await;
    let begun = Writer::begin(Arc::clone(&repository), options("a")).await;
    assert!(matches!(begun, Err(RepositoryError::SnapshotExists { .. })));
    assert!(keys(&store, "locks/").await.is_empty());
}
