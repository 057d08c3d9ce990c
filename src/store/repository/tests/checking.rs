//! Checks and what they name.

use super::*;

/// Two backups that share chunk 1, and the pack of 0 and 2.
async fn two_backups(store: &Arc<dyn Store>) -> Vec<ChunkManifest> {
    let repository = repository(store).await;
    let chunks = back_up(&repository, "a", 0..4).await;
    back_up(&repository, "b", 0..3).await;
    chunks
}

async fn damages(store: &Arc<dyn Store>, level: CheckLevel) -> Vec<(String, Vec<String>)> {
    let report = check(store, level, None).await.unwrap();
    assert_eq!((report.snapshots, report.chunks), (2, 4));
    let hurts = |damage: &Damage| {
        let hurts = damage.hurts.iter();
        hurts
            .map(|hurt| format!("{} {}", hurt.snapshot, hurt.tables.join(",")))
            .collect()
    };
    report
        .damages
        .iter()
        .map(|damage| (damage.problem.clone(), hurts(damage)))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_is_whole_passes_every_level() {
    let store = calm();
    two_backups(&store).await;
    for level in [CheckLevel::Sizes, CheckLevel::Hashes, CheckLevel::Rows] {
        assert_eq!(damages(&store, level).await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_is_named_with_the_backups_that_it_hurts() {
    let store = calm();
    let chunks = two_backups(&store).await;
    store.delete(&[chunks[1].object.clone()]).await.unwrap();
    let both = vec!["a d.s.t".to_owned(), "b d.s.t".to_owned()];
    assert_eq!(
        damages(&store, CheckLevel::Sizes).await,
        [("the object is missing".to_owned(), both)]
    );
    store.delete(&[chunks[3].object.clone()]).await.unwrap();
    let found = damages(&store, CheckLevel::Sizes).await;
    assert_eq!(found.len(), 2);
    assert!(found.iter().any(|(_, hurts)| *hurts == ["a d.s.t"]), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pack_without_its_tail_hurts_the_chunks_in_the_tail() {
    let store = calm();
    let chunks = two_backups(&store).await;
    let pack = store::read_all(&*store, &chunks[2].object, 1 << 20).await.unwrap();
    put_object(&store, &chunks[2].object, pack.slice(..pack.len() - 1)).await;
    let found = damages(&store, CheckLevel::Sizes).await;
    assert_eq!(found.len(), 1);
    assert!(found[0].0.contains("does not have the bytes"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_found_by_the_second_level() {
    let store = calm();
    let chunks = two_backups(&store).await;
    let mut bytes = store::read_all(&*store, &chunks[3].object, 1 << 20)
        .await
        .unwrap()
        .to_vec();
    bytes[20] ^= 1;
    put_object(&store, &chunks[3].object, bytes).await;
    assert_eq!(damages(&store, CheckLevel::Sizes).await, []);
    let found = damages(&store, CheckLevel::Hashes).await;
    assert!(found[0].0.contains("SHA-256"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_edited_in_the_manifest_are_found_by_the_third_level() {
    let store = calm();
    let repository = repository(&store).await;
    let mut chunks = back_up(&repository, "a", 0..2).await;
    chunks[0].rows += 1;
    put_object(&store, &layout::manifest("a"), manifest("a", &chunks)).await;
    assert_eq!(check(&store, CheckLevel::Hashes, None).await.unwrap().damages, []);
    let damages = check(&store, CheckLevel::Rows, None).await.unwrap().damages;
    assert_eq!(damages[0].problem, "2 rows were stored and 1 are there");
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_was_swapped_with_another_is_found_even_with_its_hash() {
    let store = calm();
    let repository = repository(&store).await;
    let mut chunks = back_up(&repository, "a", [0, 2]).await;
    // Somebody exchanged where the two lie, with sizes and hashes.
    let (one, other) = (chunks[0].clone(), chunks[1].clone());
    assert_eq!((one.bytes, one.rows), (other.bytes, other.rows));
    chunks[0] = ChunkManifest {
        name: one.name.clone(),
        ..other.clone()
    };
    chunks[1] = ChunkManifest {
        name: other.name,
        ..one
    };
    put_object(&store, &layout::manifest("a"), manifest("a", &chunks)).await;
    assert_eq!(check(&store, CheckLevel::Hashes, None).await.unwrap().damages, []);
    assert_eq!(check(&store, CheckLevel::Rows, None).await.unwrap().damages.len(), 2);
    let error = repository.read_chunk(&chunks[0]).await.unwrap_err();
    assert!(matches!(
        error,
        RepositoryError::Damaged {
            damage: ChunkDamage::Name,
            ..
        }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_cannot_be_read_is_a_damage_and_the_rest_is_checked() {
    let store = calm();
    let chunks = two_backups(&store).await;
    put_object(&store, &layout::manifest("c"), "{").await;
    store.delete(&[chunks[3].object.clone()]).await.unwrap();
    let report = check(&store, CheckLevel::Sizes, None).await.unwrap();
    assert_eq!(report.damages.len(), 2);
    let listed = snapshots(&*store).await.unwrap();
    assert_eq!(listed.iter().filter(|summary| summary.problem.is_some()).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn statistics_count_each_chunk_once_and_say_what_is_not_needed() {
    let store = calm();
    let chunks = two_backups(&store).await;
    delete_snapshot(&store, "a").await;
    let repository = repository(&store).await;
    let running = Writer::begin(Arc::clone(&repository), options("c")).await.unwrap();
    let statistics = repository.statistics().await.unwrap();
    assert_eq!((statistics.snapshots, statistics.chunks, statistics.objects), (1, 3, 3));
    assert_eq!(statistics.unreferenced_bytes, chunks[3].stored_bytes);
    assert_eq!(statistics.unused_pack_bytes, 0);
    assert_eq!(statistics.writers.len(), 1);
    drop(running);
}
