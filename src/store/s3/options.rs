//! What is asked of the store for each object that is written: encryption, storage class, tags and retention.

use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockMode as S3LockMode, ServerSideEncryption as S3Encryption, StorageClass};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::api::storage::{ObjectLock, ObjectLockMode, ServerSideEncryption};
use crate::plan::storage::ObjectsPlan;
use crate::store::{Retention, layout};

/// The same for every object of a storage, but for what `of` leaves out.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    encryption: Option<S3Encryption>,
    kms_key_id: Option<String>,
    storage_class: Option<StorageClass>,
    tagging: Option<String>,
    /// How long the objects of the backup are kept from deletion that is made now.
    pub retention: Option<Retention>,
}

impl Options {
    pub(super) fn new(plan: &ObjectsPlan) -> Self {
        let encryption = plan.sse.map(|sse| match sse {
            ServerSideEncryption::Aes256 => S3Encryption::Aes256,
            ServerSideEncryption::AwsKms => S3Encryption::AwsKms,
        });
        let tags = plan.tags.iter();
        let tagging = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(tags)
            .finish();
        Self {
            encryption,
            kms_key_id: plan.kms_key_id.clone(),
            storage_class: plan.storage_class.as_deref().map(StorageClass::from),
            // A space is a plus sign in forms alone.
            tagging: (!tagging.is_empty()).then(|| tagging.replace('+', "%20")),
            retention: None,
        }
    }

    /// What the object under a key asks for. The storage class is for rows: some classes bill every object for a
    /// month, and locks live for a minute. The retention is for manifests, which are written when everything else
    /// has it already.
    fn of(&self, key: &str) -> Self {
        Self {
            storage_class: self.storage_class.clone().filter(|_| layout::holds_rows(key)),
            retention: self.retention.filter(|_| layout::snapshot_of_manifest(key).is_some()),
            ..self.clone()
        }
    }

    /// For an object of one request.
    pub(super) fn put(&self, key: &str, request: PutObjectFluentBuilder) -> PutObjectFluentBuilder {
        let Self {
            encryption,
            kms_key_id,
            storage_class,
            tagging,
            retention,
        } = self.of(key);
        request
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key_id)
            .set_storage_class(storage_class)
            .set_tagging(tagging)
            .set_object_lock_mode(retention.map(|retention| mode(retention.mode)))
            .set_object_lock_retain_until_date(retention.map(|retention| date(retention.until)))
    }

    /// For an object of several parts.
    pub(super) fn begin(
        &self,
        key: &str,
        request: CreateMultipartUploadFluentBuilder,
    ) -> CreateMultipartUploadFluentBuilder {
        self.of(key).begin_with_all(request)
    }

    /// With everything that any object asks for.
    pub(super) fn begin_with_all(
        &self,
        request: CreateMultipartUploadFluentBuilder,
    ) -> CreateMultipartUploadFluentBuilder {
        let Self {
            encryption,
            kms_key_id,
            storage_class,
            tagging,
            retention,
        } = self.clone();
        request
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key_id)
            .set_storage_class(storage_class)
            .set_tagging(tagging)
            .set_object_lock_mode(retention.map(|retention| mode(retention.mode)))
            .set_object_lock_retain_until_date(retention.map(|retention| date(retention.until)))
    }
}

/// The retention of a backup that begins now. It ends with a day, so that all backups of a day ask for the same.
pub(super) fn retention(lock: ObjectLock, now: Timestamp) -> Retention {
    let days = i64::from(lock.retain_days) + 1;
    let end = now
        .to_zoned(TimeZone::UTC)
        .start_of_day()
        .and_then(|day| day.checked_add(days.days()));
    Retention {
        mode: lock.mode,
        until: end.map_or(Timestamp::MAX, |end| end.timestamp()),
    }
}

/// The mode in S3's words.
pub(super) const fn mode(mode: ObjectLockMode) -> S3LockMode {
    match mode {
        ObjectLockMode::Governance => S3LockMode::Governance,
        ObjectLockMode::Compliance => S3LockMode::Compliance,
    }
}

/// A time in S3's form.
pub(super) fn date(time: Timestamp) -> DateTime {
    DateTime::from_secs(time.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_the_last_day_of_the_retention() {
        let lock = ObjectLock {
            mode: ObjectLockMode::Governance,
            retain_days: 30,
        };
        let until = |now: &str| retention(lock, now.parse().unwrap()).until.to_string();
        assert_eq!(until("2026-01-02T03:04:05Z"), "2026-02-02T00:00:00Z");
        assert_eq!(until("2026-01-02T23:59:59.9Z"), "2026-02-02T00:00:00Z");
        assert_eq!(until("2026-01-03T00:00:00Z"), "2026-02-03T00:00:00Z");
    }

    #[test]
    fn a_class_is_for_rows_and_a_retention_for_manifests() {
        let mut options = Options::new(&ObjectsPlan {
            storage_class: Some("STANDARD_IA".into()),
            tags: [("team".to_owned(), "a b+c/ü".to_owned())].into(),
            ..ObjectsPlan::default()
        });
        options.retention = Some(Retention {
            mode: ObjectLockMode::Compliance,
            until: Timestamp::UNIX_EPOCH,
        });
        assert_eq!(options.tagging.as_deref(), Some("team=a%20b%2Bc%2F%C3%BC"));
        for (key, class, locked) in [
            ("chunks/aa/x", true, false),
            ("packs/aa/x", true, false),
            ("snapshots/1/shop/archive.dump", true, false),
            ("snapshots/1/shop/pre-data.sql", false, false),
            ("snapshots/1/manifest.json", false, true),
            ("locks/x.json", false, false),
            ("condemned/x.json", false, false),
            ("pgrescue.json", false, false),
        ] {
            let of = options.of(key);
            assert_eq!(
                (of.storage_class.is_some(), of.retention.is_some()),
                (class, locked),
                "{key}"
            );
            assert!(of.tagging.is_some(), "{key}");
        }
    }
}
