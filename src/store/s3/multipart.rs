//! A multipart upload, with some parts in flight. Each part carries its CRC-32, and the whole object its own.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Connection, failure, part_size};
use crate::store::StoreError;

/// The store puts the parts together at this rate at least, in bytes a second; some copy them.
const COMPLETE_RATE: u64 = 16 * 1024 * 1024;

/// How often an abort is repeated while the store still knows parts.
const ABORTS: u32 = 5;

/// A multipart upload that the store knows.
pub(super) struct Multipart {
    connection: Arc<Connection>,
    key: String,
    id: String,
    /// Number of the next part, from 1.
    pub(super) next: u32,
    in_flight: JoinSet<Result<CompletedPart, StoreError>>,
    completed: Vec<CompletedPart>,
}

impl Multipart {
    pub(super) async fn begin(connection: &Arc<Connection>, key: &str) -> Result<Self, StoreError> {
        let id = begin(connection, key).await?;
        Ok(Self {
            connection: Arc::clone(connection),
            key: key.to_owned(),
            id,
            next: 1,
            in_flight: JoinSet::new(),
            completed: Vec::new(),
        })
    }

    /// Sends a part in the background, as soon as fewer than the allowed number are in flight.
    pub(super) async fn send(&mut self, part: Bytes, crc32: u32) -> Result<(), StoreError> {
        if self.next > part_size::MOST_PARTS {
            return Err(StoreError::ObjectTooLong {
                location: self.connection.place.location(),
                key: self.key.clone(),
            });
        }
        self.wait_for_parts(part_size::in_flight(part.len()) - 1).await?;
        let (connection, key, id) = (Arc::clone(&self.connection), self.key.clone(), self.id.clone());
        let number = i32::try_from(self.next).unwrap_or(i32::MAX);
        self.in_flight
            .spawn(async move { send_part(&connection, &key, &id, number, part, crc32).await });
        self.next += 1;
        Ok(())
    }

    /// Waits until at most `most` parts are in flight.
    pub(super) async fn wait_for_parts(&mut self, most: usize) -> Result<(), StoreError> {
        while self.in_flight.len() > most {
            let Some(joined) = self.in_flight.join_next().await else {
                break;
            };
            let part = joined.map_err(|error| StoreError::Client {
                object: self.connection.place.object(Some(&self.key)),
                action: "write",
                source: error.into(),
            })?;
            self.completed.push(part?);
        }
        Ok(())
    }

    pub(super) async fn complete(
        &mut self,
        size: u64,
        crc32: &str,
        replace: bool,
    ) -> Result<(), SdkError<impl ProvideErrorMetadata + std::error::Error + Send + Sync + 'static, HttpResponse>> {
        self.completed.sort_by_key(CompletedPart::part_number);
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(self.completed.clone()))
            .build();
        let place = &self.connection.place;
        self.connection
            .client()
            .complete_multipart_upload()
            .bucket(&place.bucket)
            .key(place.full_key(&self.key))
            .upload_id(&self.id)
            .multipart_upload(parts)
            .checksum_crc32(crc32)
            .checksum_type(ChecksumType::FullObject)
            .set_mpu_object_size(i64::try_from(size).ok())
            .set_if_none_match((!replace).then(|| "*".to_owned()))
            .customize()
            .config_override(super::client::timeout_for(size / (COMPLETE_RATE / (64 * 1024))))
            .send()
            .await
            .map(|_| ())
    }

    /// Whether the object is there with this size and checksum.
    pub(super) async fn is_there(&self, size: u64, crc32: &str) -> Result<bool, StoreError> {
        let place = &self.connection.place;
        let result = self
            .connection
            .client()
            .head_object()
            .bucket(&place.bucket)
            .key(place.full_key(&self.key))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await;
        if let Err(error) = &result
            && failure::answer(error).is_some_and(|answer| answer.status == 404)
        {
            return Ok(false);
        }
        let head = self.connection.settle("read", Some(&self.key), result).await?;
        Ok(
            head.content_length.and_then(|length| u64::try_from(length).ok()) == Some(size)
                && head.checksum_crc32.as_deref() == Some(crc32),
        )
    }

    /// Stops the parts in flight and makes the store forget the others.
    pub(super) async fn abort(mut self) -> Result<(), StoreError> {
        self.in_flight.shutdown().await;
        let full_key = self.connection.place.full_key(&self.key);
        abort_one(&self.connection, &self.key, &full_key, &self.id).await
    }
}

async fn begin(connection: &Connection, key: &str) -> Result<String, StoreError> {
    let request = connection.client().create_multipart_upload();
    begin_as(connection, key, connection.options.begin(key, request)).await
}

