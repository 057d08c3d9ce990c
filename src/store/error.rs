//! What can go wrong with a store, in the words of the person who has to mend it.

mod refusal;

use std::io;

use jiff::Timestamp;

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
