//! Tests of the repository on a store in memory. Those on folders and S3 are in `tests/integration/repository.rs`.

mod checking;
mod encrypted;
mod interleavings;
mod pruning;
mod simulated_store;
mod writing;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::pack::PackSizes;
use super::*;
use crate::store::manifest::{ChunkManifest, RowFormat};
use crate::store::{self, layout};
use simulated_store::{Network, SimulatedStore};

/// Sizes that let small streams fill packs.
const SIZES: PackSizes = PackSizes {
    pack: 512,
    small: 200,
    frames: 4,
};

/// A store that does what it is told.
fn calm() -> Arc<dyn Store> {
    SimulatedStore::new(Network::default()).client(0, Network::calm())
}

async fn repository(store: &Arc<dyn Store>) -> Arc<Repository> {
    let mut repository = Repository::open_or_create(Arc::clone(store)).await.unwrap();
    repository.pack_sizes = SIZES;
    Arc::new(repository)
}

fn options(snapshot: &str) -> WriterOptions {
    WriterOptions {
        run: format!("run of {snapshot}"),
        snapshot: snapshot.to_owned(),
        zstd_level: 1,
        bytes_in_flight: 0,
    }
}

/// Rows in text format. Those of an even number make a small chunk, the others one that is an object of its own.
fn rows(number: u64) -> Vec<u8> {
    let mut text = format!("{number}\tfirst\n");
    if number % 2 == 1 {
        let mut state = number;
        for _ in 0..40 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let _ = writeln!(text, "{number}\t{state:x}");
        }
    }
    text.into_bytes()
}

/// Puts streams and returns what a manifest says of them.
async fn put(writer: &Writer, numbers: impl IntoIterator<Item = u64>) -> Result<Vec<ChunkManifest>, RepositoryError> {
    let mut names = Vec::new();
    for number in numbers {
        names.push((writer.put(rows(number)).await?.0, number));
    }
    writer.flush().await?;
    Ok(names
        .into_iter()
        .map(|(name, number)| described(writer, &name, &rows(number)))
        .collect())
}

fn described(writer: &Writer, name: &ChunkName, stream: &[u8]) -> ChunkManifest {
    let StoredChunk {
        object,
        offset,
        stored_bytes,
        sha256,
    } = writer.locate(name).unwrap();
    ChunkManifest {
        name: name.to_string(),
        object,
        offset,
        stored_bytes,
        sha256,
        bytes: stream.len() as u64,
        rows: memchr::memchr_iter(b'\n', stream).count() as u64,
        ..ChunkManifest::default()
    }
}

/// A manifest with one table `d.s.t`.
fn manifest(snapshot: &str, chunks: &[ChunkManifest]) -> Bytes {
    let manifest: Value = json!({
        "formatVersion": 1, "snapshot": snapshot, "completed": "2026-01-02T03:04:05Z", "dataFormat": "Chunks",
        "backup": {"namespace": "n", "name": snapshot, "uid": "u"},
        "databases": [{"name": "d", "rows": 1, "relations": [
            {"schema": "s", "name": "v"},
            {"schema": "s", "name": "t", "chunks": {
                "format": RowFormat::Text, "columns": ["a"], "clientEncoding": "UTF8", "chunks": chunks}},
        ]}],
        "objects": [],
    });
    Bytes::from(manifest.to_string())
}

/// A whole backup of these streams.
async fn back_up(
    repository: &Arc<Repository>,
    snapshot: &str,
    numbers: impl IntoIterator<Item = u64>,
) -> Vec<ChunkManifest> {
    let writer = Writer::begin(Arc::clone(repository), options(snapshot)).await.unwrap();
    let chunks = put(&writer, numbers).await.unwrap();
    writer.commit(manifest(snapshot, &chunks)).await.unwrap();
    writer.end().await.unwrap();
    chunks
}

/// Without a grace time.
fn prune_now() -> PruneOptions {
    PruneOptions {
        grace: Duration::ZERO,
        now: Timestamp::UNIX_EPOCH,
        silence: PruneOptions::SILENCE,
        dry_run: false,
    }
}

async fn keys(store: &Arc<dyn Store>, prefix: &str) -> Vec<String> {
    let objects = store.list(prefix).await.unwrap();
    objects.into_iter().map(|object| object.key).collect()
}

async fn delete_snapshot(store: &Arc<dyn Store>, snapshot: &str) {
    store.delete(&[layout::manifest(snapshot)]).await.unwrap();
}

async fn put_object(store: &Arc<dyn Store>, key: &str, content: impl Into<Bytes>) {
    store::put(&**store, key, content.into()).await.unwrap();
}
