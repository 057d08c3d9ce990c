//! The repository of chunks on a real folder and a real S3 server; `src/store/repository/tests` has the many
//! histories on a simulated one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use pgrescue::store::folder::FolderStore;
use pgrescue::store::manifest::ChunkManifest;
use pgrescue::store::repository::{
    CheckLevel, PruneOptions, Repository, RepositoryError, StoredChunk, Writer, WriterOptions, check, snapshots,
};
use pgrescue::store::{self, Store, layout};
use serde_json::json;

use crate::store::{content, open, server};

/// Rows that do not compress below half: a large one is an object of its own.
fn rows(number: usize, bytes: usize) -> Vec<u8> {
    let mut text = format!("{number}\n").into_bytes();
    for part in content(bytes / 2 + number * 8).chunks(40) {
        text.extend_from_slice(hex::encode(part).as_bytes());
        text.push(b'\n');
    }
    text
}

/// Every third chunk is large.
fn stream(number: usize) -> Vec<u8> {
    rows(number, if number.is_multiple_of(3) { 3 << 20 } else { 20_000 })
}

fn options(snapshot: &str) -> WriterOptions {
    WriterOptions {
        run: snapshot.to_owned(),
        snapshot: snapshot.to_owned(),
        zstd_level: 1,
        bytes_in_flight: 0,
    }
}

async fn put(writer: &Writer, numbers: &[usize]) -> Result<Vec<ChunkManifest>, RepositoryError> {
    let mut names = Vec::new();
    let puts = numbers.iter().map(|number| async {
        let stream = stream(*number);
        let (bytes, rows) = (stream.len() as u64, memchr::memchr_iter(b'\n', &stream).count() as u64);
        let (name, buffer) = writer.put(stream).await?;
        assert!(
            buffer.is_empty() && buffer.capacity() as u64 >= bytes,
            "the buffer comes back"
        );
        Ok::<_, RepositoryError>((name, bytes, rows))
    });
    for put in futures::future::join_all(puts).await {
        names.push(put?);
    }
    writer.flush().await?;
    let described = names.into_iter().map(|(name, bytes, rows)| {
        let StoredChunk {
            object,
            offset,
            stored_bytes,
            sha256,
        } = writer.locate(&name).expect("it was flushed");
        ChunkManifest {
            name: name.to_string(),
            object,
            offset,
            stored_bytes,
            sha256,
            bytes,
            rows,
            ..ChunkManifest::default()
        }
    });
    Ok(described.collect())
}

fn manifest(snapshot: &str, chunks: &[ChunkManifest]) -> Bytes {
    let manifest = json!({
        "formatVersion": 1, "snapshot": snapshot, "completed": "2026-01-02T03:04:05Z", "dataFormat": "Chunks",
        "backup": {"namespace": "shop", "name": "orders", "uid": "u"},
        "databases": [{"name": "orders", "rows": 1, "relations": [
            {"schema": "public", "name": "items", "chunks": {
                "format": "Text", "columns": ["a"], "clientEncoding": "UTF8", "chunks": chunks}},
        ]}],
        "objects": [],
    });
    Bytes::from(manifest.to_string())
}

/// A backup; the chunks that were new.
async fn back_up(store: &Arc<dyn Store>, snapshot: &str, numbers: &[usize]) -> Result<u64, RepositoryError> {
    let repository = Arc::new(Repository::open_or_create(Arc::clone(store)).await?);
    let writer = Writer::begin(repository, options(snapshot)).await?;
    let chunks = put(&writer, numbers).await?;
    let result = writer.commit(manifest(snapshot, &chunks)).await;
    writer.end().await?;
    result.map(|_| writer.statistics().new_chunks)
}

fn prune_options(silence: Duration) -> PruneOptions {
    PruneOptions {
        grace: Duration::ZERO,
        now: Timestamp::now(),
        silence,
        dry_run: false,
    }
}

async fn count(store: &Arc<dyn Store>, prefix: &str) -> usize {
    store.list(prefix).await.unwrap().len()
}

