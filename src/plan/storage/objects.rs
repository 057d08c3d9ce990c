//! What is asked of an S3 server for every object: the limits are those of AWS.

use std::collections::BTreeMap;

use super::ObjectsPlan;
use crate::api::storage::{ObjectLock, S3Storage, ServerSideEncryption};
use crate::plan::connection::{check_text, invalid};
use crate::plan::refusal::Refusal;

/// Storage classes whose objects have to be brought back before they can be read, which takes hours.
const NOT_READ_AT_ONCE: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

const MOST_TAGS: usize = 10;
const LONGEST_TAG_KEY: usize = 128;
const LONGEST_TAG_VALUE: usize = 256;
const MOST_DAYS: u32 = 36_500;

/// Validates the options. `field` is the path of the storage, such as `spec.storage.s3`.
pub(super) fn plan(s3: &S3Storage, field: &str) -> Result<ObjectsPlan, Refusal> {
    let field = |name: &str| format!("{field}.{name}");
    if let Some(key) = &s3.kms_key_id {
        check_key(key, s3.sse, &field("kmsKeyId"))?;
    }
    if let Some(class) = &s3.storage_class {
        check_class(class, &field("storageClass"))?;
    }
    check_tags(&s3.tags, &field("tags"))?;
    if let Some(ObjectLock { mode: _, retain_days }) = s3.object_lock
        && !(1..=MOST_DAYS).contains(&retain_days)
    {
        return Err(invalid(
            &field("objectLock.retainDays"),
            &format!("is {retain_days}; a lock holds for 1 to {MOST_DAYS} days"),
        ));
    }
    Ok(ObjectsPlan {
        sse: s3.sse,
        kms_key_id: s3.kms_key_id.clone(),
        storage_class: s3.storage_class.clone(),
        tags: s3.tags.clone(),
        object_lock: s3.object_lock,
    })
}

fn check_key(key: &str, sse: Option<ServerSideEncryption>, field: &str) -> Result<(), Refusal> {
    check_text(key, field)?;
    if sse != Some(ServerSideEncryption::AwsKms) {
        return Err(invalid(field, "goes with `sse: aws:kms` alone").hint("Set sse to aws:kms, or leave kmsKeyId out."));
    }
    if key.chars().any(|letter| !letter.is_ascii_graphic()) {
        return Err(invalid(field, "has a character that no id of a key has")
            .hint("Give the key's id, its ARN, or alias/ and its alias."));
    }
    Ok(())
}

fn check_class(class: &str, field: &str) -> Result<(), Refusal> {
    check_text(class, field)?;
    if NOT_READ_AT_ONCE.contains(&class) {
        return Err(invalid(
            field,
            &format!("is {class}, whose objects cannot be read at once, as a restore and a check have to"),
        )
        .hint("Use STANDARD_IA or GLACIER_IR, or leave it to a lifecycle rule to move what is no longer needed."));
    }
    let known = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    if !class.chars().all(known) {
        return Err(invalid(field, "is not the name of a storage class").hint("Give a name such as STANDARD_IA."));
    }
    Ok(())
}

fn check_tags(tags: &BTreeMap<String, String>, field: &str) -> Result<(), Refusal> {
    if tags.len() > MOST_TAGS {
        let count = tags.len();
        return Err(invalid(
            field,
            &format!("has {count} tags; an object has at most {MOST_TAGS}"),
        ));
    }
    for (key, value) in tags {
        if key.is_empty() || key.chars().count() > LONGEST_TAG_KEY {
            return Err(invalid(
                field,
                &format!("has a key that is not 1 to {LONGEST_TAG_KEY} characters long"),
            ));
        }
        if value.chars().count() > LONGEST_TAG_VALUE {
            return Err(invalid(
                field,
                &format!("has a value under {key:?} that is longer than {LONGEST_TAG_VALUE} characters"),
            ));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid(
                field,
                &format!("has the key {key:?}; keys that begin with aws: are AWS's own"),
            ));
        }
        let allowed = |letter: char| letter.is_alphanumeric() || " +-=._:/@".contains(letter);
        if !key.chars().chain(value.chars()).all(allowed) {
            return Err(
                invalid(field, &format!("has a character under {key:?} that tags do not take"))
                    .hint("Use letters, digits, spaces and + - = . _ : / @."),
            );
        }
    }
    Ok(())
}
