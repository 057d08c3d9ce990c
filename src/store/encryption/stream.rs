//! Objects that are encrypted while they are sent and decrypted while they arrive; a few blocks of 64 KiB are in memory.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use age::Decryptor;
use age::stream::StreamWriter;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt as _, StreamExt as _, TryStreamExt as _};

use super::{HEADER_LIMIT_BYTES, Identities, Recipients, SUFFIX, has_header, problem_of, problem_of_header};
use crate::store::error::Change;
use crate::store::{ByteStream, Store, StoreError, StoredObject, Upload};

/// Bytes of content that are handed over at once: one block of an age file.
const PIECE_BYTES: usize = 64 * 1024;

/// Begins an object. With recipients it is an age file, under the key with `SUFFIX`.
pub async fn create(
    store: &dyn Store,
    key: &str,
    recipients: Option<&Recipients>,
) -> Result<Box<dyn Upload>, StoreError> {
    let Some(recipients) = recipients else {
        return store.create(key).await;
    };
    let key = format!("{key}{SUFFIX}");
    let failed = |source| StoreError::Client {
        object: format!("{}/{key}", store.location()),
        action: "encrypt",
        source,
    };
    let sealed = Sealed::default();
    let encryptor = recipients.encryptor().map_err(|error| failed(error.into()))?;
    let writer = encryptor
        .wrap_output(sealed.clone())
        .map_err(|error| failed(error.into()))?;
    let upload = store.create(&key).await?;
    Ok(Box::new(EncryptedUpload {
        upload,
        writer,
        sealed,
        key,
    }))
}

/// Encrypted bytes on their way from age to the store.
#[derive(Clone, Default)]
struct Sealed(Arc<Mutex<Vec<u8>>>);

impl Sealed {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Sealed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut sealed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sealed.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct EncryptedUpload {
    upload: Box<dyn Upload>,
    writer: StreamWriter<Sealed>,
    sealed: Sealed,
    key: String,
}

impl EncryptedUpload {
    async fn pass_on(&mut self) -> Result<(), StoreError> {
        let bytes = self.sealed.take();
        if bytes.is_empty() {
            return Ok(());
        }
        self.upload.write(bytes).await
    }
}

fn failed(key: &str, error: std::io::Error) -> StoreError {
    StoreError::Client {
        object: key.to_owned(),
        action: "encrypt",
        source: error.into(),
    }
}

#[async_trait]
impl Upload for EncryptedUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.writer.write_all(piece).map_err(|error| failed(&self.key, error))?;
            self.pass_on().await?;
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<StoredObject, StoreError> {
        let Self {
            mut upload,
            writer,
            sealed,
            key,
        } = *self;
        let finished = writer.finish();
        if let Err(error) = finished {
            upload.abort().await?;
            return Err(failed(&key, error));
        }
        upload.write(sealed.take()).await?;
        upload.finish().await
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        self.upload.abort().await
    }
}

/// The content of an age file. Fails with `StoreError::IdentityWrong`, before anything is read but the header, where
/// none of the identities opens it.
pub async fn decrypted(
    mut stored: ByteStream,
    key: &str,
    identities: &Arc<Identities>,
) -> Result<ByteStream, StoreError> {
    let mut head = BytesMut::new();
    while head.len() < HEADER_LIMIT_BYTES {
        let Some(bytes) = stored.next().await else { break };
        head.extend_from_slice(&bytes?);
        if has_header(&head) {
            break;
        }
    }
    if head.len() >= HEADER_LIMIT_BYTES && !has_header(&head) {
        return Err(damaged(key, "it does not begin as an age file does".to_owned()));
    }
    let whole = futures::stream::iter([Ok(head.freeze())]).chain(stored);
    let reader = whole.map_err(std::io::Error::other).into_async_read();
    let decryptor = Decryptor::new_async_buffered(reader).await;
    let refuse = |error: age::DecryptError| match error {
        age::DecryptError::Io(error) => explain(key, error),
        error => match problem_of_header(&error) {
            None => StoreError::IdentityWrong { key: key.to_owned() },
            Some(problem) => damaged(key, problem),
        },
    };
    let reader = decryptor.and_then(|decryptor| decryptor.decrypt_async(identities.each()));
    Ok(pieces(reader.map_err(refuse)?, key.to_owned()))
}

fn pieces(reader: impl AsyncRead + Send + Unpin + 'static, key: String) -> ByteStream {
    let state = Some((reader, key));
    Box::pin(futures::stream::unfold(state, |state| async move {
        let (mut reader, key) = state?;
        let mut piece = vec![0; PIECE_BYTES];
        match reader.read(&mut piece).await {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                Some((Ok(Bytes::from(piece)), Some((reader, key))))
            }
            Err(error) => Some((Err(explain(&key, error)), None)),
        }
    }))
}

/// What the store says of its own failure stays as it is.
fn explain(key: &str, error: std::io::Error) -> StoreError {
    match error.downcast::<StoreError>() {
        Ok(error) => error,
        Err(error) => damaged(key, problem_of(&error)),
    }
}

fn damaged(key: &str, problem: String) -> StoreError {
    StoreError::ObjectChanged {
        key: key.to_owned(),
        change: Change::Encryption(problem),
    }
}
