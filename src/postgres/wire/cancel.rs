//! Cancelling a statement, over a connection of its own (manual, "Canceling Requests in Progress").

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Asks the server to cancel the session's statement. The server tells nobody whether there was one.
    pub async fn cancel(&self) -> Result<(), ConnectionError> {
        let unreachable = |source| ConnectionError::Unreachable {
            endpoint: self.endpoint.clone(),
            source,
        };
        let sent = match &self.route {
            Route::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                self.token.cancel_query_raw(stream, WithoutTls).await
            }
            Route::Tls {
                address,
                host,
                connector,
            } => {
                let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector.clone(), host);
                let tls = tls.map_err(|error| unreachable(io::Error::other(error)))?;
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                self.token.cancel_query_raw(stream, tls).await
            }
            Route::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                self.token.cancel_query_raw(stream, WithoutTls).await
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
