//! What a storage holds: its snapshots, and what their chunks take.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::Serialize;

use super::key_hash::KeyHash;
use super::lock::{self, Lock};
use super::references::{self, Found, SnapshotManifest};
use super::{ChunkName, Repository, RepositoryError, condemned};
use crate::store::manifest::{ChunkManifest, DataFormat};
use crate::store::{Store, layout};

/// One backup of a storage.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSummary {
    /// Snapshot id.
    pub snapshot: String,
    /// Namespace and name of the backup; empty where the manifest cannot be read.
    pub backup: String,
    /// When it was finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<Timestamp>,
    /// How its rows are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_format: Option<DataFormat>,
    /// To whom it is encrypted; nobody where it is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// Its databases.
    pub databases: Vec<String>,
    /// Rows of all of them.
    pub rows: u64,
    /// Bytes that it takes in the store, also where it shares them with other backups.
    pub bytes: u64,
    /// Why the manifest cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A backup that writes, or that died.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WriterSummary {
    /// UID of its run.
    pub run: String,
    /// Snapshot that it is going to commit.
    pub snapshot: String,
    /// When it began, by its own clock.
    pub started: Timestamp,
    /// When it last renewed its lock, by its own clock.
    pub renewed: Timestamp,
}

/// What the chunks of a repository take.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatistics {
    /// Id of the repository.
    pub id: String,
    /// Version of its format.
    pub format_version: u32,
    /// Backups with chunks.
    pub snapshots: u64,
    /// Bytes of the COPY streams of all backups.
    pub row_bytes: u64,
    /// Chunks that manifests name, each once.
    pub chunks: u64,
    /// Bytes of their COPY streams, each once.
    pub chunk_bytes: u64,
    /// Bytes that they take in the store.
    pub stored_bytes: u64,
    /// Chunks and packs in the store.
    pub objects: u64,
    /// Bytes of them.
    pub object_bytes: u64,
    /// Bytes of objects that no manifest names: of backups that run or died, or left for the next prune.
    pub unreferenced_bytes: u64,
    /// Bytes in packs that no manifest names, in packs that are needed for other chunks.
    pub unused_pack_bytes: u64,
    /// Bytes of objects that a prune has condemned and that are still there.
    pub condemned_bytes: u64,
    /// Backups that write, or that died and were not given up yet.
    pub writers: Vec<WriterSummary>,
}

/// The backups of a storage, oldest first; also of one without chunks.
pub async fn snapshots(store: &dyn Store) -> Result<Vec<SnapshotSummary>, RepositoryError> {
    let mut summaries = Vec::new();
    for snapshot in references::list(store).await? {
        match references::read(store, &snapshot).await {
            Ok(Found::Manifest(manifest)) => summaries.push(summary(&manifest)),
            Ok(Found::Abandoned(_) | Found::Nothing) => {}
            Err(RepositoryError::Unreadable { problem, .. }) => summaries.push(SnapshotSummary {
                snapshot,
                backup: String::new(),
                completed: None,
                data_format: None,
                recipients: Vec::new(),
                databases: Vec::new(),
                rows: 0,
                bytes: 0,
                problem: Some(problem),
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(summaries)
}

fn summary(manifest: &SnapshotManifest) -> SnapshotSummary {
    let distinct: HashMap<&str, u64> = chunks(manifest)
        .map(|chunk| (chunk.name.as_str(), chunk.stored_bytes))
        .collect();
    let objects: u64 = manifest.objects.iter().map(|object| object.size).sum();
    SnapshotSummary {
        snapshot: manifest.snapshot.clone(),
        backup: format!("{}/{}", manifest.backup.namespace, manifest.backup.name),
        completed: Some(manifest.completed),
        data_format: Some(manifest.data_format),
        recipients: manifest.recipients().to_vec(),
        databases: manifest
            .databases
            .iter()
            .map(|database| database.name.clone())
            .collect(),
        rows: manifest.databases.iter().map(|database| database.rows).sum(),
        bytes: objects + distinct.values().sum::<u64>(),
        problem: None,
    }
}

fn chunks(manifest: &SnapshotManifest) -> impl Iterator<Item = &ChunkManifest> {
    manifest
        .relations()
        .filter_map(|(_, relation)| relation.chunks.as_ref())
        .flat_map(|rows| &rows.chunks)
}

impl Repository {
    /// Counts what is there. Backups that are finished or deleted meanwhile may be counted in part.
    pub async fn statistics(&self) -> Result<RepositoryStatistics, RepositoryError> {
        let store = &*self.store;
        let mut statistics = RepositoryStatistics {
            id: self.configuration.id.clone(),
            format_version: self.configuration.format_version,
            ..RepositoryStatistics::default()
        };
        let used = count_manifests(store, &mut statistics).await?;
        count_objects(store, &used, &mut statistics).await?;
        let locks = lock::read_all(store).await?;
        statistics.writers = locks.into_iter().filter(|lock| !lock.ended).map(writer).collect();
        Ok(statistics)
    }
}

fn writer(lock: Lock) -> WriterSummary {
    let Lock {
        writer: _,
        run,
        snapshot,
        started,
        renewed,
        beat: _,
        seen: _,
        ended: _,
    } = lock;
    WriterSummary {
        run,
        snapshot,
        started,
        renewed,
    }
}

/// Bytes that manifests name, by object.
async fn count_manifests(
    store: &dyn Store,
    statistics: &mut RepositoryStatistics,
) -> Result<HashMap<KeyHash, u64>, RepositoryError> {
    let mut used: HashMap<KeyHash, u64> = HashMap::new();
    let mut counted: HashSet<(ChunkName, KeyHash)> = HashSet::new();
    for snapshot in references::list(store).await? {
        let Found::Manifest(manifest) = references::read(store, &snapshot).await? else {
            continue;
        };
        statistics.snapshots += u64::from(manifest.data_format == DataFormat::Chunks);
        for chunk in chunks(&manifest) {
            statistics.row_bytes += chunk.bytes;
            let object = KeyHash::of(&chunk.object);
            let Ok(name) = chunk.name.parse() else { continue };
            if counted.insert((name, object)) {
                statistics.chunks += 1;
                statistics.chunk_bytes += chunk.bytes;
                statistics.stored_bytes += chunk.stored_bytes;
                *used.entry(object).or_default() += chunk.stored_bytes;
            }
        }
    }
    Ok(used)
}

async fn count_objects(
    store: &dyn Store,
    used: &HashMap<KeyHash, u64>,
    statistics: &mut RepositoryStatistics,
) -> Result<(), RepositoryError> {
    let condemned = condemned::hashes(&condemned::read_all(store).await?);
    for prefix in [layout::CHUNKS, layout::PACKS] {
        for object in store.list(prefix).await? {
            let hash = KeyHash::of(&object.key);
            statistics.objects += 1;
            statistics.object_bytes += object.size;
            match used.get(&hash) {
                Some(bytes) => statistics.unused_pack_bytes += object.size.saturating_sub(*bytes),
                None => statistics.unreferenced_bytes += object.size,
            }
            if condemned.contains(&hash) {
                statistics.condemned_bytes += object.size;
            }
        }
    }
    Ok(())
}
