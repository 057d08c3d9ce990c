//! A validated storage.

mod objects;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::connection::{TextSource, check_text, invalid, text_source};
use super::refusal::Refusal;
use crate::api::storage::{FolderStorage, ObjectLock, S3Storage, ServerSideEncryption, Storage, VolumeStorage};

/// Where artefacts are kept.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::large_enum_variant, reason = "a plan has one")]
pub enum StoragePlan {
    /// A bucket of an S3 server.
    S3(S3Plan),
    /// A folder of a PersistentVolumeClaim, mounted by the Job at `store::volume::MOUNT_PATH`.
    Volume {
        /// Name of the PersistentVolumeClaim.
        claim_name: String,
        /// Folder inside the volume.
        path: String,
    },
    /// A folder of this machine.
    Folder {
        /// Its path.
        path: String,
    },
}

/// A bucket of an S3 server, and a prefix in it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Plan {
    /// Bucket.
    pub bucket: String,
    /// Prefix without slashes at the ends; may be empty.
    pub prefix: String,
    /// Region; `None` leaves it to the AWS SDK's chain.
    pub region: Option<String>,
    /// Endpoint; `None` is AWS.
    pub endpoint: Option<String>,
    /// Bucket in the path instead of the host name.
    pub force_path_style: bool,
    /// PEM of the authorities for the endpoint.
    pub ca_bundle: Option<TextSource>,
    /// Secret with the AWS keys; `None` leaves it to the AWS SDK's chain.
    pub credentials_secret: Option<String>,
    /// What every object that is written asks for.
    #[serde(default)]
    pub objects: ObjectsPlan,
}

/// What is asked of an S3 server for the objects that are written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectsPlan {
    /// Server-side encryption; `None` leaves it to the bucket.
    pub sse: Option<ServerSideEncryption>,
    /// Key of SSE-KMS; `None` is the account's own for S3.
    pub kms_key_id: Option<String>,
    /// Storage class of the objects that hold rows.
    pub storage_class: Option<String>,
    /// Tags of every object.
    pub tags: BTreeMap<String, String>,
    /// How long the objects of a backup cannot be deleted.
    pub object_lock: Option<ObjectLock>,
}

/// Where the plan will run: decides which kinds of storage can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a pod of a cluster.
    Cluster,
    /// On this machine, by `pgrescue run`.
    Local,
}

/// Longest prefix and path, in bytes: an S3 key has 1024, and the layout needs room for a database's name.
const PREFIX_LIMIT_BYTES: usize = 512;

/// Validates where a storage is; `encryption::plan` does the rest. `field` is its path in the manifest, such as `spec.storage`.
pub fn plan(storage: &Storage, place: Place, field: &str) -> Result<StoragePlan, Refusal> {
    let Storage {
        s3,
        volume,
        folder,
        encryption: _,
    } = storage;
    match (s3, volume, folder, place) {
        (Some(s3), None, None, _) => plan_s3(s3, &format!("{field}.s3")).map(StoragePlan::S3),
        (None, Some(volume), None, Place::Cluster) => plan_volume(volume, &format!("{field}.volume")),
        (None, None, Some(folder), Place::Local) => plan_folder(folder, &format!("{field}.folder")),
        (None, Some(_), None, Place::Local) => Err(invalid(
            &format!("{field}.volume"),
            "is a PersistentVolumeClaim, which only a pod can reach",
        )
        .hint("Use storage.folder with the path of a local folder.")),
        (None, None, Some(_), Place::Cluster) => Err(invalid(
            &format!("{field}.folder"),
            "is a folder of the machine that runs `pgrescue run`; a pod cannot reach it",
        )
        .hint("Use storage.s3 or storage.volume.")),
        _ => Err(
            invalid(field, "must name exactly one kind of storage").hint(match place {
                Place::Cluster => "Give s3 or volume.",
                Place::Local => "Give s3 or folder.",
            }),
        ),
    }
}

fn plan_s3(s3: &S3Storage, field: &str) -> Result<S3Plan, Refusal> {
    let S3Storage {
        bucket,
        prefix,
        region,
        endpoint,
        force_path_style,
        ca_bundle,
        credentials_secret_ref,
        sse: _,
        kms_key_id: _,
        storage_class: _,
        tags: _,
        object_lock: _,
    } = s3;
    check_text(bucket, &format!("{field}.bucket"))?;
    if bucket.contains('/') {
        return Err(invalid(&format!("{field}.bucket"), "contains a slash")
            .hint("Give the bucket's name alone; a folder inside it goes to prefix."));
    }
    if let Some(region) = region {
        check_text(region, &format!("{field}.region"))?;
    }
    if let Some(endpoint) = endpoint {
        check_endpoint(endpoint, &format!("{field}.endpoint"))?;
    }
    let credentials_secret = credentials_secret_ref.as_ref().map(|secret| secret.name.clone());
    if let Some(secret) = &credentials_secret {
        check_text(secret, &format!("{field}.credentialsSecretRef.name"))?;
    }
    Ok(S3Plan {
        bucket: bucket.clone(),
        prefix: relative_path(prefix.as_deref().unwrap_or_default(), &format!("{field}.prefix"))?,
        region: region.clone(),
        endpoint: endpoint.clone(),
        force_path_style: force_path_style.unwrap_or_default(),
        ca_bundle: ca_bundle
            .as_ref()
            .map(|source| text_source(source, &format!("{field}.caBundle")))
            .transpose()?,
        credentials_secret,
        objects: objects::plan(s3, field)?,
    })
}

