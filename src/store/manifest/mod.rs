//! `manifest.json`: what a backup holds and where it came from. Its format is published (`docs/manifest.md`,
//! `docs/manifest.schema.json`). No password stands in it.

mod chunks;
mod database;
mod encryption;
mod foreign;
mod object;
mod relation;
mod server;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use chunks::{ChunkManifest, ChunkTotals, ChunkedRows, RowFormat};
pub use database::{
    DatabaseManifest, ExtensionManifest, GrantManifest, LocaleManifest, SchemaManifest, SettingManifest,
    SubscriptionManifest,
};
pub use encryption::{AgeManifest, EncryptionManifest};
pub use foreign::{ForeignDataWrapperManifest, ForeignServerManifest, UserMappingManifest};
pub use object::{ObjectKind, ObjectLockManifest, ObjectManifest};
pub use relation::{
    ColumnManifest, ConstraintManifest, DataManifest, ForeignTableManifest, IndexManifest, PartitioningManifest,
    Persistence, RelationKind, RelationManifest,
};
pub use server::{
    Connector, MembershipManifest, RoleManifest, RoleSettingManifest, ServerManifest, TablespaceManifest, ToolManifest,
};

pub use crate::api::backup::DataFormat;
use crate::api::backup::{Compression, ForeignCredentials, RolePasswords, TableName, UnloggedTableData};
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::backup::{Choice, Sections};
use crate::plan::refusal::sentence;

/// The newest format that this release reads, and what it writes of encrypted backups. Fields may be added without a
/// new number; a number means that an older reader would misunderstand.
pub const FORMAT_VERSION: u32 = 2;

/// The format of backups that are not encrypted: releases from before encryption read it.
pub const PLAIN_FORMAT_VERSION: u32 = 1;

/// Largest manifest that is read, in bytes.
pub const SIZE_LIMIT_BYTES: u64 = 1 << 30;

/// A finished backup. It is the last object that a backup writes: without it there is no backup.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this format: 1, or 2 where the backup is encrypted.
    pub format_version: u32,
    /// Snapshot id.
    pub snapshot: String,
    /// Resource that asked for the backup.
    pub backup: BackupReference,
    /// When the backup began.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started: Timestamp,
    /// When everything but the manifest was stored.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub completed: Timestamp,
    /// What made it.
    pub tools: ToolManifest,
    /// How the rows are stored.
    pub data_format: DataFormat,
    /// How the objects and chunks are encrypted; `None` where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionManifest>,
    /// What was asked for.
    pub selection: SelectionManifest,
    /// The server.
    pub server: ServerManifest,
    /// Roles of the server, by name.
    pub roles: Vec<RoleManifest>,
    /// Memberships of roles in roles.
    pub memberships: Vec<MembershipManifest>,
    /// `ALTER ROLE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    pub role_settings: Vec<RoleSettingManifest>,
    /// Tablespaces of the server, by name.
    pub tablespaces: Vec<TablespaceManifest>,
    /// How its objects, and the chunks that it names, were kept from deletion when it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_lock: Option<ObjectLockManifest>,
    /// Databases of the backup, by name.
    pub databases: Vec<DatabaseManifest>,
    /// Every object that the backup has to itself, but the manifest.
    pub objects: Vec<ObjectManifest>,
    /// Sums over the chunks of all relations, where rows are stored as chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<ChunkTotals>,
    /// Descriptive fields that could not be read.
    pub omissions: Vec<Omission>,
    /// What the reader should know.
    pub warnings: Vec<String>,
}

/// Resource that asked for a backup.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SelectionManifest {
    /// Which halves of a dump.
    pub sections: Sections,
    /// Which schemas.
    pub schemas: Choice<String>,
    /// Which tables.
    pub tables: Choice<TableName>,
    /// Tables whose rows were left out.
    pub exclude_table_data: Vec<TableName>,
    /// Rows of unlogged tables.
    pub unlogged_table_data: UnloggedTableData,
    /// How rows are compressed.
    pub compression: Compression,
    /// Credentials of user mappings and subscriptions.
    pub foreign_credentials: ForeignCredentials,
    /// Password verifiers of roles; `Omit` also where they could not be read.
    pub role_passwords: RolePasswords,
}

