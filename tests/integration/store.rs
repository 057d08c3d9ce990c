//! The store: one set of rules for S3 and folders, and what faults make of it.

mod chain;
mod conformance;
mod faults;
pub mod full_disk;
mod lost_answers;
mod options;
mod refusals;

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use pgrescue::plan::connection::TextSource;
use pgrescue::plan::storage::{ObjectsPlan, S3Plan, StoragePlan};
use pgrescue::references::manifests::ManifestReferences;
use pgrescue::store::{self, Store, StoreError, StoredObject};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::parts::S3Server;

pub const BUCKET: &str = "backups";
pub const PREFIX: &str = "shop/nightly";

/// Bytes of the first parts of a multipart upload.
pub const PART: usize = 8 * 1024 * 1024;

/// The storage that tests use: credentials in a Secret, path style.
pub fn s3_plan(endpoint: &str) -> S3Plan {
    S3Plan {
        bucket: BUCKET.into(),
        prefix: PREFIX.into(),
        region: Some(S3Server::REGION.into()),
        endpoint: Some(endpoint.into()),
        force_path_style: true,
        ca_bundle: None,
        credentials_secret: Some("s3".into()),
        objects: ObjectsPlan::default(),
    }
}

/// A Secret `s3` with these keys.
pub fn secret(access_key: &str, secret_key: &str) -> ManifestReferences {
    let mut references = ManifestReferences::default();
    let manifest = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"},
        "stringData": {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key},
    });
    assert!(references.add(&manifest).expect("a good manifest"));
    references
}

pub fn good_secret() -> ManifestReferences {
    secret(S3Server::ACCESS_KEY, S3Server::SECRET_KEY)
}

/// A server with an empty bucket.
pub fn server() -> S3Server {
    let server = S3Server::start();
    server.create_bucket(BUCKET);
    server
}

/// The store behind an endpoint: the server itself, or a proxy before it.
pub async fn open(endpoint: &str) -> Arc<dyn Store> {
    open_plan(s3_plan(endpoint)).await.expect("the plan is good")
}

pub async fn open_plan(plan: S3Plan) -> Result<Arc<dyn Store>, StoreError> {
    store::open(&StoragePlan::S3(plan), &good_secret()).await
}

pub fn inline(text: &str) -> TextSource {
    TextSource::Inline(text.to_owned())
}

/// Bytes that do not repeat, the same for the same length.
pub fn content(length: usize) -> Bytes {
    let mut state = length as u64 ^ 0x9E37_79B9_7F4A_7C15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

pub async fn read(store: &dyn Store, key: &str) -> Result<Vec<u8>, StoreError> {
    let parts: Vec<Bytes> = store.read(key, None).await?.try_collect().await?;
    Ok(parts.concat())
}

pub fn assert_describes(stored: &StoredObject, key: &str, content: &[u8]) {
    let expected = StoredObject {
        key: key.into(),
        size: content.len() as u64,
        sha256: hex::encode(Sha256::digest(content)),
    };
    assert_eq!(*stored, expected);
}

/// What the server itself lists as begun and neither completed nor aborted.
pub async fn unfinished_uploads(server: &S3Server) -> usize {
    let listed = S3Server::client(&server.endpoint)
        .list_multipart_uploads()
        .bucket(BUCKET)
        .send()
        .await
        .expect("the server answers");
    listed.uploads().len()
}
