//! Prunes and what they leave alone.

use jiff::SignedDuration;

use super::*;

#[tokio::test(start_paused = true)]
async fn what_no_manifest_names_goes_after_the_grace_time() {
    let store = calm();
    let repository = repository(&store).await;
    let kept = back_up(&repository, "a", 0..4).await;
    back_up(&repository, "b", 2..8).await;
    delete_snapshot(&store, "b").await;
    let at = |hours| PruneOptions {
        grace: PruneOptions::GRACE,
        now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours),
        ..prune_now()
    };
    let before = keys(&store, "").await;
    let dry = PruneOptions { dry_run: true, ..at(0) };
    assert_eq!(repository.prune(&dry).await.unwrap().condemned, 3);
    assert_eq!(keys(&store, "").await, before);
    // Chunks 5 and 7, and the pack of 4 and 6.
    let first = repository.prune(&at(0)).await.unwrap();
    assert_eq!((first.condemned, first.deleted), (3, 0));
    let second = repository.prune(&at(23)).await.unwrap();
    assert_eq!((second.condemned, second.in_grace, second.deleted), (0, 3, 0));
    let dry = PruneOptions {
        dry_run: true,
        ..at(24)
    };
    assert_eq!(repository.prune(&dry).await.unwrap().deleted, 3);
    let third = repository.prune(&at(24)).await.unwrap();
    assert_eq!((third.deleted, third.referenced), (3, kept.len() as u64 - 1));
    for (number, chunk) in (0..4).zip(&kept) {
        assert_eq!(repository.read_chunk(chunk).await.unwrap(), rows(number));
    }
    // The next one needs the list no more.
    repository.prune(&at(25)).await.unwrap();
    assert!(keys(&store, "condemned/").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_delays_nothing_and_one_that_is_behind_neither() {
    let store = calm();
    let repository = repository(&store).await;
    back_up(&repository, "a", [1]).await;
    delete_snapshot(&store, "a").await;
    let at = |hours| PruneOptions {
        grace: PruneOptions::GRACE,
        now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours),
        ..prune_now()
    };
    repository.prune(&at(10_000)).await.unwrap();
    // By the right clock the first list does not count.
    assert_eq!(repository.prune(&at(0)).await.unwrap().condemned, 1);
    assert_eq!(repository.prune(&at(24)).await.unwrap().deleted, 1);
}

