//! How the objects of a backup are encrypted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the objects and the chunks of a backup are encrypted before they leave the agent. The manifest itself is not.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EncryptionManifest {
    /// With age: each object and each chunk is one age file.
    pub age: AgeManifest,
}

/// Encryption with age.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AgeManifest {
    /// Public keys, sorted: the identity of any one of them decrypts.
    pub recipients: Vec<String>,
}
