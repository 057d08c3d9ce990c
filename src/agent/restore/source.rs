//! What is restored: the snapshot, its manifest, the database in it, and its archive up to the table of contents.
//! Reads only.

use std::sync::Arc;

use futures::TryStreamExt as _;
use sha2::{Digest, Sha256};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::{chunk_objects, identity};
use crate::agent::Context;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::restore::SnapshotSource;
use crate::plan::restore_findings::{Locale, Snapshot};
use crate::postgres::archive::{ArchiveError, ArchiveReader, Toc};
use crate::store::encryption::{self, Identities};
use crate::store::manifest::{
    self, BackupReference, DatabaseManifest, LocaleManifest, Manifest, ObjectKind, ObjectManifest,
};
use crate::store::repository::Repository;
use crate::store::{self, Store, StoreError, layout};

/// Archives up to this size are read to the end before anything is changed: a damaged one is found before a database
/// is made. Larger ones are held against their hash as they are restored, and what was made is dropped if they fail.
const READ_AHEAD_BYTES: u64 = 64 << 20;

/// What is restored.
pub(super) struct Source {
    store: Arc<dyn Store>,
    /// The manifest of the snapshot.
    pub manifest: Manifest,
    /// SHA-256 of the manifest, in hex.
    pub manifest_sha256: String,
    /// Name of the database in the backup.
    pub database: String,
    /// The archive's object.
    archive: ObjectManifest,
    /// What decrypts the backup; `None` where it is not encrypted.
    identities: Option<Arc<Identities>>,
    /// The archive's table of contents, as it is stored.
    pub toc: Toc,
    /// Where the chunks are, if rows of the database are stored as chunks.
    pub repository: Option<Arc<Repository>>,
}

impl Source {
    /// Finds the snapshot and checks everything that can be checked without restoring it.
    pub(super) async fn find(source: &SnapshotSource, context: &Context) -> Result<Self, Refusal> {
        let store = store::open(&source.storage, &*context.references).await?;
        let (snapshot, bytes) = match &source.snapshot {
            Some(snapshot) => (snapshot.clone(), read_manifest(&*store, snapshot).await?),
            None => newest(&*store, source).await?,
        };
        let sha256 = hex::encode(Sha256::digest(&bytes));
        check_hash(source, &snapshot, &sha256)?;
        let manifest = Manifest::read(&bytes)?;
        check_origin(source, &manifest)?;
        let database = choose_database(source, &manifest)?.name.clone();
        let archive = check_objects(&*store, &manifest, &database).await?;
        let identities = identity::find(source, &manifest, context).await?;
        identity::prove(&*store, &manifest, &archive, identities.as_ref()).await?;
        let toc = read_toc(&*store, &archive, identities.as_ref()).await?;
        let repository = chunk_objects::open(&store, &manifest, &database, identities.as_ref()).await?;
        let found = Self {
            store,
            manifest,
            manifest_sha256: sha256,
            database,
            archive,
            identities,
            toc,
            repository,
        };
        found.check_toc()?;
        Ok(found)
    }

    /// The database in the manifest.
    pub(super) fn manifest_database(&self) -> Result<&DatabaseManifest, Refusal> {
        self.manifest
            .database(&self.database)
            .ok_or_else(|| no_such_database(&self.manifest, &self.database))
    }

    /// Where the snapshot is, without credentials.
    pub(super) fn location(&self) -> String {
        format!(
            "{}/{}",
            self.store.location(),
            layout::snapshot_prefix(&self.manifest.snapshot)
        )
    }

    /// The archive from its beginning; its size and SHA-256 are checked at its end.
    pub(super) async fn open_archive(&self) -> Result<ArchiveReader, Refusal> {
        open(&*self.store, &self.archive, self.identities.as_ref())
            .await
            .map_err(|error| self.refusal(error))
    }

    /// `globals.sql`, checked; `None` where the backup has none.
    pub(super) async fn globals(&self) -> Result<Option<String>, Refusal> {
        let Some(object) = self.manifest.object(ObjectKind::Globals, None) else {
            return Ok(None);
        };
        let stream = encryption::content(&*self.store, object, self.identities.as_ref()).await?;
        let chunks: Vec<_> = stream.try_collect().await?;
        Ok(Some(String::from_utf8_lossy(&chunks.concat()).into_owned()))
    }

    /// An error of reading the archive in words, with the store's own reason where the store is to blame.
    pub(super) fn refusal(&self, error: ArchiveError) -> Refusal {
        archive_refusal(error, &self.archive)
    }

    /// What decides over the restore.
    pub(super) fn findings(&self) -> Result<Snapshot, Refusal> {
        let database = self.manifest_database()?;
        let LocaleManifest {
            encoding,
            provider,
            collate,
            ctype,
            locale,
            icu_rules,
            collation_version: _,
        } = database.locale.clone();
        Ok(Snapshot {
            id: self.manifest.snapshot.clone(),
            manifest_sha256: self.manifest_sha256.clone(),
            database: database.name.clone(),
            server_major: self.manifest.server.major(),
            sections: self.manifest.selection.sections,
            archive_bytes: self.archive.size,
            chunks: chunk_objects::chunks(database).count() as u64,
            chunk_bytes: chunk_objects::chunks(database).map(|chunk| chunk.stored_bytes).sum(),
            tables: database.tables,
            rows: database.rows,
            locale: Locale {
                encoding,
                provider,
                collate,
                ctype,
                locale,
                icu_rules,
            },
        })
    }

