//! How a server is reached: settings resolved from a plan and its Secrets, and sessions made with them.

mod connect;
mod conninfo;
mod error;
mod parameters;
mod resolve;
mod session;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::tls::TlsSettings;
use crate::api::connection::TlsMode;
pub(super) use connect::{Attempt, Login};
pub use conninfo::ConninfoError;
pub(crate) use conninfo::{parse as parse_conninfo, render as render_conninfo};
pub use error::ConnectionError;
use parameters::OtherParameters;
pub(super) use parameters::SessionKind;
pub use session::Session;

/// Key of a Secret that names the hosts to which its password may be sent, besides those of its own `host` and `uri`:
/// comma-separated, `*` for any.
pub const ALLOW_HOST_KEY: &str = "pgrescue.dev_allow-host";

/// Database that is connected to where none is named; `template1` takes its place where it does not exist, as in
/// pg_dumpall.
pub const MAINTENANCE_DATABASE: &str = "postgres";

/// Limit for one attempt to reach one address, where `connect_timeout` does not say otherwise. libpq would wait without
/// end.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// PostgreSQL's port.
const DEFAULT_PORT: u16 = 5432;

/// One host of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Name, address, or folder of a Unix socket.
    host: String,
    /// Address that spares the look-up of the name.
    address: Option<IpAddr>,
    port: u16,
}

impl Endpoint {
    fn is_socket(&self) -> bool {
        self.host.starts_with(['/', '@']) && self.address.is_none()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_socket() {
            write!(formatter, "{}/.s.PGSQL.{}", self.host, self.port)
        } else if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// Everything that a connection needs, secrets included. `Debug` shows none.
#[derive(Clone)]
pub struct ConnectionSettings {
    endpoints: Vec<Endpoint>,
    user: String,
    password: Option<SecretString>,
    database: Option<String>,
    tls: TlsSettings,
    /// `None`: without end.
    connect_timeout: Option<Duration>,
    others: OtherParameters,
}

impl fmt::Debug for ConnectionSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnectionSettings")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("tls", &self.tls.mode)
            .finish_non_exhaustive()
    }
}

/// What the client programs are given.
pub(super) struct ForPrograms {
    /// Parameters of the connection string, no secret among them.
    pub(super) parameters: BTreeMap<String, String>,
    /// Parameters whose value is the path of a file: keyword, name for the reader, content. `passfile` goes by
    /// environment.
    pub(super) files: Vec<(&'static str, &'static str, String)>,
}

impl ConnectionSettings {
    /// The same server, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self {
            database: Some(database.to_owned()),
            ..self.clone()
        }
    }

    /// The same, with sessions that `pg_stat_activity` shows under this name, in place of one that the user gave.
    #[must_use]
    pub fn with_application_name(&self, name: &str) -> Self {
        let mut settings = self.clone();
        settings.others.set_application_name(name);
        settings
    }

    /// The same, with a setting that every session and client program begins with. It wins over the settings of the
    /// role and the database, and over the user's own `options`.
    #[must_use]
    pub fn with_setting(&self, name: &str, value: &str) -> Self {
        let mut settings = self.clone();
        settings.others.add_option(name, value);
        settings
    }

    /// The database that the connection names; `None` where it names none or `*`.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// Host, address or socket folder; a list is joined by commas, as libpq writes it.
    #[must_use]
    pub fn host(&self) -> String {
        let hosts: Vec<&str> = self.endpoints.iter().map(|endpoint| endpoint.host.as_str()).collect();
        hosts.join(",")
    }

    /// Port of the first host.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.endpoints.first().map_or(DEFAULT_PORT, |endpoint| endpoint.port)
    }

    /// Role that logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// `host:port` of every host, for messages.
    #[must_use]
    pub fn location(&self) -> String {
        let all: Vec<String> = self.endpoints.iter().map(Endpoint::to_string).collect();
        all.join(",")
    }

    /// Every secret in it, for masking.
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretString> {
        self.password.clone().into_iter().collect()
    }

    /// The same settings with one host, so that whoever connects next comes to the same instance.
    fn pinned_to(&self, endpoint: Endpoint) -> Self {
        Self {
            endpoints: vec![endpoint],
            ..self.clone()
        }
    }

    pub(super) fn for_programs(&self) -> Result<ForPrograms, ConnectionError> {
        let joined = |part: fn(&Endpoint) -> String| {
            let parts: Vec<String> = self.endpoints.iter().map(part).collect();
            parts.join(",")
        };
        let mut parameters = self.others.for_programs();
        parameters.insert("host".into(), joined(|endpoint| endpoint.host.clone()));
        parameters.insert("port".into(), joined(|endpoint| endpoint.port.to_string()));
        if self.endpoints.iter().any(|endpoint| endpoint.address.is_some()) {
            let addresses = joined(|endpoint| endpoint.address.map(|address| address.to_string()).unwrap_or_default());
            parameters.insert("hostaddr".into(), addresses);
        }
        parameters.insert("user".into(), self.user.clone());
        let database = self.database.as_deref().unwrap_or(MAINTENANCE_DATABASE);
        parameters.insert("dbname".into(), database.to_owned());
        let seconds = self.connect_timeout.map_or(0, |timeout| timeout.as_secs());
        parameters.insert("connect_timeout".into(), seconds.to_string());
        let mut files = Vec::new();
        self.tls_for_programs(&mut parameters, &mut files)?;
        // Without a password an empty file keeps libpq from looking into the home folder.
        let password = self
            .password
            .as_ref()
            .map(|password| password_file(password.expose_secret()));
        files.push(("passfile", "passfile", password.unwrap_or_default()));
        Ok(ForPrograms { parameters, files })
    }

    fn tls_for_programs(
        &self,
        parameters: &mut BTreeMap<String, String>,
        files: &mut Vec<(&'static str, &'static str, String)>,
    ) -> Result<(), ConnectionError> {
        let TlsSettings {
            mode,
            root,
            client,
            direct,
            no_server_name_indication,
            only_tls13,
            only_tls12,
        } = &self.tls;
        let mut set = |name: &str, value: &str| parameters.insert(name.to_owned(), value.to_owned());
        set("sslmode", mode_name(*mode));
        if *direct {
            set("sslnegotiation", "direct");
        }
        if *no_server_name_indication {
            set("sslsni", "0");
        }
        if *only_tls13 {
            set("ssl_min_protocol_version", "TLSv1.3");
        }
        if *only_tls12 {
            set("ssl_max_protocol_version", "TLSv1.2");
        }
        // libpq looks into the home folder for what is not named; nothing is at these paths.
        set("sslcrl", "/dev/null/none");
        match root {
            Some(root) => files.push(("sslrootcert", "root.crt", root.to_pem()?)),
            None => {
                set("sslrootcert", "/dev/null/none");
            }
        }
        match client {
            Some(identity) => {
                files.push(("sslcert", "client.crt", identity.certificate.expose_secret().to_owned()));
                files.push(("sslkey", "client.key", identity.key.expose_secret().to_owned()));
            }
            None => {
                set("sslcert", "/dev/null/none");
            }
        }
        Ok(())
    }
}

/// The one line of a password file that fits every host, port, database and user (manual, "The Password File").
fn password_file(password: &str) -> String {
    format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:"))
}

fn mode_name(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disable => "disable",
        TlsMode::Allow => "allow",
        TlsMode::Prefer => "prefer",
        TlsMode::Require => "require",
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
    }
}
