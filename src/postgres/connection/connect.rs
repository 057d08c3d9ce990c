//! Making a session: host by host, address by address, with and without TLS as the mode says (manual, "Specifying
//! Multiple Hosts" and "SSL Mode Descriptions").

use std::error::Error as _;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::IpAddr;

use secrecy::ExposeSecret as _;
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;

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
        self.open().await
    }

    /// Opens a session of either sort.
    pub(in crate::postgres) async fn open<L: Login>(&self) -> Result<L, ConnectionError> {
        match &self.database {
            Some(database) => self.open_in(database).await,
            None => match self.open_in(MAINTENANCE_DATABASE).await {
                Err(ConnectionError::Login { source, .. })
                    if source.code() == Some(&SqlState::INVALID_CATALOG_NAME) =>
                {
                    self.open_in(LAST_RESORT_DATABASE).await
                }
                result => result,
            },
        }
    }

    async fn open_in<L: Login>(&self, database: &str) -> Result<L, ConnectionError> {
        match self.others.wanted {
            SessionKind::PreferStandby => match self.search(database, SessionKind::Standby).await {
                Err(error) if error.tries_next_host() => self.search(database, SessionKind::Any).await,
                result => result,
            },
            wanted => self.search(database, wanted).await,
        }
    }

    async fn search<L: Login>(&self, database: &str, wanted: SessionKind) -> Result<L, ConnectionError> {
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

    async fn connect_to_host<L: Login>(
        &self,
        endpoint: &Endpoint,
        database: &str,
        wanted: SessionKind,
    ) -> Result<L, ConnectionError> {
        let mut last = None;
        for address in addresses(endpoint).await? {
            let attempt = Attempt {
                settings: self,
                endpoint,
                address,
                database,
            };
            let result = match attempt.within_time::<L>().await {
                Ok(mut session) => {
                    if wanted == SessionKind::Any || session.is_of_kind(wanted).await? {
                        return Ok(session);
                    }
                    ConnectionError::NoServerOfKind {
                        hosts: self.location(),
                        wanted: wanted.name().to_owned(),
                    }
                }
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

/// A session that a login ends in: over tokio-postgres, or over the protocol itself.
pub(in crate::postgres) trait Login: Sized {
    /// Logs in without TLS, by TCP or a Unix socket.
    async fn plain(attempt: &Attempt<'_>) -> Result<Self, ConnectionError>;

    /// Logs in with TLS.
    async fn encrypted(attempt: &Attempt<'_>, connector: Connector) -> Result<Self, ConnectionError>;

    /// Whether the server is of the wanted kind.
    async fn is_of_kind(&mut self, wanted: SessionKind) -> Result<bool, ConnectionError>;
}

/// One attempt to reach one address.
pub(in crate::postgres) struct Attempt<'a> {
    settings: &'a ConnectionSettings,
    endpoint: &'a Endpoint,
    address: Option<IpAddr>,
    database: &'a str,
}

impl Attempt<'_> {
    async fn within_time<L: Login>(&self) -> Result<L, ConnectionError> {
        let Some(limit) = self.settings.connect_timeout else {
            return self.by_mode().await;
        };
        let late = |_| ConnectionError::Timeout {
            endpoint: self.endpoint.to_string(),
            seconds: limit.as_secs(),
        };
        tokio::time::timeout(limit, self.by_mode()).await.map_err(late)?
    }

    async fn by_mode<L: Login>(&self) -> Result<L, ConnectionError> {
        // TLS is not spoken over Unix sockets, whatever the mode, as in libpq.
        if self.address.is_none() {
            return L::plain(self).await;
        }
        match self.settings.tls.mode {
            TlsMode::Disable => L::plain(self).await,
            TlsMode::Allow => match L::plain(self).await {
                Err(refused) if is_refused_login(&refused) => match self.encrypted::<L>().await {
                    Err(ConnectionError::Handshake {
                        source: TlsError::NotOffered { .. },
                        ..
                    }) => Err(refused),
                    result => result,
                },
                result => result,
            },
            TlsMode::Prefer => match self.encrypted::<L>().await {
                Err(refused) if is_refused_login(&refused) => L::plain(self).await.map_err(|_| refused),
                Err(ConnectionError::Handshake {
                    source: TlsError::NotOffered { .. },
                    ..
                }) => L::plain(self).await,
                Err(failed @ ConnectionError::Handshake { .. }) => match L::plain(self).await {
                    // The server lets nobody in without TLS: what failed with it is the reason to show.
                    Err(refused) if is_refused_login(&refused) => Err(failed),
                    result => result,
                },
                result => result,
            },
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => self.encrypted::<L>().await,
        }
    }

    async fn encrypted<L: Login>(&self) -> Result<L, ConnectionError> {
        L::encrypted(self, Connector::new(self.settings.tls.client_config()?)).await
    }

    pub(in crate::postgres) fn encrypted_config(&self) -> Config {
        let mut config = self.config();
        config.ssl_mode(SslMode::Require);
        if self.settings.tls.direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        config
    }

    pub(in crate::postgres) fn config(&self) -> Config {
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

    /// Settings that lead to the same server again.
    pub(super) fn pinned_settings(&self) -> ConnectionSettings {
        let endpoint = Endpoint {
            address: self.address,
            ..self.endpoint.clone()
        };
        self.settings.pinned_to(endpoint).with_database(self.database)
    }

    /// The host as it was given, whose name the server's certificate must have.
    pub(in crate::postgres) fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Host and port, for messages.
    pub(in crate::postgres) fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }

    pub(in crate::postgres) fn unreachable(&self, source: io::Error) -> ConnectionError {
        ConnectionError::Unreachable {
            endpoint: self.endpoint(),
            source,
        }
    }

    pub(in crate::postgres) fn error(
        &self,
        error: tokio_postgres::Error,
        connector: Option<&Connector>,
    ) -> ConnectionError {
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
