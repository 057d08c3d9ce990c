//! Where artefacts are kept: the `storage` block shared by all kinds.

use std::collections::BTreeMap;

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
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.kmsKeyId) || self.?sse.orValue('') == 'aws:kms'",
        "message": "kmsKeyId is the key of sse aws:kms: set sse to aws:kms, or leave kmsKeyId out"
    },
    {
        "rule": "!(self.?storageClass.orValue('') in ['GLACIER', 'DEEP_ARCHIVE'])",
        "message": "objects of the storage classes GLACIER and DEEP_ARCHIVE cannot be read at once, as a restore and a check have to; GLACIER_IR can"
    }
]))]
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
    /// Server-side encryption of every object. Left out: what the bucket does by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sse: Option<ServerSideEncryption>,
    /// Id, ARN or alias of the KMS key, with `sse: aws:kms`. Left out: the account's own key for S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub kms_key_id: Option<String>,
    /// Storage class of the objects that hold rows: archives, chunks and packs. Everything else is small or often
    /// written, and goes to the bucket's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub storage_class: Option<String>,
    /// Tags of every object, at most 10.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 10))]
    pub tags: BTreeMap<String, String>,
    /// Keeps the objects of every backup from deletion. The bucket must have object lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_lock: Option<ObjectLock>,
}

/// Server-side encryption of every object. Left out: what the bucket does by default.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum ServerSideEncryption {
    /// Keys of the store (SSE-S3).
    #[serde(rename = "AES256")]
    Aes256,
    /// A key of the key management service (SSE-KMS).
    #[serde(rename = "aws:kms")]
    AwsKms,
}

/// How long the objects of a backup cannot be deleted.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectLock {
    /// Who may delete them sooner.
    pub mode: ObjectLockMode,
    /// Days from the beginning of the backup, up to the end of the last day (UTC).
    #[schemars(range(min = 1, max = 36500))]
    pub retain_days: u32,
}

/// Who may delete a locked object.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectLockMode {
    /// Who has the right `s3:BypassGovernanceRetention`.
    Governance,
    /// Nobody.
    Compliance,
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
