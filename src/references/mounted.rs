//! Secrets and ConfigMaps as the kubelet mounts them into the agent's pod: one folder an object, one file a key.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use secrecy::SecretString;

use super::{ReferenceError, References};
use crate::api::connection::KeyRef;

/// Folder of the Secrets in the agent's pod.
pub const SECRETS_PATH: &str = "/run/pgrescue/secrets";
/// Folder of the ConfigMaps in the agent's pod.
pub const CONFIG_MAPS_PATH: &str = "/run/pgrescue/configmaps";

/// Reads mounted files. An optional volume of an object that does not exist is an empty folder.
#[derive(Clone, Debug)]
pub struct MountedReferences {
    secrets: PathBuf,
    config_maps: PathBuf,
}

impl Default for MountedReferences {
    fn default() -> Self {
        Self::new(SECRETS_PATH, CONFIG_MAPS_PATH)
    }
}

impl MountedReferences {
    /// Reads below these folders.
    #[must_use]
    pub fn new(secrets: impl Into<PathBuf>, config_maps: impl Into<PathBuf>) -> Self {
        Self {
            secrets: secrets.into(),
            config_maps: config_maps.into(),
        }
    }
}

#[async_trait]
impl References for MountedReferences {
    async fn secret(&self, name: &str) -> Result<BTreeMap<String, SecretString>, ReferenceError> {
        let mut keys = BTreeMap::new();
        for key in keys_of(&self.secrets.join(name))
            .await
            .map_err(|source| read_error("Secret", name, source))?
        {
            if let Some(value) = read_key(&self.secrets, "Secret", name, &key).await? {
                keys.insert(key, SecretString::from(value));
            }
        }
        if keys.is_empty() {
            return Err(ReferenceError::ObjectMissing {
                kind: "Secret",
                name: name.to_owned(),
            });
        }
        Ok(keys)
    }

    async fn config_map_key(&self, key: &KeyRef) -> Result<String, ReferenceError> {
        let KeyRef { name, key } = key;
        if let Some(value) = read_key(&self.config_maps, "ConfigMap", name, key).await? {
            return Ok(value);
        }
        let folder = self.config_maps.join(name);
        let keys = keys_of(&folder)
            .await
            .map_err(|source| read_error("ConfigMap", name, source))?;
        Err(if keys.is_empty() {
            ReferenceError::ObjectMissing {
                kind: "ConfigMap",
                name: name.clone(),
            }
        } else {
            ReferenceError::KeyMissing {
                kind: "ConfigMap",
                name: name.clone(),
                key: key.clone(),
            }
        })
    }
}

/// Keys in a mounted folder. The kubelet keeps its own entries there (`..data`, `..2026_…`), which no key can begin
/// like (Kubernetes, `AtomicWriter`).
async fn keys_of(folder: &Path) -> Result<Vec<String>, Error> {
    let mut entries = match tokio::fs::read_dir(folder).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut keys = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if let Ok(key) = entry.file_name().into_string()
            && !key.starts_with("..")
        {
            keys.push(key);
        }
    }
    Ok(keys)
}

async fn read_key(root: &Path, kind: &'static str, name: &str, key: &str) -> Result<Option<String>, ReferenceError> {
    match tokio::fs::read(root.join(name).join(key)).await {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| ReferenceError::NotText {
            kind,
            name: name.to_owned(),
            key: key.to_owned(),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(read_error(kind, name, error)),
    }
}

fn read_error(kind: &'static str, name: &str, source: Error) -> ReferenceError {
    ReferenceError::Read {
        kind,
        name: name.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn mounted() -> (tempfile::TempDir, MountedReferences) {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("secrets/db");
        std::fs::create_dir_all(secret.join("..2026_01_01")).unwrap();
        std::fs::write(secret.join("password"), "p\nw").unwrap();
        std::fs::create_dir_all(root.path().join("secrets/absent")).unwrap();
        let references = MountedReferences::new(root.path().join("secrets"), root.path().join("configmaps"));
        (root, references)
    }

    #[tokio::test]
    async fn a_mounted_secret_has_its_keys_and_nothing_of_the_kubelet() {
        let (_root, references) = mounted();
        let secret = references.secret("db").await.unwrap();
        assert_eq!(secret.keys().collect::<Vec<_>>(), ["password"]);
        assert_eq!(secret["password"].expose_secret(), "p\nw");
    }

    #[tokio::test]
    async fn a_missing_object_and_a_missing_key_are_told_apart() {
        let (_root, references) = mounted();
        let key = |name: &str| KeyRef {
            name: name.into(),
            key: "other".into(),
        };
        let missing_key = references.secret_key(&key("db")).await.unwrap_err();
        assert_eq!(missing_key.to_string(), r#"Secret "db" has no key "other""#);
        let missing = references.secret_key(&key("absent")).await.unwrap_err();
        assert_eq!(missing.to_string(), r#"Secret "absent" does not exist"#);
        let missing = references.config_map_key(&key("ca")).await.unwrap_err();
        assert!(missing.is_missing());
    }
}
