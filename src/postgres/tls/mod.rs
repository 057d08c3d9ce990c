//! Transport encryption as libpq's six `sslmode`s mean it, over rustls.

mod certificate;
mod error;
mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, SupportedProtocolVersion};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::api::connection::TlsMode;
pub use error::TlsError;
use verify::{Checks, ServerVerifier};

/// What a connection wants of TLS. `Debug` shows no key.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// libpq's `sslmode`.
    pub mode: TlsMode,
    /// Authorities for the server's certificate.
    pub root: Option<RootCertificates>,
    /// What the client shows.
    pub client: Option<ClientIdentity>,
    /// TLS begins with the first byte (libpq's `sslnegotiation=direct`, servers from 17).
    pub direct: bool,
    /// The host name is sent in clear before the handshake (libpq's `sslsni`).
    pub no_server_name_indication: bool,
    /// Oldest protocol version (libpq's `ssl_min_protocol_version`).
    pub only_tls13: bool,
    /// Newest protocol version (libpq's `ssl_max_protocol_version`).
    pub only_tls12: bool,
}

/// Authorities for the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCertificates {
    /// PEM, one or more.
    Pem(String),
    /// The operating system's (libpq's `sslrootcert=system`).
    System,
}

/// A client certificate with its key, PEM both.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// The chain, the client's own first.
    pub certificate: SecretString,
    /// The key, not encrypted.
    pub key: SecretString,
}

impl TlsSettings {
    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
        static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match (self.only_tls12, self.only_tls13) {
            (true, false) => &TLS12,
            (false, true) => &TLS13,
            _ => rustls::ALL_VERSIONS,
        }
    }

    /// Finds at once what no attempt to connect can mend: unreadable certificates, a missing root.
    pub(super) fn check(&self) -> Result<(), TlsError> {
        if self.mode == TlsMode::Disable {
            return Ok(());
        }
        if self.direct && matches!(self.mode, TlsMode::Allow | TlsMode::Prefer) {
            return Err(TlsError::DirectNeedsRequire { mode: self.mode });
        }
        self.client_config().map(|_| ())
    }

    /// The configuration of rustls. Where root certificates are given, the chain is checked in every mode, as libpq
    /// does (libpq, `initialize_SSL`); without them, `allow`, `prefer` and `require` take every certificate.
    pub(super) fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let checks = match (self.mode, &self.root) {
            (TlsMode::VerifyFull, _) => Checks::ChainAndName,
            (TlsMode::VerifyCa, _) | (TlsMode::Allow | TlsMode::Prefer | TlsMode::Require, Some(_)) => Checks::Chain,
            (TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer | TlsMode::Require, _) => Checks::Nothing,
        };
        let roots = match &self.root {
            _ if checks == Checks::Nothing => Vec::new(),
            Some(root) => root.certificates()?,
            None => return Err(TlsError::RootMissing { mode: self.mode }),
        };
        let verifier = ServerVerifier::new(&provider, checks, roots)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions())
            .map_err(TlsError::Configuration)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.client {
            Some(identity) => {
                let (chain, key) = identity.parsed()?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(TlsError::ClientCertificateUnusable)?
            }
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = !self.no_server_name_indication;
        if self.direct {
            // The protocol's name for direct TLS (manual, "Message Flow", "SSL Session Encryption").
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(config)
    }
}

impl RootCertificates {
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        match self {
            Self::Pem(pem) => {
                certificates(pem, "root certificate").and_then(|found| non_empty(found, "root certificate"))
            }
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                non_empty(found.certs, "operating system's root certificate")
            }
        }
    }

    /// As PEM, for the client programs.
    pub(super) fn to_pem(&self) -> Result<String, TlsError> {
        match self {
            Self::Pem(pem) => Ok(pem.clone()),
            Self::System => Ok(self
                .certificates()?
                .iter()
                .map(|root| certificate::to_pem(root))
                .collect()),
        }
    }
}

impl ClientIdentity {
    fn parsed(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = certificates(self.certificate.expose_secret(), "client certificate")?;
        let chain = non_empty(chain, "client certificate")?;
        let key = self.key.expose_secret();
        if key.contains("BEGIN ENCRYPTED PRIVATE KEY") || key.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(TlsError::KeyEncrypted);
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::KeyUnreadable)?;
        Ok((chain, key))
    }
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::PemUnreadable { what })
}

fn non_empty(
    certificates: Vec<CertificateDer<'static>>,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    if certificates.is_empty() {
        return Err(TlsError::PemUnreadable { what });
    }
    Ok(certificates)
}

/// Begins TLS, and remembers whether it came to that: a server without TLS answers `N` before.
#[derive(Clone)]
pub(super) struct Connector {
    inner: MakeRustlsConnect,
    begun: Arc<AtomicBool>,
}

impl Connector {
    pub(super) fn new(config: ClientConfig) -> Self {
        Self {
            inner: MakeRustlsConnect::new(config),
            begun: Arc::default(),
        }
    }

    /// Whether the server had agreed to TLS.
    pub(super) fn begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }
}

type Inner<S> = <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect;

/// One attempt of a [`Connector`].
pub(super) struct Attempt<S>
where
    MakeRustlsConnect: MakeTlsConnect<S>,
{
    inner: Inner<S>,
    begun: Arc<AtomicBool>,
}

impl<S> MakeTlsConnect<S> for Connector
where
    MakeRustlsConnect: MakeTlsConnect<S>,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type TlsConnect = Attempt<S>;
    type Error = <MakeRustlsConnect as MakeTlsConnect<S>>::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        Ok(Attempt {
            inner: self.inner.make_tls_connect(domain)?,
            begun: Arc::clone(&self.begun),
        })
    }
}

impl<S> tokio_postgres::tls::TlsConnect<S> for Attempt<S>
where
    MakeRustlsConnect: MakeTlsConnect<S>,
{
    type Stream = <Inner<S> as tokio_postgres::tls::TlsConnect<S>>::Stream;
    type Error = <Inner<S> as tokio_postgres::tls::TlsConnect<S>>::Error;
    type Future = <Inner<S> as tokio_postgres::tls::TlsConnect<S>>::Future;

    fn connect(self, stream: S) -> Self::Future {
        self.begun.store(true, Ordering::Relaxed);
        self.inner.connect(stream)
    }
}
