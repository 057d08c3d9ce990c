//! Secrets and ConfigMaps that a plan names: mounted files in a pod, manifests beside the run elsewhere.

pub mod manifests;
pub mod mounted;

use std::collections::BTreeMap;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::api::connection::KeyRef;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::connection::TextSource;

/// Reads what a plan names. Nothing is kept: a rotated Secret is seen by the next read.
#[async_trait]
pub trait References: Send + Sync {
    /// All keys of a Secret.
    async fn secret(&self, name: &str) -> Result<BTreeMap<String, SecretString>, ReferenceError>;

    /// One key of a Secret.
    async fn secret_key(&self, key: &KeyRef) -> Result<SecretString, ReferenceError> {
        let mut keys = self.secret(&key.name).await?;
        keys.remove(&key.key).ok_or_else(|| ReferenceError::KeyMissing {
            kind: "Secret",
            name: key.name.clone(),
            key: key.key.clone(),
        })
    }

    /// One key of a ConfigMap.
    async fn config_map_key(&self, key: &KeyRef) -> Result<String, ReferenceError>;

    /// A text from wherever it stands. It is treated as a secret, for it may be one.
    async fn text(&self, source: &TextSource) -> Result<SecretString, ReferenceError> {
        match source {
            TextSource::Inline(text) => Ok(SecretString::from(text.clone())),
            TextSource::Secret(key) => self.secret_key(key).await,
            TextSource::ConfigMap(key) => self.config_map_key(key).await.map(SecretString::from),
        }
    }
}

/// Something that a plan names is not there, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The object is not there (yet).
    #[error("{kind} {name:?} does not exist")]
    ObjectMissing {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object is there, the key is not (yet).
    #[error("{kind} {name:?} has no key {key:?}")]
    KeyMissing {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// The value is not UTF-8.
    #[error("key {key:?} of {kind} {name:?} is not UTF-8 text")]
    NotText {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// The mounted file cannot be read.
    #[error("{kind} {name:?} cannot be read")]
    Read {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ReferenceError {
    /// Whether waiting may help.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::ObjectMissing { .. } | Self::KeyMissing { .. })
    }
}

impl From<ReferenceError> for Refusal {
    fn from(error: ReferenceError) -> Self {
        let message = error.to_string();
        match error {
            ReferenceError::ObjectMissing { kind, name } => {
                Self::temporary(reasons::REFERENCE_MISSING, message).object(format!("{kind}/{name}")).hint(format!(
                    "Create the {kind} {name:?} in the namespace of the resource; for pgrescue run, put it into the manifest's file or another file of its folder."
                ))
            }
            ReferenceError::KeyMissing { kind, name, key } => {
                Self::temporary(reasons::REFERENCE_MISSING, message).object(format!("{kind}/{name}")).hint(format!(
                    "Add the key {key:?} to the {kind} {name:?}."
                ))
            }
            ReferenceError::NotText { kind, name, .. } => Self::permanent(reasons::INVALID_SPEC, message)
                .object(format!("{kind}/{name}"))
                .hint("Store the value as UTF-8 text."),
            ReferenceError::Read { kind, name, source } => {
                Self::temporary(reasons::REFERENCE_MISSING, format!("{message}: {source}")).object(format!("{kind}/{name}"))
            }
        }
    }
}