#[tokio::test(start_paused = true)]
async fn chunks_of_a_deleted_backup_stay_while_a_running_one_relies_on_them() {
    let store = calm();
    let repository = repository(&store).await;
    back_up(&repository, "a", 0..4).await;
    let writer = Writer::begin(Arc::clone(&repository), options("b")).await.unwrap();
    delete_snapshot(&store, "a").await;
    for _ in 0..3 {
        let report = repository.prune(&prune_now()).await.unwrap();
        assert_eq!((report.deleted, report.running.len()), (0, 1), "{report:?}");
        assert!(report.held > 0);
    }
    let chunks = put(&writer, 0..4).await.unwrap();
    assert_eq!(writer.statistics().new_chunks, 0);
    writer.commit(manifest("b", &chunks)).await.unwrap();
    writer.end().await.unwrap();
    assert_eq!(repository.prune(&prune_now()).await.unwrap().deleted, 0);
    for (number, chunk) in (0..4).zip(&chunks) {
        assert_eq!(repository.read_chunk(chunk).await.unwrap(), rows(number));
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_begins_later_does_not_hold_a_prune_up_and_relies_on_nothing_condemned() {
    let store = calm();
    let repository = repository(&store).await;
    let old = back_up(&repository, "a", 0..4).await;
    delete_snapshot(&store, "a").await;
    let graceful = PruneOptions {
        grace: PruneOptions::GRACE,
        ..prune_now()
    };
    repository.prune(&graceful).await.unwrap();
    let writer = Writer::begin(Arc::clone(&repository), options("b")).await.unwrap();
    let chunks = put(&writer, 0..4).await.unwrap();
    assert_eq!(writer.statistics().new_chunks, 4);
    let report = repository.prune(&prune_now()).await.unwrap();
    assert_eq!((report.deleted, report.held), (3, 0), "{report:?}");
    writer.commit(manifest("b", &chunks)).await.unwrap();
    for (number, chunk) in (0..4).zip(&chunks) {
        assert_eq!(repository.read_chunk(chunk).await.unwrap(), rows(number));
    }
    assert!(repository.read_chunk(&old[0]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_a_running_backup_stores_is_not_condemned() {
    let store = calm();
    let repository = repository(&store).await;
    let writer = Writer::begin(Arc::clone(&repository), options("a")).await.unwrap();
    let chunks = put(&writer, 0..4).await.unwrap();
    let report = repository.prune(&prune_now()).await.unwrap();
    assert_eq!((report.condemned, report.unfinished), (0, 3), "{report:?}");
    writer.commit(manifest("a", &chunks)).await.unwrap();
    writer.end().await.unwrap();
    let next = Writer::begin(Arc::clone(&repository), options("b")).await.unwrap();
    put(&next, 0..4).await.unwrap();
    assert_eq!(next.statistics().new_chunks, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_backup_is_given_up_and_its_chunks_go() {
    let store = calm();
    let repository = repository(&store).await;
    let dead = Writer::begin(Arc::clone(&repository), options("a")).await.unwrap();
    put(&dead, 0..4).await.unwrap();
    drop(dead);
    let report = repository.prune(&prune_now()).await.unwrap();
    assert_eq!((report.deleted, report.given_up), (3, vec!["a".to_owned()]));
    assert_eq!(
        keys(&store, "").await.len(),
        3,
        "the list, the place of the manifest, pgrescue.json"
    );
    assert!(snapshots(&*store).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_was_taken_for_dead_cannot_commit() {
    let store = calm();
    let repository = repository(&store).await;
    let sleeping = Writer::begin(Arc::clone(&repository), options("a")).await.unwrap();
    let chunks = put(&sleeping, 0..4).await.unwrap();
    let impatient = PruneOptions {
        silence: Duration::ZERO,
        ..prune_now()
    };
    assert_eq!(repository.prune(&impatient).await.unwrap().given_up, ["a"]);
    assert!(matches!(
        sleeping.assert_held().await,
        Err(RepositoryError::LockLost { .. })
    ));
    let committed = sleeping.commit(manifest("a", &chunks)).await;
    assert!(matches!(committed, Err(RepositoryError::LockLost { .. })));
    sleeping.end().await.unwrap();
    // The next attempt frees the place, as it does with what cannot be read.
    delete_snapshot(&store, "a").await;
    back_up(&repository, "a", 0..4).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_of_a_run_is_not_given_up_with_the_dead_one() {
    let store = calm();
    let repository = repository(&store).await;
    drop(Writer::begin(Arc::clone(&repository), options("a")).await.unwrap());
    let next = Writer::begin(Arc::clone(&repository), options("a")).await.unwrap();
    let chunks = put(&next, 0..4).await.unwrap();
    let report = repository.prune(&prune_now()).await.unwrap();
    assert_eq!(report.given_up, [""; 0]);
    next.commit(manifest("a", &chunks)).await.unwrap();
    next.end().await.unwrap();
    repository.prune(&prune_now()).await.unwrap();
    assert!(keys(&store, "locks/").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_while_a_manifest_cannot_be_read() {
    let store = calm();
    let repository = repository(&store).await;
    back_up(&repository, "a", [1]).await;
    delete_snapshot(&store, "a").await;
    for content in [
        &b"{"[..],
        br#"{"formatVersion": 3}"#,
        br#"{"formatVersion": 1, "snapshot": "b"}"#,
    ] {
        put_object(&store, &layout::manifest("b"), content).await;
        let error = repository.prune(&prune_now()).await.unwrap_err();
        assert!(matches!(error, RepositoryError::Unreadable { .. }), "{error}");
        assert_eq!(keys(&store, "chunks/").await.len(), 1);
    }
    // A lock or a list that cannot be read hides a backup as well.
    delete_snapshot(&store, "b").await;
    for key in [layout::lock("x"), layout::condemned("x")] {
        put_object(&store, &key, "?").await;
        assert!(repository.prune(&prune_now()).await.is_err());
        store.delete(&[key]).await.unwrap();
    }
    assert_eq!(repository.prune(&prune_now()).await.unwrap().deleted, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_locked_stays_condemned_and_goes_when_it_is_free() {
    let simulated = SimulatedStore::new(Network::default());
    let store = simulated.client(0, Network::calm());
    let repository = repository(&store).await;
    let chunks = back_up(&repository, "a", [1, 3, 5]).await;
    delete_snapshot(&store, "a").await;
    simulated.lock(&[chunks[1].object.clone()]);
    let report = repository.prune(&prune_now()).await.unwrap();
    assert_eq!((report.deleted, report.locked), (2, 1), "{report:?}");
    assert!(report.deleted_bytes > 0);
    assert_eq!(keys(&store, "chunks/").await, [chunks[1].object.clone()]);
    // No backup relies on it meanwhile: it may be free, and go, at any time.
    let next = back_up(&repository, "b", [3]).await;
    assert_ne!(next[0].object, chunks[1].object);
    assert_eq!(repository.prune(&prune_now()).await.unwrap().locked, 1);
    simulated.lock(&[]);
    let report = repository.prune(&prune_now()).await.unwrap();
    assert_eq!(
        (report.deleted, report.locked, report.condemned),
        (1, 0, 0),
        "{report:?}"
    );
    assert_eq!(keys(&store, "chunks/").await, [next[0].object.clone()]);
}
