//! `pgrescue.json`: what makes a bucket prefix or a folder a repository.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::RepositoryError;
use crate::store::{self, Store, StoreError, layout};

/// The format that this release writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Largest description that is read, in bytes.
const SIZE_LIMIT_BYTES: u64 = 64 * 1024;

/// What `pgrescue.json` holds.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Configuration {
    pub format_version: u32,
    /// Tells repositories apart.
    pub id: String,
    /// Key of the names of chunks, in hex. It keeps names from telling what rows hold; it protects nothing else.
    pub hash_key: String,
    pub created: Timestamp,
}

impl Configuration {
    pub(super) fn new() -> Self {
        let material: Vec<u8> = (0..4).flat_map(|_| Uuid::new_v4().into_bytes()).collect();
        Self {
            format_version: FORMAT_VERSION,
            id: Uuid::new_v4().to_string(),
            hash_key: hex::encode(blake3::derive_key("pgrescue 2026-01 names of chunks", &material)),
            created: Timestamp::now(),
        }
    }

    /// The description of the repository; `None` where there is none.
    pub(super) async fn find(store: &dyn Store) -> Result<Option<(Self, [u8; 32])>, RepositoryError> {
        let bytes = match store::read_all(store, layout::REPOSITORY, SIZE_LIMIT_BYTES).await {
            Ok(bytes) => bytes,
            Err(StoreError::ObjectMissing { .. }) => return Ok(None),
            Err(StoreError::ObjectTooLarge { .. }) => return Err(foreign(store, "it is too large".into())),
            Err(error) => return Err(error.into()),
        };
        Self::parse(store, &bytes).map(Some)
    }

    /// A newer format is refused before anything else of it is read.
    fn parse(store: &dyn Store, bytes: &[u8]) -> Result<(Self, [u8; 32]), RepositoryError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            format_version: u64,
        }
        let invalid = |error: serde_json::Error| foreign(store, error.to_string());
        let Version { format_version } = serde_json::from_slice(bytes).map_err(invalid)?;
        if format_version > u64::from(FORMAT_VERSION) {
            return Err(RepositoryError::NewerFormat {
                location: store.location(),
                found: format_version,
            });
        }
        let configuration: Self = serde_json::from_slice(bytes).map_err(invalid)?;
        let mut key = [0; 32];
        hex::decode_to_slice(&configuration.hash_key, &mut key)
            .map_err(|_| foreign(store, "hashKey is not 64 hexadecimal digits".into()))?;
        Ok((configuration, key))
    }

    /// Writes the description where there is none. Of several at once one wins; the others find its description.
    pub(super) async fn create(store: &dyn Store) -> Result<(Self, [u8; 32]), RepositoryError> {
        // Without the old key no chunk could be checked: a description that was lost is not made anew over chunks.
        for prefix in [layout::CHUNKS, layout::PACKS] {
            if !store.list(prefix).await?.is_empty() {
                return Self::find(store).await?.ok_or_else(|| missing(store));
            }
        }
        let mut bytes = serde_json::to_vec_pretty(&Self::new()).unwrap_or_default();
        bytes.push(b'\n');
        match store::put_new(store, layout::REPOSITORY, bytes.into()).await {
            Ok(_) | Err(StoreError::ObjectExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Self::find(store).await?.ok_or_else(|| missing(store))
    }
}

fn foreign(store: &dyn Store, problem: String) -> RepositoryError {
    RepositoryError::NotARepository {
        location: store.location(),
        key: layout::REPOSITORY.to_owned(),
        problem,
    }
}

pub(super) fn missing(store: &dyn Store) -> RepositoryError {
    RepositoryError::Missing {
        location: store.location(),
        key: layout::REPOSITORY.to_owned(),
    }
}
