//! What an error of a store means to whoever has to mend it: its reason, its object, what to do, and whether to try again.

use super::{ConnectionFailure, StoreError};
use crate::api::reasons;
use crate::plan::Refusal;

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