    /// The rows that the manifest speaks of must be rows that the archive has.
    fn check_toc(&self) -> Result<(), Refusal> {
        for relation in &self.manifest_database()?.relations {
            let Some(data) = &relation.data else { continue };
            let there = self
                .toc
                .entries
                .iter()
                .any(|entry| entry.dump_id == data.dump_id && entry.has_data && entry.catalog_oid == relation.oid);
            if !there {
                let message = format!(
                    "The archive {:?} has no rows of {:?}.{:?}, which the manifest speaks of.",
                    self.archive.key, relation.schema, relation.name
                );
                return Err(Refusal::permanent(reasons::OBJECT_CHANGED, message)
                    .object(&self.archive.key)
                    .hint("The object was changed after the backup: use another backup."));
            }
        }
        Ok(())
    }
}

pub(in crate::agent) async fn read_manifest(store: &dyn Store, snapshot: &str) -> Result<bytes::Bytes, Refusal> {
    let key = layout::manifest(snapshot);
    match store::read_all(store, &key, manifest::SIZE_LIMIT_BYTES).await {
        Ok(bytes) => Ok(bytes),
        Err(error @ StoreError::ObjectMissing { .. }) => {
            let message = format!("The snapshot {snapshot:?} has no manifest, so it is no backup: {error}.");
            Err(Refusal::permanent(reasons::MANIFEST_INVALID, message)
                .object(key)
                .hint("The backup was not finished, or was deleted: use another one."))
        }
        Err(error) => Err(error.into()),
    }
}

/// The newest snapshot that the named backup made. Snapshot ids sort by time.
async fn newest(store: &dyn Store, source: &SnapshotSource) -> Result<(String, bytes::Bytes), Refusal> {
    let objects = store.list("snapshots/").await?;
    let mut snapshots: Vec<_> = objects
        .iter()
        .filter_map(|object| object.key.strip_prefix("snapshots/")?.strip_suffix("/manifest.json"))
        .collect();
    snapshots.sort_unstable();
    for snapshot in snapshots.into_iter().rev() {
        let bytes = read_manifest(store, snapshot).await?;
        match Manifest::read(&bytes) {
            Ok(manifest) if is_of(source, &manifest.backup) => return Ok((snapshot.to_owned(), bytes)),
            // An older one in the place of the newest would be taken for it.
            Err(error) if names_backup(source, &bytes) => return Err(error.into()),
            // One that cannot be read is not known to be of this backup.
            Ok(_) | Err(_) => {}
        }
    }
    let backup = format!("{}/{}", source.backup_namespace, source.backup_name);
    Err(Refusal::permanent(
        reasons::BACKUP_NOT_FOUND,
        format!("{} holds no finished backup of {backup}.", store.location()),
    )
    .object(backup)
    .hint("Run the backup first, and check that both manifests name the same storage."))
}

/// Whether a manifest that cannot be read as a whole, such as one of a newer format, still says whose it is.
fn names_backup(source: &SnapshotSource, bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Named {
        backup: BackupReference,
    }
    serde_json::from_slice::<Named>(bytes).is_ok_and(|named| is_of(source, &named.backup))
}

fn is_of(source: &SnapshotSource, backup: &BackupReference) -> bool {
    backup.namespace == source.backup_namespace && backup.name == source.backup_name
}

fn check_hash(source: &SnapshotSource, snapshot: &str, found: &str) -> Result<(), Refusal> {
    match &source.manifest_sha256 {
        Some(expected) if expected != found => {
            let key = layout::manifest(snapshot);
            let message = format!(
                "The object {key:?} is not the manifest that the backup stored: its SHA-256 was {expected} and is {found}."
            );
            Err(Refusal::permanent(reasons::OBJECT_CHANGED, message)
                .object(key)
                .hint("It was changed after the backup: use another backup."))
        }
        _ => Ok(()),
    }
}

fn check_origin(source: &SnapshotSource, manifest: &Manifest) -> Result<(), Refusal> {
    if is_of(source, &manifest.backup) {
        return Ok(());
    }
    let message = format!(
        "The snapshot {:?} was made by the backup {}/{}, not by {}/{}.",
        manifest.snapshot, manifest.backup.namespace, manifest.backup.name, source.backup_namespace, source.backup_name
    );
    Err(Refusal::permanent(reasons::MANIFEST_INVALID, message)
        .object(&manifest.snapshot)
        .hint("Name the backup that made the snapshot in spec.source.backup."))
}

fn no_such_database(manifest: &Manifest, database: &str) -> Refusal {
    let names: Vec<_> = manifest
        .databases
        .iter()
        .map(|each| format!("{:?}", each.name))
        .collect();
    Refusal::permanent(
        reasons::DATABASE_MISSING,
        format!("The backup has no database {database:?}."),
    )
    .object(database)
    .hint(format!(
        "Name one of {} in spec.source.backup.database.",
        names.join(", ")
    ))
}

