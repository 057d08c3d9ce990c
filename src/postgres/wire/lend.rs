//! Logging in by tokio-postgres, which knows how, and taking the connection back afterwards.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use postgres_protocol::message::backend::READY_FOR_QUERY_TAG;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use super::HEADER;
use super::channel::{Channel, Duplex};

/// What tokio-postgres takes for TLS: it makes the stream that it shall read and write, by `inner`, and keeps it.
#[derive(Clone)]
pub(super) struct Lender<C> {
    inner: C,
    loan: Arc<Mutex<Option<Channel>>>,
}

impl<C> Lender<C> {
    pub(super) fn new(inner: C) -> Self {
        Self {
            inner,
            loan: Arc::default(),
        }
    }

    /// The connection, after the login.
    pub(super) fn take_back(&self) -> Option<Channel> {
        self.loan.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<S, C: MakeTlsConnect<S>> MakeTlsConnect<S> for Lender<C>
where
    C::Stream: Duplex + 'static,
    <C::TlsConnect as TlsConnect<S>>::Future: Send + 'static,
    <C::TlsConnect as TlsConnect<S>>::Error: 'static,
{
    type Stream = Lent;
    type TlsConnect = Lender<C::TlsConnect>;
    type Error = C::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, C::Error> {
        Ok(Lender {
            inner: self.inner.make_tls_connect(domain)?,
            loan: Arc::clone(&self.loan),
        })
    }
}

impl<S, C: TlsConnect<S>> TlsConnect<S> for Lender<C>
where
    C::Stream: Duplex + 'static,
    C::Future: Send + 'static,
    C::Error: 'static,
{
    type Stream = Lent;
    type Error = C::Error;
    type Future = BoxFuture<'static, Result<Lent, C::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.inner.connect(stream);
        let loan = self.loan;
        Box::pin(async move {
            let stream = connecting.await?;
            let binding = stream.channel_binding();
            *loan.lock().unwrap_or_else(PoisonError::into_inner) = Some(Channel::new(stream));
            Ok(Lent {
                loan,
                binding: Mutex::new(Some(binding)),
                left: 0,
                is_last: false,
            })
        })
    }
}

/// A connection as it is. tokio-postgres hands out the stream below it to nobody but its maker of TLS.
#[derive(Clone, Copy)]
pub(super) struct WithoutTls;

/// The stream of [`WithoutTls`].
pub(super) struct Unencrypted<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> MakeTlsConnect<S> for WithoutTls {
    type Stream = Unencrypted<S>;
    type TlsConnect = Self;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _: &str) -> io::Result<Self> {
        Ok(Self)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnect<S> for WithoutTls {
    type Stream = Unencrypted<S>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Unencrypted<S>>>;

    fn connect(self, stream: S) -> Self::Future {
        std::future::ready(Ok(Unencrypted(stream)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Unencrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unencrypted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unencrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// The connection as tokio-postgres has it. It gives whole messages and nothing behind ReadyForQuery, so that no byte
/// is lost in a buffer of tokio-postgres.
pub(super) struct Lent {
    loan: Arc<Mutex<Option<Channel>>>,
    binding: Mutex<Option<ChannelBinding>>,
    /// Bytes of the message under way that were not given yet.
    left: usize,
    /// Whether that message is ReadyForQuery.
    is_last: bool,
}

impl Lent {
    fn with<T>(&self, act: impl FnOnce(&mut Channel) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.loan.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(channel) => act(channel),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl TlsStream for Lent {
    fn channel_binding(&self) -> ChannelBinding {
        let mut binding = self.binding.lock().unwrap_or_else(PoisonError::into_inner);
        binding.take().unwrap_or_else(ChannelBinding::none)
    }
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (mut left, mut is_last) = (this.left, this.is_last);
        let result = this.with(|channel| {
            if left == 0 && is_last {
                return Poll::Ready(Ok(()));
            }
            while left == 0 {
                if let Some(&[tag, a, b, c, d]) = channel.received().first_chunk::<HEADER>() {
                    let length = u32::from_be_bytes([a, b, c, d]);
                    // A length that cannot be is for tokio-postgres to refuse.
                    left = 1 + usize::try_from(length).unwrap_or_default().max(4);
                    is_last = tag == READY_FOR_QUERY_TAG;
                } else if let Err(error) = ready!(channel.poll_fill(context)) {
                    return end_of_stream(error);
                }
            }
            if channel.received().is_empty()
                && let Err(error) = ready!(channel.poll_fill(context))
            {
                return end_of_stream(error);
            }
            let bytes = left.min(channel.received().len()).min(into.remaining());
            into.put_slice(channel.received().get(..bytes).unwrap_or_default());
            channel.consume(bytes);
            left -= bytes;
            Poll::Ready(Ok(()))
        });
        (this.left, this.is_last) = (left, is_last);
        result
    }
}

/// The end is no error to a reader: it reads nothing. An error that rustls made of it stays one.
fn end_of_stream(error: io::Error) -> Poll<io::Result<()>> {
    let is_end = error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none();
    Poll::Ready(if is_end { Ok(()) } else { Err(error) })
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|channel| channel.stream().poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|channel| channel.stream().poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|channel| channel.stream().poll_shutdown(context))
    }
}