/// A descriptive field that could not be read.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Omission {
    /// Database, where it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Path of the field in the manifest.
    pub field: String,
    /// Why, in a sentence.
    pub reason: String,
}

/// A manifest that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It was written by a newer release.
    #[error("the manifest has format {found}; this release of pgrescue reads formats up to {FORMAT_VERSION}")]
    TooNew {
        /// Its format.
        found: u64,
    },
    /// It is not JSON of this form.
    #[error("the manifest cannot be read: {0}")]
    Invalid(#[source] serde_json::Error),
    /// It contradicts itself.
    #[error("the manifest is inconsistent: {0}")]
    Inconsistent(String),
}

impl From<ManifestError> for Refusal {
    fn from(error: ManifestError) -> Self {
        let message = sentence(&error.to_string());
        match error {
            ManifestError::TooNew { .. } => Self::permanent(reasons::MANIFEST_TOO_NEW, message)
                .hint("Restore with a release of pgrescue that is at least as new as the one that made the backup."),
            ManifestError::Invalid(_) | ManifestError::Inconsistent(_) => {
                Self::permanent(reasons::MANIFEST_INVALID, message)
                    .hint("The object was changed after the backup, or something else wrote it: use another backup.")
            }
        }
    }
}

impl Manifest {
    /// Reads `manifest.json`. A newer format is refused before anything else of it is read.
    pub fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            format_version: u64,
        }
        let Version { format_version } = serde_json::from_slice(bytes).map_err(ManifestError::Invalid)?;
        if format_version > u64::from(FORMAT_VERSION) {
            return Err(ManifestError::TooNew { found: format_version });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(ManifestError::Invalid)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// As JSON, indented for people.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(ManifestError::Invalid)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// To whom the backup is encrypted; nobody where it is not.
    #[must_use]
    pub fn recipients(&self) -> &[String] {
        self.encryption
            .as_ref()
            .map_or(&[], |encryption| &encryption.age.recipients)
    }

    /// The database of this name.
    #[must_use]
    pub fn database(&self, name: &str) -> Option<&DatabaseManifest> {
        self.databases.iter().find(|database| database.name == name)
    }

    /// The object of this kind; of the database, where the kind belongs to one.
    #[must_use]
    pub fn object(&self, kind: ObjectKind, database: Option<&str>) -> Option<&ObjectManifest> {
        self.objects
            .iter()
            .find(|object| object.kind == kind && object.database.as_deref() == database)
    }

    /// Every chunk that a relation names.
    pub fn chunks(&self) -> impl Iterator<Item = &ChunkManifest> {
        let relations = self.databases.iter().flat_map(|database| &database.relations);
        relations
            .filter_map(|relation| relation.chunks.as_ref())
            .flat_map(|rows| &rows.chunks)
    }

    /// The version says whether the backup is encrypted, every database has its archive, and every object is of a
    /// database that is listed.
    fn check(&self) -> Result<(), ManifestError> {
        let encrypted = self.encryption.is_some();
        if encrypted != (self.format_version > PLAIN_FORMAT_VERSION) || encrypted == self.recipients().is_empty() {
            let sentence = "a backup is encrypted, with its recipients named, where it has format 2, and only there";
            return Err(ManifestError::Inconsistent(sentence.to_owned()));
        }
        for database in &self.databases {
            if self.object(ObjectKind::Archive, Some(&database.name)).is_none() {
                let sentence = format!("the database {:?} has no archive", database.name);
                return Err(ManifestError::Inconsistent(sentence));
            }
        }
        let stray = self.objects.iter().find(|object| {
            object
                .database
                .as_ref()
                .is_some_and(|name| self.database(name).is_none())
        });
        stray.map_or(Ok(()), |object| {
            let sentence = format!("the object {:?} belongs to a database that is not listed", object.key);
            Err(ManifestError::Inconsistent(sentence))
        })
    }
}

/// The published JSON schema, as it stands in `docs/manifest.schema.json`.
#[must_use]
pub fn manifest_schema() -> String {
    let schema = schemars::schema_for!(Manifest);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
