//! The repository: chunks of rows that all backups of one storage share. Its format is published
//! (`docs/repository-format.md`).
//!
//! Any number of backups write at once, and prunes run beside them. None of them waits for another, and no clock
//! decides what is deleted; `writer` and `prune` say why that is safe.

mod budget;
mod check;
mod condemned;
mod config;
mod described;
mod error;
mod expectation;
mod frame;
mod index;
mod key_hash;
mod lock;
mod name;
mod overview;
mod pack;
mod prune;
mod read;
mod references;
mod row_count;
mod sender;
mod short_objects;
mod watch;
mod writer;

use std::sync::Arc;

use super::Store;
use super::encryption::{Identities, Recipients};
use config::Configuration;
use pack::PackSizes;

pub use check::{CheckLevel, CheckReport, Damage, Hurt, check};
pub use config::FORMAT_VERSION;
pub use error::{ChunkDamage, RepositoryError};
pub use name::{ChunkName, InvalidChunkName};
pub use overview::{RepositoryStatistics, SnapshotSummary, WriterSummary, snapshots};
pub use prune::{PruneOptions, PruneReport};
pub use references::not_yet_locked;
pub use row_count::count as count_rows;
pub use short_objects::{ShortObject, short_objects};
pub use writer::{StoredChunk, Writer, WriterOptions, WriterStatistics};

/// A repository that is open.
pub struct Repository {
    store: Arc<dyn Store>,
    configuration: Configuration,
    /// Key of the names of chunks that are not encrypted.
    hash_key: [u8; 32],
    /// Key of the names of the chunks that this value stands for.
    key: [u8; 32],
    encryption: Option<ChunkEncryption>,
    pack_sizes: PackSizes,
}

/// How the chunks of a backup are encrypted.
#[derive(Clone)]
struct ChunkEncryption {
    recipients: Recipients,
    /// Only where chunks are read.
    identities: Option<Arc<Identities>>,
}

impl Repository {
    /// Opens the repository of a storage; makes `pgrescue.json` where there is none. Of several that do so at once
    /// one wins, and the others read what it wrote.
    pub async fn open_or_create(store: Arc<dyn Store>) -> Result<Self, RepositoryError> {
        let found = match Configuration::find(&*store).await? {
            Some(found) => found,
            None => Configuration::create(&*store).await?,
        };
        Ok(Self::of(store, found))
    }

    /// Opens the repository of a storage.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, RepositoryError> {
        let found = Configuration::find(&*store).await?;
        let found = found.ok_or_else(|| config::missing(&*store))?;
        Ok(Self::of(store, found))
    }

    fn of(store: Arc<dyn Store>, (configuration, hash_key): (Configuration, [u8; 32])) -> Self {
        Self {
            store,
            configuration,
            hash_key,
            key: hash_key,
            encryption: None,
            pack_sizes: PackSizes::STANDARD,
        }
    }

    /// The same repository for a backup that is encrypted to these recipients; with identities also for reading one.
    #[must_use]
    pub fn encrypted(&self, recipients: Recipients, identities: Option<Arc<Identities>>) -> Self {
        Self {
            key: recipients.name_key(&self.hash_key),
            encryption: Some(ChunkEncryption { recipients, identities }),
            ..self.plain()
        }
    }

    /// The same repository for a backup that is not encrypted.
    fn plain(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            configuration: self.configuration.clone(),
            hash_key: self.hash_key,
            key: self.hash_key,
            encryption: None,
            pack_sizes: self.pack_sizes,
        }
    }

    /// To whom new chunks are encrypted.
    fn recipients(&self) -> Option<&Recipients> {
        self.encryption.as_ref().map(|encryption| &encryption.recipients)
    }

    /// The store that it lies in.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}

#[cfg(test)]
mod tests;
