//! Secrets and ConfigMaps from manifests beside the run, for `pgrescue run` without a cluster.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{ReferenceError, References};
use crate::api::connection::KeyRef;

/// Secrets and ConfigMaps by name.
#[derive(Clone, Debug, Default)]
pub struct ManifestReferences {
    secrets: BTreeMap<String, BTreeMap<String, SecretString>>,
    config_maps: BTreeMap<String, BTreeMap<String, String>>,
}

/// A Secret or ConfigMap manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the manifest of {kind} {name:?} {problem}")]
pub struct ReferenceManifestError {
    kind: String,
    name: String,
    problem: String,
}

impl ManifestReferences {
    /// Takes a manifest if it is a `v1` Secret or ConfigMap; says whether it was.
    pub fn add(&mut self, manifest: &Value) -> Result<bool, ReferenceManifestError> {
        let kind = manifest["kind"].as_str().unwrap_or_default();
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let error = |problem: String| ReferenceManifestError {
            kind: kind.to_owned(),
            name: name.clone(),
            problem,
        };
        match (manifest["apiVersion"].as_str(), kind) {
            (Some("v1"), "Secret") => {
                let mut keys = BTreeMap::new();
                for (key, value) in texts(&manifest["data"]).map_err(error)? {
                    let decoded = BASE64
                        .decode(value.trim())
                        .ok()
                        .and_then(|bytes| String::from_utf8(bytes).ok());
                    let decoded =
                        decoded.ok_or_else(|| error(format!("has key {key:?} that is not base64 of text")))?;
                    keys.insert(key, SecretString::from(decoded));
                }
                // `stringData` wins over `data` (Kubernetes API reference, Secret).
                for (key, value) in texts(&manifest["stringData"]).map_err(error)? {
                    keys.insert(key, SecretString::from(value));
                }
                self.secrets.insert(name.clone(), keys);
                Ok(true)
            }
            (Some("v1"), "ConfigMap") => {
                let keys = texts(&manifest["data"]).map_err(error)?.into_iter().collect();
                self.config_maps.insert(name.clone(), keys);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

fn texts(value: &Value) -> Result<Vec<(String, String)>, String> {
    let empty = Map::new();
    let object = match value {
        Value::Null => &empty,
        Value::Object(object) => object,
        _ => return Err("has data that is not a map".into()),
    };
    object
        .iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key.clone(), text.clone())),
            _ => Err(format!("has key {key:?} whose value is not a string; put it in quotes")),
        })
        .collect()
}

#[async_trait]
impl References for ManifestReferences {
    async fn secret(&self, name: &str) -> Result<BTreeMap<String, SecretString>, ReferenceError> {
        let missing = || ReferenceError::ObjectMissing {
            kind: "Secret",
            name: name.to_owned(),
        };
        self.secrets.get(name).cloned().ok_or_else(missing)
    }

    async fn config_map_key(&self, key: &KeyRef) -> Result<String, ReferenceError> {
        let KeyRef { name, key } = key;
        let missing = || ReferenceError::ObjectMissing {
            kind: "ConfigMap",
            name: name.clone(),
        };
        let keys = self.config_maps.get(name).ok_or_else(missing)?;
        let missing = || ReferenceError::KeyMissing {
            kind: "ConfigMap",
            name: name.clone(),
            key: key.clone(),
        };
        keys.get(key).cloned().ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn string_data_wins_over_data_as_in_kubernetes() {
        let mut references = ManifestReferences::default();
        let manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"},
            "data": {"user": "YQ==", "password": "b2xk"}, "stringData": {"password": "new"}});
        assert!(references.add(&manifest).unwrap());
        let secret = references.secret("db").await.unwrap();
        assert_eq!(secret["user"].expose_secret(), "a");
        assert_eq!(secret["password"].expose_secret(), "new");
    }

    #[test]
    fn a_value_that_is_no_string_is_refused_without_showing_it() {
        let manifest =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"port": 5432}});
        let error = ManifestReferences::default().add(&manifest).unwrap_err().to_string();
        assert_eq!(
            error,
            r#"the manifest of Secret "db" has key "port" whose value is not a string; put it in quotes"#
        );
    }
}
