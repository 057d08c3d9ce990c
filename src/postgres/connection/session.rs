//! A session on one server.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ConnectionSettings;
use super::connect::{Attempt, Login};
use super::error::ConnectionError;
use super::parameters::SessionKind;
use crate::plan::Refusal;
use crate::postgres::sqlstate;
use crate::postgres::tls::Connector;

/// Time that a dropped session has to say goodbye before its connection is cut, so that a half-read COPY ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// A session on one server. It ends when it is dropped.
pub struct Session {
    client: Client,
    settings: ConnectionSettings,
    server_version: String,
    encrypted: bool,
    closed: Arc<OnceLock<tokio_postgres::Error>>,
    _end: DropGuard,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Session")
            .field("settings", &self.settings)
            .field("server_version", &self.server_version)
            .field("encrypted", &self.encrypted)
            .finish_non_exhaustive()
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Session {
    fn new<S, T>(client: Client, connection: Connection<S, T>, settings: ConnectionSettings, encrypted: bool) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let server_version = connection.parameter("server_version").unwrap_or_default().to_owned();
        let closed = Arc::new(OnceLock::new());
        let end = CancellationToken::new();
        tokio::spawn(run(connection, Arc::clone(&closed), end.clone()));
        Self {
            client,
            settings,
            server_version,
            encrypted,
            closed,
            _end: end.drop_guard(),
        }
    }

    /// Settings that lead to the same database of the same instance: of a list of hosts, and of the addresses of a
    /// name, they hold the one that answered. Exported snapshots need it.
    #[must_use]
    pub const fn settings(&self) -> &ConnectionSettings {
        &self.settings
    }

    /// Version as the server tells it, such as `16.4 (Debian 16.4-1)`.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// Major version of the server; 0 where it tells none.
    #[must_use]
    pub fn server_major(&self) -> u32 {
        let digits = self
            .server_version
            .split(|letter: char| !letter.is_ascii_digit())
            .next();
        digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether the session's role is a superuser.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub async fn is_superuser(&self) -> Result<bool, tokio_postgres::Error> {
        let sql = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
        self.client.query_one(sql, &[]).await?.try_get(0)
    }

    /// Like [`sqlstate::refusal`]; where the session was cut, with what the server said as it ended it.
    #[must_use]
    pub fn refusal(&self, error: &tokio_postgres::Error, doing: &str, object: Option<&str>) -> Refusal {
        let error = if error.is_closed() {
            self.closed.get().unwrap_or(error)
        } else {
            error
        };
        sqlstate::refusal(error, doing, object)
    }
}

impl Login for Session {
    async fn plain(attempt: &Attempt<'_>) -> Result<Self, ConnectionError> {
        let mut config = attempt.config();
        config.ssl_mode(SslMode::Disable);
        match config.connect(NoTls).await {
            Ok((client, connection)) => Ok(Self::new(client, connection, attempt.pinned_settings(), false)),
            Err(error) => Err(attempt.error(error, None)),
        }
    }

    async fn encrypted(attempt: &Attempt<'_>, connector: Connector) -> Result<Self, ConnectionError> {
        match attempt.encrypted_config().connect(connector.clone()).await {
            Ok((client, connection)) => Ok(Self::new(client, connection, attempt.pinned_settings(), true)),
            Err(error) => Err(attempt.error(error, Some(&connector))),
        }
    }

    async fn is_of_kind(&mut self, wanted: SessionKind) -> Result<bool, ConnectionError> {
        let row = self.client.query_one(SessionKind::QUESTION, &[]).await;
        let row = row.map_err(|source| ConnectionError::Login {
            endpoint: self.settings.location(),
            user: self.settings.user().to_owned(),
            database: self.settings.database().unwrap_or_default().to_owned(),
            client_certificate: self.settings.tls.client.is_some(),
            source,
        })?;
        Ok(wanted.is(row.get(0), row.get(1)))
    }
}

async fn run<S, T>(
    mut connection: Connection<S, T>,
    closed: Arc<OnceLock<tokio_postgres::Error>>,
    end: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut farewell = std::pin::pin!(
        async {
            end.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        }
        .fuse()
    );
    loop {
        let message = tokio::select! {
            message = poll_fn(|context| connection.poll_message(context)) => message,
            () = &mut farewell => return,
        };
        match message {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!(
                    severity = notice.severity(),
                    sqlstate = notice.code().code(),
                    "notice of the server"
                );
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let _ = closed.set(error);
                return;
            }
            None => return,
        }
    }
}
