//! Making a session: host by host, address by address, with and without TLS as the mode says (manual, "Specifying
//! Multiple Hosts" and "SSL Mode Descriptions").

use std::error::Error as _;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::IpAddr;

use secrecy::ExposeSecret as _;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::error::ConnectionError;
use super::parameters::SessionKind;
use super::session::Session;
use super::{ConnectionSettings, Endpoint, MAINTENANCE_DATABASE};
use crate::api::connection::TlsMode;
use crate::postgres::tls::{Connector, TlsError};

/// Where `MAINTENANCE_DATABASE` does not exist.
const LAST_RESORT_DATABASE: &str = "template1";

impl ConnectionSettings {
    /// Opens a session in the database that the settings name, else in the maintenance database.
    pub async fn connect(&self) -> Result<Session, ConnectionError> {
        match &self.database {
            Some(database) => self.connect_to(database).await,
            None => match self.connect_to(MAINTENANCE_DATABASE).await {
                Err(ConnectionError::Login { source, .. })
                    if source.code() == Some(&SqlState::INVALID_CATALOG_NAME) =>
                {
                    self.connect_to(LAST_RESORT_DATABASE).await
                }
                result => result,
            },
        }
    }

    async fn connect_to(&self, database: &str) -> Result<Session, ConnectionError> {
        match self.others.wanted {
            SessionKind::PreferStandby => match self.search(database, SessionKind::Standby).await {
                Err(error) if error.tries_next_host() => self.search(database, SessionKind::Any).await,
                result => result,
            },
            wanted => self.search(database, wanted).await,
        }
    }

