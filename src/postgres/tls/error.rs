//! Errors of TLS, told apart so that each can say what to do.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::api::connection::TlsMode;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::refusal::sentence;

/// TLS that cannot be set up or agreed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// The server answered that it has no TLS.
    #[error("the server has no TLS, and tls.mode is {}", mode_name(*.mode))]
    NotOffered {
        /// The mode.
        mode: TlsMode,
    },
    /// A verifying mode without root certificates.
    #[error("the TLS mode is {}, and no root certificate is given", mode_name(*.mode))]
    RootMissing {
        /// The mode.
        mode: TlsMode,
    },
    /// `sslnegotiation=direct` with a mode that may go on without TLS.
    #[error("the parameter sslnegotiation=direct needs tls.mode require, verify-ca or verify-full, not {}", mode_name(*.mode))]
    DirectNeedsRequire {
        /// The mode.
        mode: TlsMode,
    },
    /// The server's certificate is not signed by the root certificates.
    #[error("the server's certificate is not signed by the root certificate that was given")]
    NotTrusted,
    /// The server's certificate is out of its time.
    #[error("the server's certificate is expired or not valid yet")]
    OutOfTime,
    /// The server's certificate is for other names.
    #[error("the server's certificate is for {presented}, not for the host {host:?}")]
    NameMismatch {
        /// The host of the connection.
        host: String,
        /// Names in the certificate, for the reader.
        presented: String,
    },
    /// The server's certificate has a form that the TLS library does not take.
    #[error("the server's certificate cannot be checked: {detail}")]
    CertificateUnusable {
        /// Why.
        detail: String,
    },
    /// The server asks for a client certificate and got none.
    #[error("the server asks for a client certificate")]
    ClientCertificateRequired,
    /// The server does not take the client certificate.
    #[error("the server does not accept the client certificate ({alert})")]
    ClientCertificateRejected {
        /// The alert of TLS.
        alert: String,
    },
    /// Another failure of the handshake.
    #[error("the TLS handshake failed: {detail}")]
    Handshake {
        /// Why.
        detail: String,
    },
    /// PEM without a certificate, or broken.
    #[error("the {what} is not PEM with at least one certificate")]
    PemUnreadable {
        /// Which.
        what: &'static str,
    },
    /// The key is encrypted.
    #[error("the client key is encrypted with a passphrase, which pgrescue cannot ask for")]
    KeyEncrypted,
    /// The key is not PEM.
    #[error("the client key is not a private key in PEM")]
    KeyUnreadable,
    /// A certificate without key, or a key without certificate.
    #[error("a client certificate and its key are needed both; the {missing} is missing")]
    ClientIdentityIncomplete {
        /// Which.
        missing: &'static str,
    },
    /// Certificate and key do not fit, or cannot be used.
    #[error("the client certificate cannot be used with its key: {0}")]
    ClientCertificateUnusable(#[source] rustls::Error),
    /// rustls refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Configuration(#[source] rustls::Error),
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

impl TlsError {
    /// Finds the error of rustls below an error of a connection.
    pub(in crate::postgres) fn find(error: &(dyn StdError + 'static), host: &str, identity: bool) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<rustls::Error>() {
                return Some(Self::of_rustls(found, host, identity));
            }
            if let Some(found) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
                && let Some(found) = found.downcast_ref::<rustls::Error>()
            {
                return Some(Self::of_rustls(found, host, identity));
            }
            next = error.source();
        }
        None
    }

    fn of_rustls(error: &rustls::Error, host: &str, identity: bool) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error, host),
            rustls::Error::AlertReceived(alert) => Self::of_alert(*alert, identity),
            other => Self::Handshake {
                detail: other.to_string(),
            },
        }
    }

    fn of_certificate(error: &CertificateError, host: &str) -> Self {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::NotTrusted,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::OutOfTime,
            CertificateError::NotValidForNameContext { presented, .. } => Self::NameMismatch {
                host: host.to_owned(),
                presented: match presented.as_slice() {
                    [] => "no host at all".to_owned(),
                    names => names.join(", "),
                },
            },
            other => Self::CertificateUnusable {
                detail: other.to_string(),
            },
        }
    }

    fn of_alert(alert: AlertDescription, identity: bool) -> Self {
        match alert {
            AlertDescription::CertificateRequired => Self::ClientCertificateRequired,
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
                if identity =>
            {
                Self::ClientCertificateRejected {
                    alert: format!("{alert:?}"),
                }
            }
            // Servers before TLS 1.3 have no alert of its own for a missing certificate.
            AlertDescription::HandshakeFailure if !identity => Self::ClientCertificateRequired,
            other => Self::Handshake {
                detail: format!("the server ended it with the alert {other:?}"),
            },
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::NotOffered { .. } => "Turn TLS on at the server (ssl = on), or set tls.mode to prefer or disable.",
            Self::RootMissing { .. } => "Give tls.rootCertificate, from a Secret, a ConfigMap or inline.",
            Self::DirectNeedsRequire { .. } => "Set tls.mode to require or stricter, or leave sslnegotiation out.",
            Self::NotTrusted => {
                "Give the certificate of the authority that signed the server's as tls.rootCertificate; with intermediates, the server must send them."
            }
            Self::OutOfTime => "Renew the server's certificate, and check the clocks of both machines.",
            Self::NameMismatch { .. } => {
                "Connect by a name that the certificate has, make a certificate with this name (subjectAltName), or set tls.mode to verify-ca."
            }
            Self::CertificateUnusable { .. } => {
                "Make the server a certificate of X.509 version 3 with subjectAltName and without the CA flag, or set tls.mode to require without a root certificate."
            }
            Self::ClientCertificateRequired => "Give tls.clientCertificate and tls.clientKey.",
            Self::ClientCertificateRejected { .. } => {
                "Give a client certificate that an authority in the server's ssl_ca_file signed and that is in its time."
            }
            Self::Handshake { .. } => {
                "Look into the server's log for its side; check ssl_min_protocol_version and ssl_ciphers there (TLS 1.2 and 1.3 are spoken)."
            }
            Self::PemUnreadable { .. } => "Store it as PEM, with the lines -----BEGIN CERTIFICATE-----.",
            Self::KeyEncrypted => {
                "Store the key without passphrase (openssl pkey -in client.key -out plain.key) in the Secret."
            }
            Self::KeyUnreadable => "Store the key as PEM (PKCS#8, PKCS#1 or SEC1).",
            Self::ClientIdentityIncomplete { .. } => "Give tls.clientCertificate and tls.clientKey both, or neither.",
            Self::ClientCertificateUnusable(_) => "Check that the key belongs to the first certificate of the chain.",
            Self::Configuration(_) => "Check ssl_min_protocol_version and ssl_max_protocol_version.",
        }
    }
}

impl From<TlsError> for Refusal {
    fn from(error: TlsError) -> Self {
        Self::permanent(reasons::TLS_FAILED, sentence(&error.to_string())).hint(error.hint())
    }
}
