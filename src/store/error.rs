//! What can go wrong with a store, in the words of the person who has to mend it.

use std::io;

use jiff::Timestamp;

use crate::api::reasons;
use crate::plan::Refusal;
use crate::references::ReferenceError;

/// The error that lies beneath, of whichever library.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// How a connection to a store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionFailure {
    /// The name of the host does not resolve.
    HostUnknown,
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The connection was cut while it was in use.
    Lost,
}

impl ConnectionFailure {
    const fn sentence(self) -> &'static str {
        match self {
            Self::HostUnknown => "its host name does not resolve",
            Self::Refused => "it refused the connection",
            Self::TimedOut => "it did not answer in time",
            Self::Lost => "the connection was cut",
        }
    }
}

/// What is not as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another size.
    Size {
        /// Size in bytes when it was stored.
        expected: u64,
        /// Size in bytes now.
        found: u64,
    },
    /// Another content.
    Sha256 {
        /// SHA-256 in hex when it was stored.
        expected: String,
        /// SHA-256 in hex now.
        found: String,
    },
    /// The store's own checksum does not fit the bytes that arrived.
    Checksum,
    /// It was replaced while it was read.
    Replaced,
    /// It is no whole age file.
    Encryption(String),
}

impl std::fmt::Display for Change {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Size { expected, found } => write!(formatter, "{expected} bytes were stored, {found} are there"),
            Self::Sha256 { expected, found } => write!(formatter, "its SHA-256 was {expected} and is {found}"),
            Self::Checksum => formatter.write_str("its bytes do not fit the checksum that the store keeps"),
            Self::Replaced => formatter.write_str("it was replaced while it was read"),
            Self::Encryption(problem) => formatter.write_str(problem),
        }
    }
}

/// An object that cannot be deleted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedObject {
    /// Its key.
    pub key: String,
    /// Until when.
    pub until: Timestamp,
}