    async fn search(&self, database: &str, wanted: SessionKind) -> Result<Session, ConnectionError> {
        let mut last = ConnectionError::NoServerOfKind {
            hosts: self.location(),
            wanted: wanted.name().to_owned(),
        };
        for endpoint in self.in_order() {
            match self.connect_to_host(endpoint, database, wanted).await {
                Ok(session) => return Ok(session),
                Err(error) if error.tries_next_host() => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn in_order(&self) -> Vec<&Endpoint> {
        let mut endpoints: Vec<&Endpoint> = self.endpoints.iter().collect();
        if self.others.random_order {
            endpoints.sort_by_cached_key(|_| RandomState::new().build_hasher().finish());
        }
        endpoints
    }

    async fn connect_to_host(
        &self,
        endpoint: &Endpoint,
        database: &str,
        wanted: SessionKind,
    ) -> Result<Session, ConnectionError> {
        let mut last = None;
        for address in addresses(endpoint).await? {
            let attempt = Attempt {
                settings: self,
                endpoint,
                address,
                database,
            };
            let result = match attempt.within_time().await {
                Ok(session) if session.is_of_kind(wanted).await? => return Ok(session),
                Ok(_) => ConnectionError::NoServerOfKind {
                    hosts: self.location(),
                    wanted: wanted.name().to_owned(),
                },
                Err(error) if error.tries_next_host() => error,
                Err(error) => return Err(error),
            };
            last = Some(result);
        }
        Err(last.unwrap_or_else(|| ConnectionError::HostUnknown {
            host: endpoint.host.clone(),
            source: io::Error::from(io::ErrorKind::NotFound),
        }))
    }
}

/// Addresses of a host; `None` stands for a Unix socket.
async fn addresses(endpoint: &Endpoint) -> Result<Vec<Option<IpAddr>>, ConnectionError> {
    if endpoint.is_socket() {
        return Ok(vec![None]);
    }
    if let Some(address) = endpoint.address {
        return Ok(vec![Some(address)]);
    }
    let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await;
    let found = found.map_err(|source| ConnectionError::HostUnknown {
        host: endpoint.host.clone(),
        source,
    })?;
    let mut addresses: Vec<Option<IpAddr>> = found.map(|address| Some(address.ip())).collect();
    addresses.dedup();
    Ok(addresses)
}

/// One attempt to reach one address.
struct Attempt<'a> {
    settings: &'a ConnectionSettings,
    endpoint: &'a Endpoint,
    address: Option<IpAddr>,
    database: &'a str,
}

impl Attempt<'_> {
    async fn within_time(&self) -> Result<Session, ConnectionError> {
        let Some(limit) = self.settings.connect_timeout else {
            return self.by_mode().await;
        };
        let late = |_| ConnectionError::Timeout {
            endpoint: self.endpoint.to_string(),
            seconds: limit.as_secs(),
        };
        tokio::time::timeout(limit, self.by_mode()).await.map_err(late)?
    }

    async fn by_mode(&self) -> Result<Session, ConnectionError> {
        // TLS is not spoken over Unix sockets, whatever the mode, as in libpq.
        if self.address.is_none() {
            return self.plain().await;
        }
        match self.settings.tls.mode {
            TlsMode::Disable => self.plain().await,
            TlsMode::Allow => match self.plain().await {
                Err(refused) if is_refused_login(&refused) => match self.encrypted().await {
                    Err(ConnectionError::Handshake {
                        source: TlsError::NotOffered { .. },
                        ..
                    }) => Err(refused),
                    result => result,
                },
                result => result,
            },
            TlsMode::Prefer => match self.encrypted().await {
                Err(refused) if is_refused_login(&refused) => self.plain().await.map_err(|_| refused),
                Err(ConnectionError::Handshake {
                    source: TlsError::NotOffered { .. },
                    ..
                }) => self.plain().await,
                Err(failed @ ConnectionError::Handshake { .. }) => match self.plain().await {
                    // The server lets nobody in without TLS: what failed with it is the reason to show.
                    Err(refused) if is_refused_login(&refused) => Err(failed),
                    result => result,
                },
                result => result,
            },
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => self.encrypted().await,
        }
    }

    async fn plain(&self) -> Result<Session, ConnectionError> {
        let mut config = self.config();
        config.ssl_mode(SslMode::Disable);
        match config.connect(NoTls).await {
            Ok((client, connection)) => Ok(self.session(client, connection, false)),
            Err(error) => Err(self.error(error, None)),
        }
    }

    async fn encrypted(&self) -> Result<Session, ConnectionError> {
        let connector = Connector::new(self.settings.tls.client_config()?);
        let mut config = self.config();
        config.ssl_mode(SslMode::Require);
        if self.settings.tls.direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        match config.connect(connector.clone()).await {
            Ok((client, connection)) => Ok(self.session(client, connection, true)),
            Err(error) => Err(self.error(error, Some(&connector))),
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .host(&self.endpoint.host)
            .port(self.endpoint.port)
            .user(&self.settings.user)
            .dbname(self.database);
        if let Some(address) = self.address {
            config.hostaddr(address);
        }
        if let Some(password) = &self.settings.password {
            config.password(password.expose_secret());
        }
        self.settings.others.apply(&mut config);
        config
    }

    fn session<S, T>(
        &self,
        client: tokio_postgres::Client,
        connection: tokio_postgres::Connection<S, T>,
        encrypted: bool,
    ) -> Session
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let endpoint = Endpoint {
            address: self.address,
            ..self.endpoint.clone()
        };
        let settings = self.settings.pinned_to(endpoint).with_database(self.database);
        Session::new(client, connection, settings, encrypted)
    }

    fn error(&self, error: tokio_postgres::Error, connector: Option<&Connector>) -> ConnectionError {
        let endpoint = self.endpoint.to_string();
        let identity = self.settings.tls.client.is_some();
        let login = |source| ConnectionError::Login {
            endpoint: self.endpoint.to_string(),
            user: self.settings.user.clone(),
            database: self.database.to_owned(),
            client_certificate: identity,
            source,
        };
        if error.as_db_error().is_some() {
            return login(error);
        }
        if let Some(source) = TlsError::find(&error, &self.endpoint.host, identity) {
            return ConnectionError::Handshake { endpoint, source };
        }
        let input_output = error
            .source()
            .is_some_and(<dyn std::error::Error + 'static>::is::<io::Error>);
        if input_output {
            let source = error
                .into_source()
                .and_then(|source| source.downcast::<io::Error>().ok());
            let source = source.map_or_else(|| io::Error::from(io::ErrorKind::Other), |source| *source);
            return match connector {
                Some(connector) if connector.begun() => ConnectionError::Handshake {
                    endpoint,
                    source: TlsError::Handshake {
                        detail: source.to_string(),
                    },
                },
                _ => ConnectionError::Unreachable { endpoint, source },
            };
        }
        match connector {
            Some(connector) if !connector.begun() && !error.is_closed() => ConnectionError::Handshake {
                endpoint,
                source: TlsError::NotOffered {
                    mode: self.settings.tls.mode,
                },
            },
            _ => login(error),
        }
    }
}

/// Class 28: `pg_hba.conf` or the password.
fn is_refused_login(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::Login { source, .. }
        if source.code().is_some_and(|code| code.code().starts_with("28")))
}
