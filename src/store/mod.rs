//! Where artefacts are kept: S3, a volume or a folder behind one trait, and the layout inside.

mod content;
pub mod encryption;
pub mod error;
pub mod folder;
mod key;
pub mod layout;
pub mod manifest;
pub mod repository;
pub mod s3;
pub mod volume;

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;

use crate::api::storage::ObjectLockMode;
use crate::plan::storage::StoragePlan;
use crate::references::References;

pub use content::{put, put_hashed, put_new, read_all, verified};
pub use error::StoreError;

/// Opens the storage of a plan. Nothing is asked of the store yet: `Store::check_access` does that.
pub async fn open(plan: &StoragePlan, references: &dyn References) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match plan {
        StoragePlan::S3(s3) => Arc::new(s3::S3Store::open(s3, references).await?),
        StoragePlan::Volume { claim_name, path } => Arc::new(volume::open(claim_name, path)?),
        StoragePlan::Folder { path } => Arc::new(folder::FolderStore::new(path)),
    })
}

/// Opens the storage of a plan for a backup that begins now: its objects are kept from deletion where the plan says so.
/// Nothing that is no part of a backup may be written through it but locks.
pub async fn open_for_backup(plan: &StoragePlan, references: &dyn References) -> Result<Arc<dyn Store>, StoreError> {
    match plan {
        StoragePlan::S3(s3) => {
            let store = s3::S3Store::open(s3, references).await?;
            Ok(Arc::new(store.retaining(s3.objects.object_lock, Timestamp::now())))
        }
        StoragePlan::Volume { .. } | StoragePlan::Folder { .. } => open(plan, references).await,
    }
}

/// How an object is kept from deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Who may delete it sooner.
    pub mode: ObjectLockMode,
    /// Until when.
    pub until: Timestamp,
}

impl Retention {
    /// Whether an object that is kept like this needs nothing more to be kept like `other`.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.mode >= other.mode && self.until >= other.until
    }
}

/// Bytes of an object as they arrive.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// An object as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Key, relative to the prefix of the storage.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
}

/// An object as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Key, relative to the prefix of the storage.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of its content, in hex, computed while it was sent.
    pub sha256: String,
}

/// A bucket prefix or a folder. Keys are relative to it, with `/` between parts.
#[async_trait]
pub trait Store: Send + Sync {
    /// Where this is, without credentials: `s3://bucket/prefix`, `volume://claim/path`, `file:///path`.
    fn location(&self) -> String;

    /// Begins an object, in the place of one that may be there. Nothing can be read under the key before
    /// `Upload::finish`. Memory is bounded by the part size.
    async fn create(&self, key: &str) -> Result<Box<dyn Upload>, StoreError>;

    /// As `create`, but `Upload::finish` ends as `StoreError::ObjectExists` and changes nothing where there is an
    /// object by then; the store itself decides.
    async fn create_new(&self, key: &str) -> Result<Box<dyn Upload>, StoreError>;

    /// Reads an object, or the bytes `range` of it. A missing one is `StoreError::ObjectMissing`; a range that the
    /// object does not have is `StoreError::RangeOutside`. Where a connection is cut the stream goes on from the same
    /// byte.
    async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<ByteStream, StoreError>;

    /// Size of an object, `None` where there is none.
    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError>;

    /// Every object whose key begins with `prefix`, in the order of their keys.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError>;

    /// Deletes objects; a missing one is no error. Where some are locked, the others are deleted, and
    /// `StoreError::ObjectsLocked` names those.
    async fn delete(&self, keys: &[String]) -> Result<(), StoreError>;

    /// How `lock` keeps objects from deletion; `None` where the storage asks for nothing like that.
    fn retention(&self) -> Option<Retention>;

    /// Keeps objects from deletion as `retention` says. One that is kept for as long already stays as it is.
    async fn lock(&self, keys: &[String]) -> Result<(), StoreError>;

    /// Until when an object cannot be deleted; `None` where it can.
    async fn locked_until(&self, key: &str) -> Result<Option<Timestamp>, StoreError>;

    /// Aborts unfinished uploads under `prefix`, which an agent that died left behind. Returns how many.
    async fn abort_uploads(&self, prefix: &str) -> Result<usize, StoreError>;

    /// Proves, without leaving anything behind, that objects can be listed under the prefix; with `write` also that
    /// an object can be begun there and aborted, with all that the storage asks for. The right to delete is not asked for: credentials that can only add
    /// are a good choice for backups.
    async fn check_access(&self, write: bool) -> Result<(), StoreError>;
}

/// An object that is being written. One that is dropped is aborted in the background as far as the process lives on.
#[async_trait]
pub trait Upload: Send {
    /// The SHA-256, in hex, of all that will be written, from a caller that knows it before the first write: it need not
    /// be computed again.
    fn set_sha256(&mut self, _sha256: &str) {}

    /// Appends bytes. After an error the upload can only be aborted.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes the object visible, whole, its checksum verified by the store. An error leaves nothing behind.
    async fn finish(self: Box<Self>) -> Result<StoredObject, StoreError>;

    /// Leaves nothing behind.
    async fn abort(self: Box<Self>) -> Result<(), StoreError>;
}