/// An error of a store. `object` is the full location of an object, or of the storage where no object is at fault;
/// `action` completes "cannot …".
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("object {key:?} does not exist in {location}")]
    ObjectMissing {
        /// Where.
        location: String,
        /// Its key.
        key: String,
    },
    /// An object that must not be overwritten is there already.
    #[error("object {key:?} exists already in {location}")]
    ObjectExists {
        /// Where.
        location: String,
        /// Its key.
        key: String,
    },
    /// The object is not what was stored.
    #[error("object {key:?} is not what was stored: {change}")]
    ObjectChanged {
        /// Its key.
        key: String,
        /// What differs.
        change: Change,
    },
    /// The object is encrypted, and none of the identities opens it.
    #[error("object {key:?} is encrypted, and none of the given identities opens it")]
    IdentityWrong {
        /// Its key.
        key: String,
    },
    /// The object is larger than what its reader takes.
    #[error("object {key:?} in {location} is larger than {limit} bytes")]
    ObjectTooLarge {
        /// Where.
        location: String,
        /// Its key.
        key: String,
        /// Limit in bytes.
        limit: u64,
    },
    /// The object does not end within what S3 takes.
    #[error("object {key:?} in {location} is longer than the 5 TiB that S3 takes")]
    ObjectTooLong {
        /// Where.
        location: String,
        /// Its key.
        key: String,
    },
    /// The key cannot be stored.
    #[error("{key:?} cannot be the key of an object: {why}")]
    InvalidKey {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A range that does not lie in the object.
    #[error("object {key:?} in {location} does not have the bytes {start} to {end}")]
    RangeOutside {
        /// Where.
        location: String,
        /// Its key.
        key: String,
        /// First byte.
        start: u64,
        /// The byte behind the last one.
        end: u64,
    },
    /// There is no such bucket.
    #[error("bucket {bucket:?} does not exist at {endpoint}")]
    BucketMissing {
        /// The bucket.
        bucket: String,
        /// URL of the endpoint.
        endpoint: String,
    },
    /// The folder of the storage is not there.
    #[error("folder {path:?} does not exist")]
    FolderMissing {
        /// Its path.
        path: String,
    },
    /// The credentials may not do this.
    #[error("access denied: the credentials may not {action} {object} ({code})")]
    AccessDenied {
        /// Full location.
        object: String,
        /// What was to be done.
        action: &'static str,
        /// S3's error code, or the name of the system's error.
        code: String,
    },
    /// Objects that cannot be deleted yet.
    #[error("{} objects in {location} are locked, {:?} until {}", .objects.len(), .last.key, .last.until)]
    ObjectsLocked {
        /// Where.
        location: String,
        /// All of them.
        objects: Vec<LockedObject>,
        /// The one that is locked for longest.
        last: LockedObject,
    },
    /// The bucket cannot keep objects from deletion.
    #[error("bucket {bucket:?} has no object lock")]
    ObjectLockMissing {
        /// The bucket.
        bucket: String,
    },
    /// The store cannot use the key of the encryption.
    #[error("the store cannot {action} {object} with its KMS key ({code})")]
    KeyUnusable {
        /// Full location.
        object: String,
        /// What was to be done.
        action: &'static str,
        /// The key management service's error code.
        code: String,
    },
    /// The credentials are wrong.
    #[error("{endpoint} does not accept the credentials for {object} ({code})")]
    CredentialsRejected {
        /// URL of the endpoint.
        endpoint: String,
        /// Full location.
        object: String,
        /// S3's error code.
        code: String,
    },
    /// The credentials have run out.
    #[error("the credentials for {object} have expired ({code})")]
    CredentialsExpired {
        /// Full location.
        object: String,
        /// S3's error code.
        code: String,
    },
    /// No credentials were found.
    #[error("no credentials were found for {object}")]
    CredentialsMissing {
        /// Full location.
        object: String,
        /// What the chain of providers said.
        #[source]
        source: Source,
    },
    /// The bucket is in another region.
    #[error("bucket {bucket:?} is not in region {used:?}{}", .right.as_ref().map(|right| format!(" but in {right:?}")).unwrap_or_default())]
    WrongRegion {
        /// The bucket.
        bucket: String,
        /// The region that was tried.
        used: String,
        /// The right one, where the store tells.
        right: Option<String>,
    },
    /// The endpoint cannot be reached.
    #[error("store {endpoint} cannot be reached: {}", .failure.sentence())]
    Unreachable {
        /// URL of the endpoint.
        endpoint: String,
        /// How it failed.
        failure: ConnectionFailure,
        /// The error beneath.
        #[source]
        source: Source,
    },
    /// Something else than an S3 server answers.
    #[error("{endpoint} does not answer as an S3 server does (HTTP {status})")]
    NotS3 {
        /// URL of the endpoint.
        endpoint: String,
        /// HTTP status.
        status: u16,
    },
    /// The endpoint's certificate is not trusted.
    #[error("the certificate of store {endpoint} is not trusted: {source}")]
    CertificateRejected {
        /// URL of the endpoint.
        endpoint: String,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// TLS could not be agreed.
    #[error("no TLS with store {endpoint}: {source}")]
    TlsFailed {
        /// URL of the endpoint.
        endpoint: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// This machine's clock and the store's differ too much.
    #[error("the clocks of this machine and of store {endpoint} differ too much ({code})")]
    ClockSkewed {
        /// URL of the endpoint.
        endpoint: String,
        /// S3's error code.
        code: String,
    },
    /// There is no room.
    #[error("{object} cannot be written: the store has no room ({code})")]
    Full {
        /// Full location.
        object: String,
        /// S3's error code, or the name of the system's error.
        code: String,
    },
    /// The store failed, also after retries.
    #[error("store {endpoint} failed to {action} {object} (HTTP {status}, {code})")]
    Unavailable {
        /// URL of the endpoint.
        endpoint: String,
        /// Full location.
        object: String,
        /// What was to be done.
        action: &'static str,
        /// HTTP status.
        status: u16,
        /// S3's error code.
        code: String,
    },
    /// What arrived at the store is not what was sent, also after retries.
    #[error("{object} arrives damaged at store {endpoint} ({code})")]
    DamagedOnTheWay {
        /// URL of the endpoint.
        endpoint: String,
        /// Full location.
        object: String,
        /// S3's error code.
        code: String,
    },
    /// Another answer of the store.
    #[error("store {endpoint} refused to {action} {object} (HTTP {status}, {code}{message})")]
    Rejected {
        /// URL of the endpoint.
        endpoint: String,
        /// Full location.
        object: String,
        /// What was to be done.
        action: &'static str,
        /// HTTP status.
        status: u16,
        /// S3's error code.
        code: String,
        /// The store's own words, after a colon; empty where there are none.
        message: String,
    },
    /// The client could not make or understand a message.
    #[error("cannot {action} {object}")]
    Client {
        /// Full location.
        object: String,
        /// What was to be done.
        action: &'static str,
        /// Why.
        #[source]
        source: Source,
    },
    /// An error of the file system.
    #[error("cannot {action} {object}: {source}")]
    FileSystem {
        /// Its path.
        object: String,
        /// What was to be done.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificates for the endpoint cannot be read.
    #[error("caBundle of bucket {bucket:?} holds no PEM certificates that can be used")]
    InvalidCaBundle {
        /// The bucket.
        bucket: String,
    },
    /// The endpoint is not a URL.
    #[error("endpoint {endpoint:?} is not a URL that begins with http:// or https://")]
    InvalidEndpoint {
        /// As it was given.
        endpoint: String,
    },
    /// A path that leaves its volume.
    #[error("path {path:?} leaves the volume")]
    PathOutside {
        /// As it was given.
        path: String,
    },
    /// A Secret or ConfigMap of the storage cannot be read.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody's help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Unavailable { .. }
            | Self::CredentialsExpired { .. }
            | Self::ClockSkewed { .. }
            | Self::DamagedOnTheWay { .. }
            | Self::Client { .. }
            | Self::FileSystem { .. } => true,
            Self::Reference(error) => error.is_missing(),
            _ => false,
        }
    }

    /// The constant for conditions and failures.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ObjectMissing { .. } => reasons::OBJECT_MISSING,
            Self::ObjectChanged { .. } => reasons::OBJECT_CHANGED,
            Self::IdentityWrong { .. } => reasons::IDENTITY_WRONG,
            Self::BucketMissing { .. } | Self::FolderMissing { .. } => reasons::BUCKET_MISSING,
            Self::AccessDenied { .. }
            | Self::CredentialsRejected { .. }
            | Self::CredentialsExpired { .. }
            | Self::CredentialsMissing { .. } => reasons::STORE_ACCESS_DENIED,
            Self::WrongRegion { .. } => reasons::WRONG_REGION,
            Self::ObjectsLocked { .. } => reasons::OBJECT_LOCKED,
            Self::ObjectLockMissing { .. } => reasons::OBJECT_LOCK_MISSING,
            Self::KeyUnusable { .. } => reasons::STORE_ACCESS_DENIED,
            Self::Unreachable { .. }
            | Self::NotS3 { .. }
            | Self::CertificateRejected { .. }
            | Self::TlsFailed { .. } => reasons::STORE_UNREACHABLE,
            Self::Full { .. } => reasons::STORE_FULL,
            Self::InvalidCaBundle { .. } | Self::InvalidEndpoint { .. } | Self::PathOutside { .. } => {
                reasons::INVALID_SPEC
            }
            Self::InvalidKey { .. } => reasons::INTERNAL,
            Self::Reference(_) => reasons::REFERENCE_MISSING,
            Self::ObjectExists { .. }
            | Self::ObjectTooLarge { .. }
            | Self::ObjectTooLong { .. }
            | Self::RangeOutside { .. }
            | Self::ClockSkewed { .. }
            | Self::Unavailable { .. }
            | Self::DamagedOnTheWay { .. }
            | Self::Rejected { .. }
            | Self::Client { .. }
            | Self::FileSystem { .. } => reasons::STORE_FAILED,
        }
    }

    /// What the error is about.
    #[must_use]
    pub fn object(&self) -> Option<String> {
        match self {
            Self::ObjectMissing { location, key }
            | Self::ObjectExists { location, key }
            | Self::ObjectTooLarge { location, key, .. }
            | Self::ObjectTooLong { location, key }
            | Self::RangeOutside { location, key, .. } => Some(format!("{location}/{key}")),
            Self::InvalidKey { key, .. } | Self::ObjectChanged { key, .. } | Self::IdentityWrong { key } => {
                Some(key.clone())
            }
            Self::ObjectsLocked { location, last, .. } => Some(format!("{location}/{}", last.key)),
            Self::BucketMissing { bucket, .. }
            | Self::ObjectLockMissing { bucket }
            | Self::WrongRegion { bucket, .. }
            | Self::InvalidCaBundle { bucket } => Some(format!("s3://{bucket}")),
            Self::FolderMissing { path } | Self::PathOutside { path } => Some(path.clone()),
            Self::AccessDenied { object, .. }
            | Self::KeyUnusable { object, .. }
            | Self::CredentialsRejected { object, .. }
            | Self::CredentialsExpired { object, .. }
            | Self::CredentialsMissing { object, .. }
            | Self::Full { object, .. }
            | Self::Unavailable { object, .. }
            | Self::DamagedOnTheWay { object, .. }
            | Self::Rejected { object, .. }
            | Self::Client { object, .. }
            | Self::FileSystem { object, .. } => Some(object.clone()),
            Self::Unreachable { endpoint, .. }
            | Self::NotS3 { endpoint, .. }
            | Self::CertificateRejected { endpoint, .. }
            | Self::TlsFailed { endpoint, .. }
            | Self::ClockSkewed { endpoint, .. }
            | Self::InvalidEndpoint { endpoint } => Some(endpoint.clone()),
            Self::Reference(_) => None,
        }
    }

    /// What to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ObjectMissing { .. } => {
                "Someone or some rule of the store has deleted it; take another backup as the source.".into()
            }
            Self::ObjectExists { .. } => "Another run has written it; nothing was overwritten.".into(),
            Self::ObjectChanged { .. } => {
                "It is not safe to restore from it; take another backup as the source, and look for what changes objects \
                 in the store."
                    .into()
            }
            Self::IdentityWrong { .. } => {
                "Give the identity of one of the recipients that the backup's manifest names.".into()
            }
            Self::ObjectTooLarge { .. } => "It is not an object that pgrescue wrote.".into(),
            Self::ObjectTooLong { .. } => {
                "Back up fewer tables or schemas at a time, or compress at a higher level.".into()
            }
            Self::BucketMissing { .. } => {
                "Create the bucket, or correct storage.s3.bucket or storage.s3.endpoint.".into()
            }
            Self::FolderMissing { .. } => "Create the folder, or correct the path of the storage.".into(),
            Self::AccessDenied { .. } => {
                "Grant s3:ListBucket, s3:ListBucketMultipartUploads, s3:GetObject, s3:PutObject, \
                 s3:AbortMultipartUpload (and s3:DeleteObject for deletionPolicy Delete) on the bucket and the prefix, \
                 what sse, tags and objectLock need (docs/storage.md), or write access to the folder."
                    .into()
            }
            Self::ObjectsLocked { .. } => {
                "Object lock keeps them; nothing has to be done. They can be deleted after that.".into()
            }
            Self::ObjectLockMissing { .. } => {
                "Choose a bucket that was made with object lock, or leave storage.s3.objectLock out.".into()
            }
            Self::KeyUnusable { .. } => {
                "Check that the key of storage.s3.kmsKeyId is there and enabled, and that the credentials may use it \
                 (kms:GenerateDataKey, kms:Decrypt)."
                    .into()
            }
            Self::CredentialsRejected { .. } => {
                "Correct the access key and the secret key in the Secret of storage.s3.credentialsSecretRef.".into()
            }
            Self::CredentialsExpired { .. } => {
                "Renew the session token; a later attempt reads the credentials again.".into()
            }
            Self::CredentialsMissing { .. } => {
                "Name a Secret in storage.s3.credentialsSecretRef, or give the service account of the Job a role (web \
                 identity, pod identity)."
                    .into()
            }
            Self::WrongRegion { right: Some(right), .. } => format!("Set storage.s3.region to {right:?}."),
            Self::WrongRegion { right: None, .. } => "Set storage.s3.region to the region of the bucket.".into(),
            Self::NotS3 { .. } => "Check http:// or https://, the port and the path in storage.s3.endpoint.".into(),
            Self::Unreachable {
                failure: ConnectionFailure::Lost,
                ..
            } => "Check http:// or https:// and the port in storage.s3.endpoint, the store itself, and what stands \
                  between it and the Job."
                .into(),
            Self::Unreachable { .. } => {
                "Check storage.s3.endpoint, the store itself, DNS, and network policies between the Job and the store."
                    .into()
            }
            Self::CertificateRejected { .. } => {
                "Give the authority that signed it in storage.s3.caBundle, and use the host name that is in it.".into()
            }
            Self::TlsFailed { .. } => "Check that the endpoint speaks TLS 1.2 or 1.3 on this port; use http:// where it \
                                       speaks none."
                .into(),
            Self::ClockSkewed { .. } => "Set the clocks of the nodes and of the store by NTP.".into(),
            Self::Full { .. } => "Make room, or raise the quota, then run again under a new name.".into(),
            Self::Unavailable { .. } => "Look at the store's own health; a later attempt may succeed.".into(),
            Self::DamagedOnTheWay { .. } => {
                "Look for what changes bytes between the Job and the store; a later attempt may succeed.".into()
            }
            Self::Rejected { .. } => "Look the code up in the documentation of the store.".into(),
            Self::FileSystem { .. } => "Check the volume or the disk.".into(),
            Self::InvalidCaBundle { .. } => {
                "Give certificates in PEM, each between BEGIN CERTIFICATE and END CERTIFICATE.".into()
            }
            Self::InvalidEndpoint { .. } => "Write it as http://host:port or https://host:port.".into(),
            Self::PathOutside { .. } => "Use a path inside the volume, without '..'.".into(),
            Self::InvalidKey { .. } | Self::RangeOutside { .. } | Self::Client { .. } | Self::Reference(_) => {
                return None;
            }
        })
    }
}

/// An error with the errors beneath it, on one line: the outer ones say little without them.
fn with_sources(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = inner.source();
    }
    text
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        if let StoreError::Reference(reference) = error {
            return reference.into();
        }
        let message = with_sources(&error);
        let refusal = if error.is_temporary() {
            Self::temporary(error.reason(), message)
        } else {
            Self::permanent(error.reason(), message)
        };
        Self {
            object: error.object(),
            hint: error.hint(),
            ..refusal
        }
    }
}
