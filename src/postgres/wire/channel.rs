//! The bytes of a connection: what has come and is not read yet, and the way out.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use postgres_protocol::message::backend::{NOTICE_RESPONSE_TAG, NOTIFICATION_RESPONSE_TAG, PARAMETER_STATUS_TAG};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::HEADER;

/// A whole read of the socket: rows of COPY come in bulk.
const CAPACITY: usize = 256 * 1024;

/// A socket, with or without TLS.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for S {}

/// A connection whose stream goes through a buffer.
pub(super) struct Channel {
    stream: Box<dyn Duplex>,
    buffer: Box<[u8]>,
    /// What has come and is not read yet lies in `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Bytes to come that nobody wants.
    unwanted: usize,
}

impl Channel {
    pub(super) fn new(stream: impl Duplex + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: vec![0; CAPACITY].into_boxed_slice(),
            start: 0,
            end: 0,
            unwanted: 0,
        }
    }

    /// What has come and is not read yet.
    pub(super) fn received(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.start = self.end.min(self.start + bytes);
    }

    /// Drops this many bytes, those to come among them.
    fn discard(&mut self, bytes: usize) {
        self.unwanted = bytes.saturating_sub(self.received().len());
        self.consume(bytes);
    }

    /// Drops one message that the server tells unasked, where one comes next.
    pub(super) fn skip_notice(&mut self) -> bool {
        let Some(&[tag, a, b, c, d]) = self.received().first_chunk() else {
            return false;
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or_default();
        let is_notice = [NOTICE_RESPONSE_TAG, PARAMETER_STATUS_TAG, NOTIFICATION_RESPONSE_TAG].contains(&tag);
        // A length that cannot be is found where messages are read.
        if !is_notice || length < size_of::<u32>() {
            return false;
        }
        self.discard(length + 1);
        true
    }

    /// Drops what the server tells unasked, and says whether nothing else has come.
    fn drop_notices(&mut self) -> bool {
        while self.skip_notice() {}
        self.received().len() < HEADER
    }

    /// Receives what comes; only where some of it is unwanted, it may be nothing.
    pub(super) async fn fill(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_fill(context)).await
    }

    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Only what is left of a message moves, a few bytes of a row's at most.
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let mut free = ReadBuf::new(self.buffer.get_mut(self.end..).unwrap_or_default());
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut free))?;
        let received = free.filled().len();
        if received == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.end += received;
        let unwanted = self.unwanted.min(self.end);
        self.start = unwanted;
        self.unwanted -= unwanted;
        Poll::Ready(Ok(()))
    }

    /// Whether an answer of the server has come, without waiting for one.
    pub(super) fn has_answer(&mut self) -> io::Result<bool> {
        let mut context = Context::from_waker(Waker::noop());
        while self.drop_notices() {
            match self.poll_fill(&mut context) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    pub(super) fn stream(&mut self) -> Pin<&mut dyn Duplex> {
        Pin::new(&mut *self.stream)
    }

    /// Sends all of the parts, one behind the other. They are copied only where the stream takes one at a time, as one
    /// with TLS does. What the server sends is read meanwhile: it may not read on before that.
    pub(super) async fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let one_at_a_time = parts.len() > 1 && !self.stream.is_write_vectored();
        let whole = one_at_a_time.then(|| parts.concat());
        let mut left: Vec<_> = match &whole {
            Some(whole) => vec![IoSlice::new(whole)],
            None => parts.iter().map(|part| IoSlice::new(part)).collect(),
        };
        let mut left = left.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0); // those without bytes go
        poll_fn(|context| {
            loop {
                let sent = if left.is_empty() {
                    self.stream().poll_flush(context).map_ok(|()| None)
                } else {
                    self.stream().poll_write_vectored(context, left).map_ok(Some)
                };
                match sent {
                    Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(Some(0))) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(Some(sent))) => IoSlice::advance_slices(&mut left, sent),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.drop_notices();
                        if self.received().len() == CAPACITY {
                            return Poll::Pending;
                        }
                        ready!(self.poll_fill(context))?;
                    }
                }
            }
        })
        .await
    }

    /// Sends what can be sent at once.
    pub(super) fn try_send(&mut self, bytes: &[u8]) {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(_)) = self.stream().poll_write(&mut context, bytes) {
            let _ = self.stream().poll_flush(&mut context);
        }
    }
}