async fn begin_as(
    connection: &Connection,
    key: &str,
    request: CreateMultipartUploadFluentBuilder,
) -> Result<String, StoreError> {
    let place = &connection.place;
    let result = request
        .bucket(&place.bucket)
        .key(place.full_key(key))
        .checksum_algorithm(ChecksumAlgorithm::Crc32)
        .checksum_type(ChecksumType::FullObject)
        .send()
        .await;
    let output = connection.settle("write", Some(key), result).await?;
    output.upload_id.ok_or_else(|| StoreError::NotS3 {
        endpoint: place.endpoint.clone(),
        status: 200,
    })
}

async fn send_part(
    connection: &Connection,
    key: &str,
    upload: &str,
    number: i32,
    part: Bytes,
    crc32: u32,
) -> Result<CompletedPart, StoreError> {
    let place = &connection.place;
    let size = part.len() as u64;
    let request = connection
        .client()
        .upload_part()
        .bucket(&place.bucket)
        .key(place.full_key(key))
        .upload_id(upload)
        .part_number(number)
        .checksum_crc32(encode(crc32))
        .body(ByteStream::from(part))
        .customize()
        .config_override(super::client::timeout_for(size));
    let request = if connection.is_tls() {
        request.disable_payload_signing()
    } else {
        request
    };
    let result = request.send().await;
    let output = connection.settle("write", Some(key), result).await?;
    Ok(CompletedPart::builder()
        .part_number(number)
        .set_e_tag(output.e_tag)
        .checksum_crc32(encode(crc32))
        .build())
}

/// Aborts until the store has forgotten the upload: a part that was in flight may arrive after the first time.
async fn abort_one(connection: &Connection, key: &str, full_key: &str, id: &str) -> Result<(), StoreError> {
    let bucket = &connection.place.bucket;
    for attempt in 1..=ABORTS {
        let request = connection.client().abort_multipart_upload();
        let result = request.bucket(bucket).key(full_key).upload_id(id).send().await;
        if is_forgotten(&result) {
            return Ok(());
        }
        connection.settle("abort the upload of", Some(key), result).await?;
        let request = connection.client().list_parts();
        let result = request
            .bucket(bucket)
            .key(full_key)
            .upload_id(id)
            .max_parts(1)
            .send()
            .await;
        // Credentials may lack the right to list parts: then the abort was all that can be done.
        if is_forgotten(&result) || attempt == ABORTS || result.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200) * attempt).await;
    }
    Ok(())
}

fn is_forgotten<T, E: ProvideErrorMetadata>(result: &Result<T, SdkError<E, HttpResponse>>) -> bool {
    let answer = result.as_ref().err().and_then(failure::answer);
    answer.is_some_and(|answer| answer.code == "NoSuchUpload" || (answer.code.is_empty() && answer.status == 404))
}

/// Aborts every upload whose key begins with `prefix`. Returns how many.
pub(super) async fn abort_all(connection: &Connection, prefix: &str) -> Result<usize, StoreError> {
    let place = &connection.place;
    let mut unfinished = Vec::new();
    let (mut after_key, mut after_id) = (None, None);
    loop {
        let request = connection.client().list_multipart_uploads();
        let request = request
            .bucket(&place.bucket)
            .prefix(place.full_key(prefix))
            .set_key_marker(after_key)
            .set_upload_id_marker(after_id);
        let page = connection
            .settle("list the unfinished uploads of", None, request.send().await)
            .await?;
        unfinished.extend(page.uploads.unwrap_or_default());
        if page.is_truncated != Some(true) {
            break;
        }
        (after_key, after_id) = (page.next_key_marker, page.next_upload_id_marker);
    }
    let mut aborted = 0;
    for upload in unfinished {
        let (Some(full_key), Some(id)) = (upload.key, upload.upload_id) else {
            continue;
        };
        let Some(key) = place.short_key(&full_key) else {
            continue;
        };
        abort_one(connection, &key, &full_key, &id).await?;
        aborted += 1;
    }
    Ok(aborted)
}

/// Begins an upload and aborts it: neither leaves a trace, also where the bucket keeps versions. It asks for everything
/// that any object of the storage asks for; an upload that is aborted is never locked.
pub(super) async fn check_access(connection: &Connection) -> Result<(), StoreError> {
    let key = "access";
    let request = connection.client().create_multipart_upload();
    let id = begin_as(connection, key, connection.options.begin_with_all(request)).await?;
    abort_one(connection, key, &connection.place.full_key(key), &id).await
}

/// A CRC-32 as S3 writes it.
pub(super) fn encode(crc32: u32) -> String {
    BASE64.encode(crc32.to_be_bytes())
}
