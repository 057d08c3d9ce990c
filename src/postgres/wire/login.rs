//! The login: tokio-postgres agrees on TLS and authenticates, as it does for [`Session`].
//!
//! [`Session`]: crate::postgres::connection::Session

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::UnixStream;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config};

use super::WireSession;
use super::cancel::{CancelToken, Route};
use super::channel::Channel;
use super::lend::{Lender, WithoutTls};
use super::socket::BulkSocket;
use crate::postgres::connection::{Attempt, ConnectionError, Login, SessionKind};
use crate::postgres::tls::Connector;

impl Login for WireSession {
    async fn plain(attempt: &Attempt<'_>) -> Result<Self, ConnectionError> {
        let mut config = attempt.config();
        // What tokio-postgres calls direct TLS begins with the first byte: the lender gets the connection before
        // anything was said on it.
        config
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
        let lender = Lender::new(WithoutTls);
        let failed = |error| attempt.error(error, None);
        if let Some(path) = socket(&config) {
            let stream = UnixStream::connect(&path)
                .await
                .map_err(|source| attempt.unreachable(source))?;
            let (client, _) = config.connect_raw(stream, lender.clone()).await.map_err(failed)?;
            return session(attempt, lender.take_back(), &client, Route::Socket(path));
        }
        let (stream, address) = connect(attempt, &config).await?;
        let (client, _) = config.connect_raw(stream, lender.clone()).await.map_err(failed)?;
        session(attempt, lender.take_back(), &client, Route::Tcp(address))
    }

    async fn encrypted(attempt: &Attempt<'_>, connector: Connector) -> Result<Self, ConnectionError> {
        let config = attempt.encrypted_config();
        let mut lender = Lender::new(connector.clone());
        let host = attempt.host();
        let tls = MakeTlsConnect::<BulkSocket>::make_tls_connect(&mut lender, host);
        let tls = tls.map_err(|error| attempt.unreachable(io::Error::other(error)))?;
        let (stream, address) = connect(attempt, &config).await?;
        let connected = config.connect_raw(stream, tls).await;
        let (client, _) = connected.map_err(|error| attempt.error(error, Some(&connector)))?;
        let route = Route::Tls {
            address,
            host: host.to_owned(),
            connector,
        };
        session(attempt, lender.take_back(), &client, route)
    }

    async fn is_of_kind(&mut self, wanted: SessionKind) -> Result<bool, ConnectionError> {
        let rows = self.query(SessionKind::QUESTION).await;
        let rows = rows.map_err(|error| ConnectionError::Unreachable {
            endpoint: self.cancel.endpoint.clone(),
            source: io::Error::other(error),
        })?;
        let is_true = |column: usize| {
            let value = rows.first().and_then(|row| row.get(column)?.as_deref());
            value == Some("t")
        };
        Ok(wanted.is(is_true(0), is_true(1)))
    }
}

fn session(
    attempt: &Attempt<'_>,
    channel: Option<Channel>,
    client: &Client,
    route: Route,
) -> Result<WireSession, ConnectionError> {
    let channel = channel.ok_or_else(|| attempt.unreachable(io::ErrorKind::NotConnected.into()))?;
    let cancel = CancelToken {
        endpoint: attempt.endpoint(),
        route,
        token: client.cancel_token(),
    };
    Ok(WireSession::new(channel, cancel))
}

/// Connects by TCP; with the address that the server listens on.
async fn connect(attempt: &Attempt<'_>, config: &Config) -> Result<(BulkSocket, SocketAddr), ConnectionError> {
    let address = config.get_hostaddrs().first().zip(config.get_ports().first());
    let (address, port) = address.ok_or_else(|| attempt.unreachable(io::ErrorKind::AddrNotAvailable.into()))?;
    let address = SocketAddr::new(*address, *port);
    let stream = BulkSocket::connect(address, config).await;
    Ok((stream.map_err(|source| attempt.unreachable(source))?, address))
}

/// The path of the Unix socket, where the server is reached by one (manual, "host").
fn socket(config: &Config) -> Option<PathBuf> {
    let (Some(Host::Unix(folder)), []) = (config.get_hosts().first(), config.get_hostaddrs()) else {
        return None;
    };
    let port = config.get_ports().first()?;
    Some(folder.join(format!(".s.PGSQL.{port}")))
}
