//! `COPY … FROM STDIN`.

use bytes::BytesMut;
use postgres_protocol::message::backend::COPY_DATA_TAG;
use postgres_protocol::message::frontend;

use super::error::WireError;
use super::{HEADER, WireSession};

/// Bytes of one CopyData message that the server is sent, as it has room for the whole of a message.
const MESSAGE: usize = 64 * 1024;

/// A running `COPY … FROM STDIN`. Dropped before its end, it leaves the session of no use, and nothing of it stays.
#[derive(Debug)]
pub struct CopyIn<'a> {
    session: &'a mut WireSession,
    /// The message under way, with room for its header.
    message: Vec<u8>,
    /// A call failed, or its future was dropped.
    failed: bool,
}

impl<'a> CopyIn<'a> {
    pub(super) fn new(session: &'a mut WireSession) -> Self {
        let mut message = Vec::with_capacity(MESSAGE);
        message.extend_from_slice(&[COPY_DATA_TAG, 0, 0, 0, 0]);
        Self {
            session,
            message,
            failed: false,
        }
    }

    /// Sends bytes of the stream, cut wherever the caller likes. An error of the server may show here, or in `finish`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(WireError::Unfinished);
        }
        let mut left = bytes;
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(MESSAGE - self.message.len()));
            self.message.extend_from_slice(now);
            left = later;
            if self.message.len() == MESSAGE {
                self.send_message().await?;
                self.check().await?;
            }
        }
        self.failed = false;
        Ok(())
    }

    /// Ends the COPY and returns the rows that the server says it took.
    pub async fn finish(mut self) -> Result<u64, WireError> {
        if self.failed {
            return Err(WireError::Unfinished);
        }
        if self.message.len() > HEADER {
            self.send_message().await?;
        }
        let mut done = BytesMut::new();
        frontend::copy_done(&mut done);
        self.session.send(&done).await?;
        self.session.rows_of_copy().await
    }

    /// Ends the COPY with CopyFail: nothing of it stays. The session can be used again; its transaction is aborted.
    pub async fn fail(self, why: &str) -> Result<(), WireError> {
        // An error of the server has ended the COPY before.
        if self.session.is_idle() {
            return Ok(());
        }
        if self.failed {
            return Err(WireError::Unfinished);
        }
        self.session.send_copy_fail(why).await?;
        match self.session.until_ready(|_| Ok(())).await {
            Err(WireError::Server(_)) if self.session.is_idle() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(WireError::violation("the server took a COPY that was to fail")),
        }
    }

    async fn send_message(&mut self) -> Result<(), WireError> {
        let length = u32::try_from(self.message.len() - 1).unwrap_or(u32::MAX);
        if let Some(field) = self.message.get_mut(1..HEADER) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        self.session.send(&self.message).await?;
        self.message.truncate(HEADER);
        Ok(())
    }

    /// Finds out early that the server has refused what came. It drops what still comes (postgres.c,
    /// `PostgresMain`: CopyData outside of a COPY).
    async fn check(&mut self) -> Result<(), WireError> {
        if self.session.has_answer().await? {
            self.session.until_ready(|_| Ok(())).await?;
            return Err(WireError::violation("the server ended a COPY that was not complete"));
        }
        Ok(())
    }
}
