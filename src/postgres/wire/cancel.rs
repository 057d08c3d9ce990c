//! Cancelling a statement, over a connection of its own (manual, "Canceling Requests in Progress").

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::MakeTlsConnect;

use super::lend::WithoutTls;
use crate::postgres::connection::ConnectionError;
use crate::postgres::sqlstate;
use crate::postgres::tls::Connector;

/// Time that the cancelling of a dropped session's statement may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What cancels the statement of one session.
#[derive(Clone)]
pub struct CancelToken {
    /// For messages.
    pub(super) endpoint: String,
    pub(super) route: Route,
    pub(super) token: tokio_postgres::CancelToken,
}

/// How the session's server is reached.
#[derive(Clone)]
pub(super) enum Route {
    Tcp(SocketAddr),
    Tls {
        address: SocketAddr,
        host: String,
        connector: Connector,
    },
    Socket(PathBuf),
}

impl std::fmt::Debug for CancelToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CancelToken")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl CancelToken {
    /// Asks the server to cancel the session's statement, and waits until it has passed that on: a statement that begins
    /// after that is safe. The server tells nobody whether there was one.
    pub async fn cancel(&self) -> Result<(), ConnectionError> {
        let unreachable = |source| ConnectionError::Unreachable {
            endpoint: self.endpoint.clone(),
            source,
        };
        let sent = match &self.route {
            Route::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                self.token.cancel_query_raw(UntilClosed(stream), WithoutTls).await
            }
            Route::Tls {
                address,
                host,
                connector,
            } => {
                let tls = MakeTlsConnect::<UntilClosed<TcpStream>>::make_tls_connect(&mut connector.clone(), host);
                let tls = tls.map_err(|error| unreachable(io::Error::other(error)))?;
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                self.token.cancel_query_raw(UntilClosed(stream), tls).await
            }
            Route::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                self.token.cancel_query_raw(UntilClosed(stream), WithoutTls).await
            }
        };
        sent.map_err(|error| unreachable(io::Error::other(sqlstate::text(&error))))
    }

    pub(super) fn cancel_in_background(&self) {
        let token = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let cancelled = tokio::time::timeout(LIMIT, token.cancel()).await;
                if !matches!(cancelled, Ok(Ok(()))) {
                    tracing::debug!(
                        endpoint = token.endpoint,
                        "the statement of a session could not be cancelled"
                    );
                }
            });
        }
    }
}

/// A stream whose shutdown is that of the other side: the server closes the connection when it has sent its signals.
/// Whoever does not wait for that may see them end a later statement (`PQcancel` in `fe-cancel.c`).
struct UntilClosed<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for UntilClosed<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for UntilClosed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 64];
        loop {
            let mut unread = ReadBuf::new(&mut bytes);
            // A server that resets the connection has closed it too.
            let read = ready!(Pin::new(&mut self.0).poll_read(context, &mut unread));
            if read.is_err() || unread.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
