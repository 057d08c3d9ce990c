//! `COPY … FROM STDIN`.

use bytes::BytesMut;
use postgres_protocol::message::backend::COPY_DATA_TAG;
use postgres_protocol::message::frontend;

use super::error::WireError;
use super::{HEADER, Row, WireSession};

/// Bytes of the stream in one CopyData message: the server has room for the whole of a message.
const PIECE: usize = 64 * 1024 - HEADER;

/// A running `COPY … FROM STDIN`. Dropped before its end, it leaves the session of no use, and nothing of it stays.
#[derive(Debug)]
pub struct CopyIn<'a> {
    session: &'a mut WireSession,
    rows_before: Vec<Row>,
    /// Bytes that are too few for a message.
    kept: Vec<u8>,
    /// A call failed, or its future was dropped.
    failed: bool,
}

impl<'a> CopyIn<'a> {
    pub(super) const fn new(session: &'a mut WireSession, rows_before: Vec<Row>) -> Self {
        Self {
            session,
            rows_before,
            kept: Vec::new(),
            failed: false,
        }
    }

    /// Rows of the statements that stood before the COPY in its query.
    #[must_use]
    pub fn rows_before(&self) -> &[Row] {
        &self.rows_before
    }

    /// Sends bytes of the stream, cut wherever the caller likes. An error of the server may show here, or in `finish`.
    /// What fills a message is not copied, without TLS.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(WireError::Unfinished);
        }
        let mut left = bytes;
        while self.kept.len() + left.len() >= PIECE {
            let (now, later) = left.split_at(PIECE - self.kept.len());
            self.send_kept_and(now).await?;
            self.check().await?;
            left = later;
        }
        self.kept.extend_from_slice(left);
        self.failed = false;
        Ok(())
    }

    /// Ends the COPY and returns the rows that the server says it took.
    pub async fn finish(mut self) -> Result<u64, WireError> {
        if self.failed {
            return Err(WireError::Unfinished);
        }
        if !self.kept.is_empty() {
            self.send_kept_and(&[]).await?;
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

    /// Sends what was kept and `bytes` as one message.
    async fn send_kept_and(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let length = size_of::<u32>() + self.kept.len() + bytes.len(); // without the tag
        let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let header: [u8; HEADER] = [COPY_DATA_TAG, a, b, c, d];
        self.session.send_parts(&[&header, &self.kept, bytes]).await?;
        self.kept.clear();
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
