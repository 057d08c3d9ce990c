//! Where artefacts are kept: the `storage` block shared by all kinds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connection::{ObjectRef, ValueSource};

/// Exactly one kind of storage.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.s3), has(self.volume), has(self.folder)].filter(given, given).size() == 1",
        "message": "storage is exactly one of s3 and volume; folder is for `pgrescue run` alone"
    }
]))]
pub struct Storage {
    /// A bucket of an S3 server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Storage>,
    /// A folder of a PersistentVolumeClaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeStorage>,
    /// A local folder; for `pgrescue run` alone, the operator refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderStorage>,
    /// Encrypts what is stored before it leaves the agent. Left out: it is stored as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// Client-side encryption of objects and chunks; manifests stay readable.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Encryption {
    /// With age.
    pub age: AgeEncryption,
}

/// Encryption with age.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.recipients.all(recipient, recipient.matches('^age1[02-9ac-hj-np-z]{58}$'))",
        "message": "a recipient is an X25519 public key of age, which begins with age1; the secret key goes into a Secret that only restores name"
    }
]))]
pub struct AgeEncryption {
    /// X25519 public keys of age (`age1…`): the identity of any one of them can read the backup. Never a secret key.
    #[schemars(length(min = 1, max = 32), inner(length(max = 256)))]
    pub recipients: Vec<String>,
}

/// A bucket of an S3 server, and a prefix in it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Storage {
    /// Name of the bucket; it must exist.
    #[schemars(length(min = 1, max = 255))]
    pub bucket: String,
    /// Prefix of every key, without a slash at either end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Region of the bucket. Left out: the AWS SDK's chain decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// URL of an S3 server other than AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Addresses the bucket in the path of the URL instead of the host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_path_style: Option<bool>,
    /// PEM of the authorities that may have signed the endpoint's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<ValueSource>,
    /// Secret with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, optionally, `AWS_SESSION_TOKEN`.
    /// Left out: the AWS SDK's chain (web identity, pod identity, instance metadata, profile).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<ObjectRef>,
}

/// A folder of a PersistentVolumeClaim of the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeStorage {
    /// Name of the PersistentVolumeClaim.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Folder inside the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A folder of the machine that runs `pgrescue run`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FolderStorage {
    /// Path of the folder.
    pub path: String,
}
