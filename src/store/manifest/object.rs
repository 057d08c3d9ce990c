//! The stored objects of a backup.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::storage::ObjectLockMode;
use crate::store::{Retention, StoredObject};

/// A stored object.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectManifest {
    /// Key, relative to the prefix of the storage.
    pub key: String,
    /// What it is.
    pub kind: ObjectKind,
    /// Database that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
}

/// What a stored object is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// `globals.sql`: roles, memberships and tablespaces, by pg_dumpall.
    Globals,
    /// `archive.dump`: all sections of a database, by pg_dump, format custom.
    Archive,
    /// `pre-data.sql`: the first section of the archive in plain text.
    PreData,
}

/// How the objects of a backup are kept from deletion.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectLockManifest {
    /// Who may delete them sooner.
    pub mode: ObjectLockMode,
    /// Until when; a later backup may have made it longer for what it shares.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub until: Timestamp,
}

impl From<Retention> for ObjectLockManifest {
    fn from(Retention { mode, until }: Retention) -> Self {
        Self { mode, until }
    }
}

impl From<ObjectLockManifest> for Retention {
    fn from(ObjectLockManifest { mode, until }: ObjectLockManifest) -> Self {
        Self { mode, until }
    }
}

impl ObjectManifest {
    /// An object as it was stored.
    #[must_use]
    pub fn new(stored: StoredObject, kind: ObjectKind, database: Option<&str>) -> Self {
        let StoredObject { key, size, sha256 } = stored;
        Self {
            key,
            kind,
            database: database.map(str::to_owned),
            size,
            sha256,
        }
    }

    /// As the store checks it while it is read.
    #[must_use]
    pub fn stored(&self) -> StoredObject {
        StoredObject {
            key: self.key.clone(),
            size: self.size,
            sha256: self.sha256.clone(),
        }
    }
}
