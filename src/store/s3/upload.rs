//! Writing an object: one request where it is small, else a multipart upload.
//!
//! The object carries its CRC-32, so that the store itself refuses what arrived damaged.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};

use super::known_payload::KnownPayload;
use super::multipart::{Multipart, encode};
use super::{Connection, failure, part_size};
use crate::store::content::ObjectHash;
use crate::store::{StoreError, StoredObject, Upload};

/// An object that is being written.
pub(super) struct S3Upload {
    connection: Arc<Connection>,
    key: String,
    /// Whether an object that is there may be overwritten.
    replace: bool,
    /// The first bytes as they came, as long as no others follow: an object in one piece is sent without a copy.
    whole: Bytes,
    /// The part that is being filled.
    filling: BytesMut,
    /// Begun when the object does not fit one request.
    multipart: Option<Multipart>,
    size: u64,
    sha256: ObjectHash,
    /// CRC-32 of all parts that are full.
    crc32: crc32fast::Hasher,
}

impl S3Upload {
    pub(super) fn new(connection: Arc<Connection>, key: &str, replace: bool) -> Self {
        Self {
            connection,
            key: key.to_owned(),
            replace,
            whole: Bytes::new(),
            filling: BytesMut::new(),
            multipart: None,
            size: 0,
            sha256: ObjectHash::new(),
            crc32: crc32fast::Hasher::new(),
        }
    }

    fn number(&self) -> u32 {
        self.multipart.as_ref().map_or(1, |multipart| multipart.next)
    }

    /// Sends the part that is full.
    async fn send_part(&mut self) -> Result<(), StoreError> {
        if self.multipart.is_none() {
            self.multipart = Some(Multipart::begin(&self.connection, &self.key).await?);
        }
        let part = std::mem::take(&mut self.filling).freeze();
        let crc32 = self.add_crc(&part);
        if let Some(multipart) = &mut self.multipart {
            multipart.send(part, crc32).await?;
        }
        self.filling.reserve(part_size::of_part(self.number()));
        Ok(())
    }

    fn add_crc(&mut self, part: &Bytes) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(part);
        self.crc32.combine(&hasher);
        hasher.finalize()
    }

    async fn fill(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let part_size = part_size::of_part(self.number());
            if self.filling.len() == part_size {
                self.send_part().await?;
                continue;
            }
            let taken = bytes.split_to(bytes.len().min(part_size - self.filling.len()));
            self.filling.extend_from_slice(&taken);
        }
        Ok(())
    }

    async fn finish_small(&mut self) -> Result<(), StoreError> {
        let content = if self.whole.is_empty() {
            self.filling.split().freeze()
        } else {
            std::mem::take(&mut self.whole)
        };
        let crc32 = self.add_crc(&content);
        let place = &self.connection.place;
        let request = self.connection.client().put_object();
        let request = self
            .connection
            .options
            .put(&self.key, request)
            .bucket(&place.bucket)
            .key(place.full_key(&self.key))
            .checksum_crc32(encode(crc32))
            .set_if_none_match((!self.replace).then(|| "*".to_owned()))
            .body(ByteStream::from(content.clone()))
            .customize()
            .config_override(super::client::timeout_for(content.len() as u64));
        let request = if self.connection.is_tls() {
            request.disable_payload_signing()
        } else if let Some(sha256) = self.sha256.known() {
            request.interceptor(KnownPayload(sha256.to_owned()))
        } else {
            request
        };
        let result = request.send().await;
        match self.connection.settle("write", Some(&self.key), result).await {
            Err(StoreError::ObjectExists { .. }) if self.is_there(&content).await? => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// A request that was repeated because its answer was lost finds the object that it wrote itself.
    async fn is_there(&self, content: &Bytes) -> Result<bool, StoreError> {
        let mut stream = super::read::read(Arc::clone(&self.connection), &self.key, None).await?;
        let mut rest = content.clone();
        while let Some(bytes) = futures::TryStreamExt::try_next(&mut stream).await? {
            if !rest.starts_with(&bytes) {
                return Ok(false);
            }
            rest = rest.slice(bytes.len()..);
        }
        Ok(rest.is_empty())
    }

    async fn finish_multipart(&mut self) -> Result<(), StoreError> {
        if !self.filling.is_empty() {
            self.send_part().await?;
        }
        let Some(multipart) = &mut self.multipart else {
            return Ok(());
        };
        multipart.wait_for_parts(0).await?;
        let crc32 = encode(self.crc32.clone().finalize());
        let result = multipart.complete(self.size, &crc32, self.replace).await;
        let settled_before = match &result {
            Ok(()) => return Ok(()),
            // The answer to an earlier attempt was lost: the store has put the object together already.
            Err(error) => failure::answer(error).is_some_and(|it| it.code == "NoSuchUpload" || it.status == 412),
        };
        if settled_before && multipart.is_there(self.size, &crc32).await? {
            return Ok(());
        }
        self.connection.settle("write", Some(&self.key), result).await
    }

    async fn abort_multipart(&mut self) -> Result<(), StoreError> {
        self.filling = BytesMut::new();
        match self.multipart.take() {
            Some(multipart) => multipart.abort().await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Upload for S3Upload {
    fn set_sha256(&mut self, sha256: &str) {
        self.sha256 = ObjectHash::Known(sha256.to_owned());
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.sha256.update(&bytes);
        let is_first = self.size == 0;
        self.size += bytes.len() as u64;
        if is_first && bytes.len() <= part_size::FIRST {
            self.whole = bytes;
            return Ok(());
        }
        let before = std::mem::take(&mut self.whole);
        self.fill(before).await?;
        self.fill(bytes).await
    }

    async fn finish(mut self: Box<Self>) -> Result<StoredObject, StoreError> {
        let result = if self.multipart.is_none() {
            self.finish_small().await
        } else {
            self.finish_multipart().await
        };
        if let Err(error) = result {
            // What is left is found by `abort_uploads`; the first error says more than a second one.
            if let Err(second) = self.abort_multipart().await {
                tracing::warn!(key = self.key, error = %second, "an unfinished upload could not be aborted");
            }
            return Err(error);
        }
        self.multipart = None;
        Ok(StoredObject {
            key: self.key.clone(),
            size: self.size,
            sha256: self.sha256.finish(),
        })
    }

    async fn abort(mut self: Box<Self>) -> Result<(), StoreError> {
        self.abort_multipart().await
    }
}

impl Drop for S3Upload {
    fn drop(&mut self) {
        if let (Some(multipart), Ok(runtime)) = (self.multipart.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(error) = multipart.abort().await {
                    tracing::warn!(%error, "an unfinished upload could not be aborted");
                }
            });
        }
    }
}