fn check_endpoint(endpoint: &str, field: &str) -> Result<(), Refusal> {
    let example = "Give a URL such as https://s3.example.com:9000.";
    // The URL itself is left out of the sentence: it may hold a password.
    let url =
        url::Url::parse(endpoint).map_err(|error| invalid(field, &format!("is not a URL: {error}")).hint(example))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid(field, "is neither http nor https").hint(example));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(field, "contains credentials").hint("Put them into a Secret, for credentialsSecretRef."));
    }
    if url.query().is_some() || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
        return Err(invalid(field, "has a path, a query or a fragment")
            .hint("Give scheme, host and port; the bucket and the prefix have fields of their own."));
    }
    Ok(())
}

fn plan_volume(volume: &VolumeStorage, field: &str) -> Result<StoragePlan, Refusal> {
    let VolumeStorage { claim_name, path } = volume;
    check_text(claim_name, &format!("{field}.claimName"))?;
    Ok(StoragePlan::Volume {
        claim_name: claim_name.clone(),
        path: relative_path(path.as_deref().unwrap_or_default(), &format!("{field}.path"))?,
    })
}

fn plan_folder(folder: &FolderStorage, field: &str) -> Result<StoragePlan, Refusal> {
    let FolderStorage { path } = folder;
    check_text(path, &format!("{field}.path"))?;
    Ok(StoragePlan::Folder { path: path.clone() })
}

/// A path inside a bucket or a volume, without slashes at its ends; nothing leads out of it.
fn relative_path(path: &str, field: &str) -> Result<String, Refusal> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    if path.len() > PREFIX_LIMIT_BYTES {
        return Err(invalid(field, &format!("is longer than {PREFIX_LIMIT_BYTES} bytes")));
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(invalid(field, "has an empty part, or a part that is `.` or `..`")
            .hint("Give plain names with one slash between them."));
    }
    if path.chars().any(char::is_control) {
        return Err(invalid(field, "contains a control character"));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(yaml: &str, place: Place) -> Result<StoragePlan, Refusal> {
        plan(&serde_saphyr::from_str(yaml).unwrap(), place, "spec.storage")
    }

    fn refused(yaml: &str, place: Place) -> String {
        planned(yaml, place).unwrap_err().sentence()
    }

    #[test]
    fn the_sentences_of_a_refused_storage_help() {
        insta::assert_snapshot!(
            [
                refused("{}", Place::Cluster),
                refused("{}", Place::Local),
                refused("{folder: {path: /x}}", Place::Cluster),
                refused("{volume: {claimName: c}}", Place::Local),
                refused("{volume: {claimName: c}, s3: {bucket: b}}", Place::Cluster),
                refused("{s3: {bucket: ''}}", Place::Cluster),
                refused("{s3: {bucket: a/b}}", Place::Cluster),
                refused("{s3: {bucket: b, prefix: a//b}}", Place::Cluster),
                refused("{s3: {bucket: b, endpoint: 'no url'}}", Place::Cluster),
                refused("{s3: {bucket: b, endpoint: 'ftp://x'}}", Place::Cluster),
                refused("{s3: {bucket: b, endpoint: 'http://u:p@x'}}", Place::Cluster),
                refused("{s3: {bucket: b, endpoint: 'http://x/bucket'}}", Place::Cluster),
                refused("{s3: {bucket: b, kmsKeyId: k}}", Place::Cluster),
                refused("{s3: {bucket: b, sse: AES256, kmsKeyId: k}}", Place::Cluster),
                refused("{s3: {bucket: b, sse: 'aws:kms', kmsKeyId: 'a b'}}", Place::Cluster),
                refused("{s3: {bucket: b, storageClass: DEEP_ARCHIVE}}", Place::Cluster),
                refused("{s3: {bucket: b, storageClass: 'standard ia'}}", Place::Cluster),
                refused("{s3: {bucket: b, tags: {a: 'b#'}}}", Place::Cluster),
                refused("{s3: {bucket: b, tags: {'aws:a': b}}}", Place::Cluster),
                refused("{s3: {bucket: b, tags: {'': b}}}", Place::Cluster),
                refused(
                    "{s3: {bucket: b, objectLock: {mode: Compliance, retainDays: 0}}}",
                    Place::Cluster
                ),
                refused("{volume: {claimName: c, path: ../x}}", Place::Cluster),
                refused("{folder: {path: ''}}", Place::Local),
            ]
            .join("\n")
        );
    }

    #[test]
    fn tags_are_few_and_short_as_aws_has_them() {
        let tags = |tags: &BTreeMap<String, String>| {
            planned(
                &serde_json::json!({"s3": {"bucket": "b", "tags": tags}}).to_string(),
                Place::Cluster,
            )
        };
        let of = |count: usize, key: &str, value: &str| -> BTreeMap<String, String> {
            (0..count)
                .map(|number| (format!("{number}{key}"), value.to_owned()))
                .collect()
        };
        assert!(tags(&of(10, &"ü".repeat(127), &"é".repeat(256))).is_ok());
        assert!(tags(&of(1, " +-=._:/@", "")).is_ok());
        for (wrong, word) in [
            (of(11, "a", "b"), "11 tags"),
            (of(1, &"a".repeat(128), "b"), "128"),
            (of(1, "a", &"b".repeat(257)), "256"),
        ] {
            let refusal = tags(&wrong).unwrap_err();
            assert!(refusal.sentence().contains(word), "{refusal:?}");
        }
    }

    #[test]
    fn slashes_at_the_ends_of_a_prefix_do_not_matter() {
        let StoragePlan::S3(s3) = planned("{s3: {bucket: b, prefix: /a/b/}}", Place::Cluster).unwrap() else {
            panic!("an S3 plan");
        };
        assert_eq!(s3.prefix, "a/b");
    }
}