/// What holds for every store.
async fn chunks_are_shared_checked_and_pruned(store: Arc<dyn Store>) {
    assert_eq!(back_up(&store, "a", &[0, 1, 2, 3, 4, 5]).await.unwrap(), 6);
    assert_eq!((count(&store, "chunks/").await, count(&store, "packs/").await), (2, 1));
    assert_eq!(back_up(&store, "b", &[0, 1, 2, 3, 4, 5]).await.unwrap(), 0);
    assert_eq!(back_up(&store, "c", &[5, 6, 7]).await.unwrap(), 2);
    for level in [CheckLevel::Sizes, CheckLevel::Hashes, CheckLevel::Rows] {
        let report = check(&store, level, None).await.unwrap();
        assert_eq!((report.snapshots, report.chunks, report.damages), (3, 8, vec![]));
    }
    assert_eq!(snapshots(&*store).await.unwrap().len(), 3);
    let repository = Repository::open(Arc::clone(&store)).await.unwrap();
    let silence = Duration::from_mins(1);
    assert_eq!(repository.prune(&prune_options(silence)).await.unwrap().deleted, 0);
    store
        .delete(&[layout::manifest("a"), layout::manifest("b")])
        .await
        .unwrap();
    // The chunks 0 and 3; the pack is needed for 5.
    assert_eq!(repository.prune(&prune_options(silence)).await.unwrap().deleted, 2);
    assert_eq!(repository.statistics().await.unwrap().unreferenced_bytes, 0);
    assert!(check(&store, CheckLevel::Rows, None).await.unwrap().damages.is_empty());
    store.delete(&[layout::manifest("c")]).await.unwrap();
    repository.prune(&prune_options(silence)).await.unwrap();
    assert_eq!((count(&store, "chunks/").await, count(&store, "packs/").await), (0, 0));
    assert_eq!(count(&store, "locks/").await, 0);
}

#[tokio::test]
async fn chunks_are_shared_checked_and_pruned_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    chunks_are_shared_checked_and_pruned(Arc::new(FolderStore::new(folder.path()))).await;
}

#[tokio::test]
async fn chunks_are_shared_checked_and_pruned_in_s3() {
    let server = server();
    chunks_are_shared_checked_and_pruned(open(&server.endpoint).await).await;
}

