//! What can go wrong with a repository.

use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::refusal::sentence;
use crate::store::StoreError;
use crate::store::encryption::EncryptionError;
use crate::store::error::Change;

use super::config::FORMAT_VERSION;

/// An error of a repository.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no repository.
    #[error("{location} holds no repository: {key:?} is missing")]
    Missing {
        /// Where.
        location: String,
        /// The object that would describe it.
        key: String,
    },
    /// Something else lies where the repository is described.
    #[error("{key:?} in {location} does not describe a repository of pgrescue: {problem}")]
    NotARepository {
        /// Where.
        location: String,
        /// The object.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It was made by a newer release.
    #[error(
        "the repository in {location} has format {found}; this release of pgrescue knows formats up to {FORMAT_VERSION}"
    )]
    NewerFormat {
        /// Where.
        location: String,
        /// Its format.
        found: u64,
    },
    /// A chunk is not what the manifest says.
    #[error("the chunk {name} in object {object:?} is damaged: {damage}")]
    Damaged {
        /// Name of the chunk.
        name: String,
        /// Object that should hold it.
        object: String,
        /// What is wrong.
        damage: ChunkDamage,
    },
    /// A manifest, a lock or a list cannot be understood, so nobody knows which chunks are needed.
    #[error("the object {key:?} cannot be read, so nobody can tell which chunks are needed: {problem}")]
    Unreadable {
        /// The object.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An object that an earlier call handed over was not stored.
    #[error("{0}")]
    NotStored(Refusal),
    /// A prune has taken this backup for dead.
    #[error("the backup lost its lock {key:?}: {why}")]
    LockLost {
        /// The lock.
        key: String,
        /// How it was lost.
        why: &'static str,
    },
    /// The snapshot that is to be committed is there already.
    #[error("there is a manifest {key:?} already")]
    SnapshotExists {
        /// The manifest.
        key: String,
    },
    /// A chunk could not be compressed.
    #[error("a chunk of {bytes} bytes cannot be compressed: {problem}")]
    Compression {
        /// Bytes of the COPY stream.
        bytes: usize,
        /// What zstd says.
        problem: String,
    },
    /// A chunk could not be encrypted.
    #[error("a chunk cannot be encrypted: {0}")]
    Encryption(#[from] EncryptionError),
    /// An encrypted backup cannot be read with what was given.
    #[error(transparent)]
    Identity(Refusal),
    /// The work on another thread ended without an answer.
    #[error("the work on a chunk ended without an answer")]
    WorkLost(#[source] tokio::task::JoinError),
}

/// What is wrong with a chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkDamage {
    /// The object is gone.
    #[error("the object is missing")]
    Missing,
    /// The object ends before the chunk does.
    #[error("the object does not have the bytes {start} to {end}")]
    Truncated {
        /// First byte of the chunk.
        start: u64,
        /// Byte behind its last.
        end: u64,
    },
    /// The store gave other bytes than it keeps, or keeps others than it was given.
    #[error("{0}")]
    Changed(Change),
    /// The stored bytes are others.
    #[error("its SHA-256 was {expected} and is {found}")]
    Sha256 {
        /// In the manifest.
        expected: String,
        /// In the store.
        found: String,
    },
    /// It cannot be decrypted.
    #[error("{0}")]
    Encryption(String),
    /// It is no zstd frame, or not one alone.
    #[error("it is not one whole zstd frame ({0})")]
    Frame(String),
    /// It has another size when decoded.
    #[error("{expected} bytes were stored and the frame holds {found}")]
    Size {
        /// In the manifest.
        expected: u64,
        /// In the frame.
        found: u64,
    },
    /// The rows are others.
    #[error("its rows are not those that its name stands for")]
    Name,
    /// It has another number of rows.
    #[error("{expected} rows were stored and {found} are there")]
    Rows {
        /// In the manifest.
        expected: u64,
        /// In the chunk.
        found: u64,
    },
    /// The rows cannot be told apart.
    #[error("it is not a whole COPY stream")]
    Stream,
    /// What the manifest says of it cannot be.
    #[error("the manifest is inconsistent: {0}")]
    Manifest(&'static str),
}

impl RepositoryError {
    /// Whether the same call may succeed later without anybody's help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Store(error) => error.is_temporary(),
            Self::NotStored(refusal) => refusal.class == crate::api::status::FailureClass::Temporary,
            Self::LockLost { .. } | Self::WorkLost(_) => true,
            _ => false,
        }
    }
}

impl From<RepositoryError> for Refusal {
    fn from(error: RepositoryError) -> Self {
        let message = sentence(&error.to_string());
        match error {
            RepositoryError::Store(error) => error.into(),
            RepositoryError::NotStored(refusal) | RepositoryError::Identity(refusal) => refusal,
            RepositoryError::Missing { location, key } => Self::permanent(reasons::REPOSITORY_INVALID, message)
                .object(format!("{location}/{key}"))
                .hint("Correct the storage, or bring the object back from a version or a replica of the store: without it no chunk can be checked."),
            RepositoryError::NotARepository { location, key, .. } => Self::permanent(reasons::REPOSITORY_INVALID, message)
                .object(format!("{location}/{key}"))
                .hint("Choose another bucket, prefix or folder, or bring the object back from a version of the store; nothing was changed."),
            RepositoryError::NewerFormat { location, .. } => Self::permanent(reasons::REPOSITORY_TOO_NEW, message)
                .object(location)
                .hint("Use a release of pgrescue that is at least as new as the one that made the repository; nothing was changed."),
            RepositoryError::Damaged { ref damage, object, .. } => {
                let reason = if *damage == ChunkDamage::Missing {
                    reasons::OBJECT_MISSING
                } else {
                    reasons::OBJECT_CHANGED
                };
                Self::permanent(reason, message)
                    .object(object)
                    .hint("`pgrescue check` names the backups that it hurts: use another one, or bring the object back from a version or a replica of the store.")
            }
            RepositoryError::Unreadable { key, .. } => Self::permanent(reasons::MANIFEST_INVALID, message)
                .object(key)
                .hint("Nothing was deleted. Bring the object back from a version of the store, use a newer release of pgrescue where it is of a newer format, or delete it if it is not needed (of a snapshot, the whole folder)."),
            RepositoryError::SnapshotExists { key } => Self::permanent(reasons::INTERNAL, message)
                .object(key)
                .hint("Nothing was changed. Make the backup again as a new resource."),
            RepositoryError::LockLost { key, .. } => Self::temporary(reasons::LOCK_LOST, message)
                .object(key)
                .hint("Chunks that it relied on may be gone, so it must not be finished; the next attempt begins anew."),
            RepositoryError::Compression { .. } | RepositoryError::Encryption(_) => Self::permanent(reasons::INTERNAL, message),
            RepositoryError::WorkLost(_) => Self::temporary(reasons::INTERNAL, message),
        }
    }
}
