//! What the manifests name. Only the fields that are needed are read.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::RepositoryError;
use super::key_hash::KeyHash;
use crate::store::manifest::{
    self, BackupReference, ChunkedRows, DataFormat, EncryptionManifest, ObjectLockManifest, ObjectManifest,
};
use crate::store::{self, Retention, Store, StoreError, layout};

/// A manifest, as far as the repository needs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SnapshotManifest {
    pub snapshot: String,
    pub backup: BackupReference,
    pub completed: Timestamp,
    pub data_format: DataFormat,
    #[serde(default)]
    pub object_lock: Option<ObjectLockManifest>,
    #[serde(default)]
    pub encryption: Option<EncryptionManifest>,
    pub databases: Vec<SnapshotDatabase>,
    pub objects: Vec<ObjectManifest>,
}

/// A database of a snapshot.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SnapshotDatabase {
    pub name: String,
    pub rows: u64,
    pub relations: Vec<SnapshotRelation>,
}

/// A relation of a database.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SnapshotRelation {
    pub schema: String,
    pub name: String,
    #[serde(default)]
    pub chunks: Option<ChunkedRows>,
}

/// What lies in the place of a manifest that will never be written: a prune took the backup for dead.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Abandoned {
    /// Id of the writer.
    pub writer: String,
    /// For people alone.
    pub abandoned: Timestamp,
}

/// What lies in the place of a manifest.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Manifest(Box<SnapshotManifest>),
    Abandoned(Abandoned),
    Nothing,
}

/// Snapshots that have something in the place of their manifest, oldest first.
pub(super) async fn list(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let objects = store.list(layout::SNAPSHOTS).await?;
    let snapshots = objects
        .iter()
        .filter_map(|object| layout::snapshot_of_manifest(&object.key));
    Ok(snapshots.map(str::to_owned).collect())
}

/// Reads what lies in the place of a snapshot's manifest.
pub(super) async fn read(store: &dyn Store, snapshot: &str) -> Result<Found, RepositoryError> {
    let key = layout::manifest(snapshot);
    match store::read_all(store, &key, manifest::SIZE_LIMIT_BYTES).await {
        Ok(bytes) => parse(&bytes).map_err(|problem| RepositoryError::Unreadable { key, problem }),
        Err(StoreError::ObjectMissing { .. }) => Ok(Found::Nothing),
        Err(error) => Err(error.into()),
    }
}

fn parse(bytes: &[u8]) -> Result<Found, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        format_version: u64,
    }
    if let Ok(abandoned) = serde_json::from_slice::<Abandoned>(bytes) {
        return Ok(Found::Abandoned(abandoned));
    }
    let Version { format_version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if format_version > u64::from(manifest::FORMAT_VERSION) {
        return Err(format!("it has the newer format {format_version}"));
    }
    let manifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(Found::Manifest(Box::new(manifest)))
}

/// Hashes of the keys of all chunks and packs that some manifest names. A manifest that cannot be read is an error:
/// what it names may be needed.
pub(super) async fn referenced(store: &dyn Store) -> Result<HashSet<KeyHash>, RepositoryError> {
    let mut hashes = HashSet::new();
    for snapshot in list(store).await? {
        if let Found::Manifest(manifest) = read(store, &snapshot).await? {
            hashes.extend(manifest.chunk_objects());
        }
    }
    Ok(hashes)
}

/// Those of the objects that must still be locked, so that all of them are kept as `retention` says. A backup has
/// locked everything that its manifest names before the manifest was written: what such a manifest says saves a
/// request for each object, and a retention that is longer is not touched. A manifest that cannot be read saves
/// nothing.
pub async fn not_yet_locked(
    store: &dyn Store,
    mut objects: Vec<String>,
    retention: Retention,
) -> Result<Vec<String>, RepositoryError> {
    for snapshot in list(store).await? {
        let manifest = match read(store, &snapshot).await {
            Ok(Found::Manifest(manifest)) => manifest,
            Ok(Found::Abandoned(_) | Found::Nothing) | Err(RepositoryError::Unreadable { .. }) => continue,
            Err(error) => return Err(error),
        };
        let covers = |lock: &ObjectLockManifest| Retention::from(*lock).covers(retention);
        if manifest.object_lock.as_ref().is_some_and(covers) {
            let locked: HashSet<KeyHash> = manifest.chunk_objects().collect();
            objects.retain(|key| *key != layout::REPOSITORY && !locked.contains(&KeyHash::of(key)));
        }
    }
    Ok(objects)
}

impl SnapshotManifest {
    /// Hashes of the keys of its chunks and packs.
    fn chunk_objects(&self) -> impl Iterator<Item = KeyHash> {
        let rows = self.relations().filter_map(|(_, relation)| relation.chunks.as_ref());
        rows.flat_map(|rows| &rows.chunks)
            .map(|chunk| KeyHash::of(&chunk.object))
    }

    /// To whom it is encrypted; nobody where it is not.
    pub(super) fn recipients(&self) -> &[String] {
        self.encryption
            .as_ref()
            .map_or(&[], |encryption| &encryption.age.recipients)
    }

    /// Every relation with its database.
    pub(super) fn relations(&self) -> impl Iterator<Item = (&SnapshotDatabase, &SnapshotRelation)> {
        self.databases
            .iter()
            .flat_map(|database| database.relations.iter().map(move |relation| (database, relation)))
    }
}