/// Backups that may be taken for dead by impatient prunes, and prunes in the middle of them.
async fn backups_and_prunes_at_once(store: Arc<dyn Store>) {
    Repository::open_or_create(Arc::clone(&store)).await.unwrap();
    let writing = (0..3_usize).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            let (mut committed, mut refused) = (0, 0);
            for round in 0..12_usize {
                let numbers: Vec<_> = (0..5).map(|at| (writer * 5 + round * 7 + at * 3) % 17).collect();
                match back_up(&store, &format!("{writer}-{round}"), &numbers).await {
                    Ok(_) => committed += 1,
                    Err(RepositoryError::LockLost { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
                if round % 2 == 1 {
                    let gone = layout::manifest(&format!("{writer}-{}", round - 1));
                    store.delete(&[gone]).await.unwrap();
                }
            }
            (committed, refused)
        }
    });
    let pruning = async {
        let mut deleted = 0;
        for round in 0..u64::MAX {
            let repository = Repository::open(Arc::clone(&store)).await.unwrap();
            let silence = Duration::from_millis(round % 3 * 400);
            deleted += repository.prune(&prune_options(silence)).await.unwrap().deleted;
            tokio::time::sleep(Duration::from_millis(50)).await; // between two prunes, for a while without any
        }
        deleted
    };
    let written = tokio::select! {
        written = futures::future::join_all(writing) => written,
        _ = pruning => unreachable!("prunes go on"),
    };
    let committed: usize = written.iter().map(|(committed, _)| committed).sum();
    println!("{written:?}");
    assert!(committed > 3, "{written:?}");
    let report = check(&store, CheckLevel::Rows, None).await.unwrap();
    assert_eq!(report.damages, []);
    assert!(report.snapshots > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_and_prunes_at_once_leave_every_backup_whole_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    backups_and_prunes_at_once(Arc::new(FolderStore::new(folder.path()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_and_prunes_at_once_leave_every_backup_whole_in_s3() {
    let server = server();
    backups_and_prunes_at_once(open(&server.endpoint).await).await;
}

fn pgrescue(arguments: &[&str], manifest: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrescue"));
    command.args(arguments).arg("-f").arg(manifest);
    command
}

fn storage_manifest(folder: &Path, storage: &Path) -> std::path::PathBuf {
    let manifest = folder.join("backup.yaml");
    let text = format!(
        "apiVersion: pgrescue.dev/v1alpha1\nkind: PgBackup\nmetadata: {{name: orders}}\nspec:\n  \
         connection: {{host: localhost}}\n  storage: {{folder: {{path: {}}}}}\n",
        storage.display()
    );
    std::fs::write(&manifest, text).unwrap();
    manifest
}

/// Waits until a condition holds.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    while !condition().await {
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_prune_that_is_killed_again_and_again_leaves_every_backup_whole() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("storage");
    let manifest = storage_manifest(folder.path(), &storage);
    let store: Arc<dyn Store> = Arc::new(FolderStore::new(&storage));
    back_up(&store, "a", &[0, 1, 2]).await.unwrap();
    const GARBAGE: usize = 6000;
    for number in 0..GARBAGE {
        let key = layout::chunk(
            &format!("{number:064x}"),
            &format!("{number:064x}"),
            1,
            "0123456789abcdef",
        );
        let path = storage.join(&key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    let mut left = GARBAGE + 1;
    for kill in 1..=4 {
        let mut prune = pgrescue(&["prune", "--grace", "0s"], &manifest)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let goal = GARBAGE * (6 - kill) / 6;
        until("some objects are gone", async || {
            left = count(&store, "chunks/").await;
            left < goal
        })
        .await;
        prune.kill().unwrap();
        prune.wait().unwrap();
        assert!(check(&store, CheckLevel::Rows, None).await.unwrap().damages.is_empty());
    }
    println!("{left} objects were left by the prune that was killed last");
    let done = pgrescue(&["prune", "--grace", "0s"], &manifest).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(count(&store, "chunks/").await, 1);
    assert!(check(&store, CheckLevel::Rows, None).await.unwrap().damages.is_empty());
}

#[tokio::test]
async fn the_commands_say_what_is_there_what_is_damaged_and_what_goes() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("storage");
    let manifest = storage_manifest(folder.path(), &storage);
    let run = |arguments: &[&str]| {
        let output = pgrescue(arguments, &manifest).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let (code, text) = run(&["stats"]);
    assert_eq!(code, 10);
    assert!(text.contains("holds no repository"), "{text}");
    let store: Arc<dyn Store> = Arc::new(FolderStore::new(&storage));
    back_up(&store, "a", &[0, 1]).await.unwrap();
    back_up(&store, "b", &[1, 3]).await.unwrap();
    let (code, text) = run(&["snapshots"]);
    assert_eq!(code, 0);
    assert_eq!(text.lines().count(), 3, "{text}");
    let (code, text) = run(&["check", "--level", "3"]);
    assert!(code == 0 && text.contains("all whole"), "{text}");
    store.delete(&[layout::manifest("b")]).await.unwrap();
    let (code, text) = run(&["prune", "--output", "json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &report["condemned"], &report["deleted"]),
        (0, &json!(1), &json!(0))
    );
    let (code, text) = run(&["prune", "--grace", "0s"]);
    assert!(code == 0 && text.contains("1 deleted"), "{text}");
    let chunks = store.list("chunks/").await.unwrap();
    store::put(&*store, &chunks[0].key, Bytes::from_static(b"x"))
        .await
        .unwrap();
    let (code, text) = run(&["check"]);
    assert_eq!(code, 10);
    assert!(
        text.contains("hurts snapshot a shop/orders: orders.public.items"),
        "{text}"
    );
    let (code, text) = run(&["prune", "--grace", "-1h"]);
    assert!(code == 2, "{text}");
}
