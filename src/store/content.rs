//! Whole objects, and reading that proves what was read.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};

use super::error::Change;
use super::{ByteStream, Store, StoreError, StoredObject, Upload};

/// Reads a whole small object into memory; more than `limit` bytes are an error.
pub async fn read_all(store: &dyn Store, key: &str, limit: u64) -> Result<Bytes, StoreError> {
    let mut stream = store.read(key, None).await?;
    let mut content = BytesMut::new();
    while let Some(bytes) = stream.next().await {
        content.extend_from_slice(&bytes?);
        if content.len() as u64 > limit {
            return Err(StoreError::ObjectTooLarge {
                location: store.location(),
                key: key.to_owned(),
                limit,
            });
        }
    }
    Ok(content.freeze())
}

/// Writes an object from memory, over one that may be there.
pub async fn put(store: &dyn Store, key: &str, content: Bytes) -> Result<StoredObject, StoreError> {
    write_whole(store.create(key).await?, content).await
}

/// As [`put`], of content whose SHA-256 is known, in hex.
pub async fn put_hashed(
    store: &dyn Store,
    key: &str,
    content: Bytes,
    sha256: &str,
) -> Result<StoredObject, StoreError> {
    let mut upload = store.create(key).await?;
    upload.set_sha256(sha256);
    write_whole(upload, content).await
}

/// Writes an object from memory where there is none yet; else `StoreError::ObjectExists`.
pub async fn put_new(store: &dyn Store, key: &str, content: Bytes) -> Result<StoredObject, StoreError> {
    write_whole(store.create_new(key).await?, content).await
}

async fn write_whole(mut upload: Box<dyn Upload>, content: Bytes) -> Result<StoredObject, StoreError> {
    upload.write(content).await?;
    upload.finish().await
}

/// SHA-256 of an object that is being written.
#[derive(Debug)]
pub(super) enum ObjectHash {
    /// Of what went by.
    Computed(Sha256),
    /// In hex, as the caller said.
    Known(String),
}

impl ObjectHash {
    pub(super) fn new() -> Self {
        Self::Computed(Sha256::new())
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Self::Computed(hash) = self {
            hash.update(bytes);
        }
    }

    /// In hex, where the caller said it.
    pub(super) fn known(&self) -> Option<&str> {
        match self {
            Self::Computed(_) => None,
            Self::Known(sha256) => Some(sha256),
        }
    }

    /// In hex.
    pub(super) fn finish(&mut self) -> String {
        match self {
            Self::Computed(hash) => hex::encode(hash.finalize_reset()),
            Self::Known(sha256) => std::mem::take(sha256),
        }
    }
}

/// The same bytes; the stream ends with `StoreError::ObjectChanged` unless size and SHA-256 of all of them are those
/// of `expected`. What was read may be used only after the stream has ended without an error.
#[must_use]
pub fn verified(stream: ByteStream, expected: &StoredObject) -> ByteStream {
    Box::pin(verify(stream, expected.clone()))
}

struct Verification {
    stream: Option<ByteStream>,
    expected: StoredObject,
    sha256: Sha256,
    size: u64,
}

impl Verification {
    /// Counts and hashes; says so as soon as there are more bytes than there should be.
    fn add(&mut self, bytes: &Bytes) -> Result<(), Change> {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
        if self.size > self.expected.size {
            return Err(Change::Size {
                expected: self.expected.size,
                found: self.size,
            });
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Change> {
        if self.size != self.expected.size {
            return Err(Change::Size {
                expected: self.expected.size,
                found: self.size,
            });
        }
        let found = hex::encode(self.sha256.finalize_reset());
        if found != self.expected.sha256 {
            return Err(Change::Sha256 {
                expected: self.expected.sha256.clone(),
                found,
            });
        }
        Ok(())
    }

    fn changed(&self, change: Change) -> StoreError {
        StoreError::ObjectChanged {
            key: self.expected.key.clone(),
            change,
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let verdict = match self.stream.as_mut()?.next().await {
            Some(Ok(bytes)) => match self.add(&bytes) {
                Ok(()) => return Some(Ok(bytes)),
                Err(change) => Some(Err(self.changed(change))),
            },
            Some(Err(error)) => Some(Err(error)),
            None => self.end().err().map(|change| Err(self.changed(change))),
        };
        self.stream = None;
        verdict
    }
}

fn verify(stream: ByteStream, expected: StoredObject) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    let verification = Verification {
        stream: Some(stream),
        expected,
        sha256: Sha256::new(),
        size: 0,
    };
    futures::stream::unfold(verification, |mut verification| async move {
        let item = verification.next().await?;
        Some((item, verification))
    })
    .fuse()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(parts: &[&'static str], expected: &str) -> Result<String, StoreError> {
        let parts: Vec<_> = parts
            .iter()
            .map(|part| Ok(Bytes::from_static(part.as_bytes())))
            .collect();
        let object = StoredObject {
            key: "k".into(),
            size: expected.len() as u64,
            sha256: hex::encode(Sha256::digest(expected)),
        };
        let mut stream = verified(Box::pin(futures::stream::iter(parts)), &object);
        let mut all = String::new();
        while let Some(bytes) = stream.next().await {
            all.push_str(std::str::from_utf8(&bytes?).unwrap());
        }
        assert!(stream.next().await.is_none());
        Ok(all)
    }

    #[tokio::test]
    async fn a_stream_ends_well_only_when_size_and_hash_fit() {
        assert_eq!(read(&["ab", "c"], "abc").await.unwrap(), "abc");
        assert_eq!(read(&[], "").await.unwrap(), "");
        for (parts, expected) in [
            (&["ab"][..], "abc"),
            (&["abc", "d"], "abc"),
            (&["abd"], "abc"),
            (&[], "a"),
        ] {
            let error = read(parts, expected).await.unwrap_err();
            assert!(matches!(error, StoreError::ObjectChanged { .. }), "{error}");
        }
    }
}