fn choose_database<'a>(source: &SnapshotSource, manifest: &'a Manifest) -> Result<&'a DatabaseManifest, Refusal> {
    match (&source.database, manifest.databases.as_slice()) {
        (Some(name), _) => manifest.database(name).ok_or_else(|| no_such_database(manifest, name)),
        (None, [only]) => Ok(only),
        (None, several) => {
            let names: Vec<_> = several.iter().map(|each| format!("{:?}", each.name)).collect();
            let message = format!("The backup holds {} databases: {}.", several.len(), names.join(", "));
            Err(Refusal::permanent(reasons::INVALID_SPEC, message)
                .object("spec.source.backup.database")
                .hint("Name one of them in spec.source.backup.database."))
        }
    }
}

/// Checks that every object of the database is there with its size; returns the archive.
pub(in crate::agent) async fn check_objects(
    store: &dyn Store,
    manifest: &Manifest,
    database: &str,
) -> Result<ObjectManifest, Refusal> {
    let mut wrong = Vec::new();
    let mut reason = reasons::OBJECT_MISSING;
    for object in &manifest.objects {
        if object.database.as_deref().is_some_and(|of| of != database) {
            continue;
        }
        match store.stat(&object.key).await? {
            None => wrong.push(format!("{:?} is missing", object.key)),
            Some(found) if found.size != object.size => {
                reason = reasons::OBJECT_CHANGED;
                wrong.push(format!(
                    "{:?} has {} bytes instead of {}",
                    object.key, found.size, object.size
                ));
            }
            Some(_) => {}
        }
    }
    if !wrong.is_empty() {
        let message = format!("The backup in {} is damaged: {}.", store.location(), wrong.join(", "));
        return Err(Refusal::permanent(reason, message)
            .object(&manifest.snapshot)
            .hint("Use another backup, or bring the objects back from a replica or a version of the bucket."));
    }
    manifest
        .object(ObjectKind::Archive, Some(database))
        .cloned()
        .ok_or_else(|| {
            Refusal::permanent(
                reasons::MANIFEST_INVALID,
                format!("The manifest names no archive of {database:?}."),
            )
        })
}

/// The bytes of an archive, decrypted where there are identities; their size and SHA-256 are checked at their end.
pub(in crate::agent) async fn archive_bytes(
    store: &dyn Store,
    archive: &ObjectManifest,
    identities: Option<&Arc<Identities>>,
) -> Result<impl AsyncRead + Unpin + Send + use<>, ArchiveError> {
    let to_io = |error: StoreError| std::io::Error::other(error);
    let content = encryption::content(store, archive, identities)
        .await
        .map_err(|error| ArchiveError::Read(to_io(error)))?;
    Ok(StreamReader::new(content.map_err(to_io)))
}

async fn open(
    store: &dyn Store,
    archive: &ObjectManifest,
    identities: Option<&Arc<Identities>>,
) -> Result<ArchiveReader, ArchiveError> {
    ArchiveReader::open(archive_bytes(store, archive, identities).await?).await
}

/// Reads the table of contents, a second time where the bytes are not those that were stored: they may have changed on
/// the way.
async fn read_toc(
    store: &dyn Store,
    archive: &ObjectManifest,
    identities: Option<&Arc<Identities>>,
) -> Result<Toc, Refusal> {
    match try_read_toc(store, archive, identities).await {
        Err(refusal) if refusal.reason == reasons::OBJECT_CHANGED => try_read_toc(store, archive, identities).await,
        read => read,
    }
}

async fn try_read_toc(
    store: &dyn Store,
    archive: &ObjectManifest,
    identities: Option<&Arc<Identities>>,
) -> Result<Toc, Refusal> {
    let refusal = |error| archive_refusal(error, archive);
    let mut reader = open(store, archive, identities).await.map_err(refusal)?;
    if archive.size <= READ_AHEAD_BYTES {
        while reader.next_block_bytes().await.map_err(refusal)?.is_some() {}
    }
    Ok(reader.into_toc())
}

/// An error of reading an archive in words, with the store's own reason where the store is to blame.
pub(in crate::agent) fn archive_refusal(error: ArchiveError, archive: &ObjectManifest) -> Refusal {
    match error {
        ArchiveError::Read(source) => match source
            .into_inner()
            .map(<dyn std::error::Error + Send + Sync>::downcast::<StoreError>)
        {
            Some(Ok(store)) => Refusal::from(*store).object(&archive.key),
            Some(Err(other)) => ArchiveError::Read(std::io::Error::other(other)).into_refusal(reasons::STORE_FAILED),
            None => Refusal::temporary(
                reasons::STORE_FAILED,
                format!("The archive {:?} cannot be read.", archive.key),
            ),
        },
        other => other
            .into_refusal(reasons::OBJECT_CHANGED)
            .object(&archive.key)
            .hint("The object is damaged: use another backup."),
    }
}
