//! What can go wrong with a connection, in the words of the person who has to mend it.

use super::conninfo::ConninfoError;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::refusal::sentence;
use crate::postgres::sqlstate;
use crate::postgres::tls::TlsError;
use crate::references::ReferenceError;

/// A connection that cannot be described or made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// A Secret, a ConfigMap or a key is missing or unreadable.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The `uri` of the Secret cannot be read.
    #[error("the key \"uri\" of the Secret {secret:?} cannot be read: {source}")]
    Uri {
        /// Name of the Secret.
        secret: String,
        /// Why.
        #[source]
        source: ConninfoError,
    },
    /// A parameter has a value that libpq does not know.
    #[error("the connection parameter {name} has the value {value:?}; {expected}")]
    Value {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// A parameter that pgrescue does not take.
    #[error("the connection parameter {name:?} cannot be used: {why}")]
    Parameter {
        /// Its name.
        name: String,
        /// Why, and what to do in its place.
        why: &'static str,
    },
    /// The Secret's password would go to a host that the Secret does not name.
    #[error(
        "the host {host:?} stands in the manifest, and the Secret {secret:?} does not allow its password to be sent there"
    )]
    HostNotAllowed {
        /// The host.
        host: String,
        /// The Secret whose password it is.
        secret: String,
    },
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file that a `uri` names cannot be read.
    #[error("the file {path:?} of the connection parameter {name} cannot be read: {source}")]
    File {
        /// Its path.
        path: String,
        /// The parameter.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A password with a line break, which no password file can hold.
    #[error("the password in the Secret {secret:?} contains a line break")]
    PasswordLineBreak {
        /// The Secret.
        secret: String,
    },
    /// The name of the operating system's user, libpq's default, is unknown.
    #[error("the connection names no user")]
    NoUser,
    /// The host's name has no address.
    #[error("the host name {host:?} cannot be resolved: {source}")]
    HostUnknown {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server did not answer in time.
    #[error("the server {endpoint} did not answer within {seconds} s")]
    Timeout {
        /// Host and port.
        endpoint: String,
        /// The limit.
        seconds: u64,
    },
    /// No TCP connection, or no socket.
    #[error("the server {endpoint} cannot be reached: {source}")]
    Unreachable {
        /// Host and port.
        endpoint: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server was reached and the session could not begin.
    #[error("connecting to {endpoint} failed: {}", sqlstate::text(.source))]
    Login {
        /// Host and port.
        endpoint: String,
        /// User that logs in.
        user: String,
        /// Database asked for.
        database: String,
        /// Whether a client certificate was at hand.
        client_certificate: bool,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// TLS failed between here and the server.
    #[error("connecting to {endpoint} failed: {source}")]
    Handshake {
        /// Host and port.
        endpoint: String,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// Every server of the list was reached, and none is of the wanted kind.
    #[error("no server of {hosts} is what target_session_attrs={wanted} asks for")]
    NoServerOfKind {
        /// Hosts tried.
        hosts: String,
        /// The parameter's value.
        wanted: String,
    },
}

impl ConnectionError {
    /// Whether another server of the list may answer. A failed authentication ends the search, as in libpq (manual,
    /// "Specifying Multiple Hosts"); a server that takes no connection now does not.
    pub(super) fn tries_next_host(&self) -> bool {
        match self {
            Self::Login { source, .. } => source.as_db_error().is_none_or(|error| {
                let code = error.code().code();
                code.starts_with("57P") || code.starts_with("53")
            }),
            Self::HostUnknown { .. }
            | Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::Handshake { .. }
            | Self::NoServerOfKind { .. } => true,
            Self::Reference(_)
            | Self::Uri { .. }
            | Self::Value { .. }
            | Self::Parameter { .. }
            | Self::HostNotAllowed { .. }
            | Self::Tls(_)
            | Self::File { .. }
            | Self::PasswordLineBreak { .. }
            | Self::NoUser => false,
        }
    }
}

impl From<ConnectionError> for Refusal {
    fn from(error: ConnectionError) -> Self {
        let message = sentence(&error.to_string());
        match error {
            ConnectionError::Reference(source) => source.into(),
            ConnectionError::Uri { secret, .. } => Self::permanent(reasons::INVALID_SPEC, message)
                .object(format!("Secret/{secret}"))
                .hint("Correct the key, or give host, port, user, password and dbname as keys of their own."),
            ConnectionError::Value { name, .. } => Self::permanent(reasons::INVALID_SPEC, message).object(name),
            ConnectionError::Parameter { name, .. } => Self::permanent(reasons::INVALID_SPEC, message).object(name),
            ConnectionError::HostNotAllowed { host, secret } => Self::permanent(reasons::INVALID_SPEC, message)
                .object(format!("Secret/{secret}"))
                .hint(format!(
                    "Add the key {:?} with the value {host:?} to the Secret, or leave the host to the Secret; where the Secret names no host, passwordSecretRef with its key works too.",
                    super::ALLOW_HOST_KEY
                )),
            ConnectionError::Tls(source) => source.into(),
            ConnectionError::File { .. } => Self::permanent(reasons::INVALID_SPEC, message)
                .hint("Give certificates and keys under tls, from a Secret, a ConfigMap or inline."),
            ConnectionError::PasswordLineBreak { secret } => Self::permanent(reasons::INVALID_SPEC, message)
                .object(format!("Secret/{secret}"))
                .hint("Store the password without the line break at its end (printf '%s' in place of echo)."),
            ConnectionError::NoUser => Self::permanent(reasons::INVALID_SPEC, message)
                .hint("Name the user in the connection or in its Secret (key user or username)."),
            ConnectionError::HostUnknown { host, .. } => Self::temporary(reasons::HOST_UNKNOWN, message)
                .object(host)
                .hint("Check the host name; a Service of another namespace is written <service>.<namespace>.svc."),
            ConnectionError::Timeout { endpoint, .. } => Self::temporary(reasons::CONNECTION_REFUSED, message)
                .object(endpoint)
                .hint("Check host and port, and that network policies and firewalls let the connection through."),
            ConnectionError::Unreachable { endpoint, .. } => Self::temporary(reasons::CONNECTION_REFUSED, message)
                .object(endpoint)
                .hint("Check host and port, that the server runs, and that it listens on this address."),
            ConnectionError::Login {
                endpoint,
                user,
                database,
                client_certificate,
                source,
            } => login_refusal(&endpoint, &user, &database, client_certificate, &source),
            ConnectionError::Handshake { endpoint, source } => {
                let mut refusal = Self::from(source);
                refusal.message = message;
                refusal.object(endpoint)
            }
            ConnectionError::NoServerOfKind { hosts, .. } => Self::temporary(reasons::CONNECTION_REFUSED, message)
                .object(hosts)
                .hint("Wait for a server to take the role, or change target_session_attrs."),
        }
    }
}

fn login_refusal(
    endpoint: &str,
    user: &str,
    database: &str,
    client_certificate: bool,
    source: &tokio_postgres::Error,
) -> Refusal {
    let doing = format!("connecting to {endpoint} as {user:?}, database {database:?}");
    let refusal = sqlstate::refusal(source, &doing, None);
    match source.code().map(tokio_postgres::error::SqlState::code) {
        Some("28000") if !client_certificate => refusal.object(user).hint(
            "Check the server's pg_hba.conf: it must let this user and this database in from here, with or without TLS as \
             tls.mode says. Where it asks for a client certificate, give tls.clientCertificate and tls.clientKey.",
        ),
        Some("28000") => refusal
            .object(user)
            .hint("Check the server's pg_hba.conf, and that the client certificate's common name is the user's name."),
        Some("28P01") => refusal
            .object(user)
            .hint("Check the user and the password in the Secret. The next attempt reads the Secret again."),
        Some("3D000") => refusal
            .object(database)
            .hint("Check the database's name; upper and lower case differ."),
        // The client itself gave up: no password, or a method of authentication that it does not know.
        None if refusal.reason == reasons::INTERNAL => Refusal::permanent(reasons::AUTHENTICATION_FAILED, refusal.message)
            .object(user)
            .hint("Give a password, or let the server's pg_hba.conf ask for scram-sha-256, md5 or cert."),
        _ => refusal.object(endpoint),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io;

    use super::*;
    use crate::api::connection::TlsMode;

    fn endpoint() -> String {
        "db.shop.svc:5432".into()
    }

    fn errors() -> Vec<ConnectionError> {
        let file = || io::Error::from(io::ErrorKind::NotFound);
        let handshake = |source| ConnectionError::Handshake {
            endpoint: endpoint(),
            source,
        };
        vec![
            ConnectionError::Uri {
                secret: "db".into(),
                source: ConninfoError::PercentEncoding,
            },
            ConnectionError::Value {
                name: "sslmode".into(),
                value: "sometimes".into(),
                expected: "it may be disable, allow".into(),
            },
            ConnectionError::Parameter {
                name: "service".into(),
                why: "it names a file; give the connection in the manifest and its Secret",
            },
            ConnectionError::HostNotAllowed {
                host: "evil.example".into(),
                secret: "db".into(),
            },
            ConnectionError::File {
                path: "/no/root.crt".into(),
                name: "sslrootcert".into(),
                source: file(),
            },
            ConnectionError::PasswordLineBreak { secret: "db".into() },
            ConnectionError::NoUser,
            ConnectionError::HostUnknown {
                host: "db.shop.svc".into(),
                source: file(),
            },
            ConnectionError::Timeout {
                endpoint: endpoint(),
                seconds: 30,
            },
            ConnectionError::Unreachable {
                endpoint: endpoint(),
                source: io::Error::from(io::ErrorKind::ConnectionRefused),
            },
            ConnectionError::NoServerOfKind {
                hosts: endpoint(),
                wanted: "standby".into(),
            },
            handshake(TlsError::NotOffered {
                mode: TlsMode::VerifyFull,
            }),
            handshake(TlsError::NotTrusted),
            handshake(TlsError::OutOfTime),
            handshake(TlsError::NameMismatch {
                host: "db.shop.svc".into(),
                presented: "db.other.svc".into(),
            }),
            handshake(TlsError::CertificateUnusable {
                detail: "certificate used as an end entity".into(),
            }),
            handshake(TlsError::ClientCertificateRequired),
            handshake(TlsError::ClientCertificateRejected {
                alert: "UnknownCA".into(),
            }),
            handshake(TlsError::Handshake {
                detail: "connection reset".into(),
            }),
            TlsError::RootMissing {
                mode: TlsMode::VerifyCa,
            }
            .into(),
            TlsError::DirectNeedsRequire { mode: TlsMode::Prefer }.into(),
            TlsError::PemUnreadable {
                what: "root certificate",
            }
            .into(),
            TlsError::KeyEncrypted.into(),
            TlsError::KeyUnreadable.into(),
            TlsError::ClientIdentityIncomplete { missing: "key" }.into(),
        ]
    }

    #[test]
    fn every_failure_says_what_happened_to_which_object_and_what_to_do() {
        let mut text = String::new();
        for refusal in errors().into_iter().map(Refusal::from) {
            let _ = writeln!(
                text,
                "{} ({:?}, {})\n  {}\n  {}",
                refusal.reason,
                refusal.class,
                refusal.object.as_deref().unwrap_or("-"),
                refusal.message,
                refusal.hint.as_deref().unwrap_or("-"),
            );
        }
        insta::assert_snapshot!(text);
    }
}
