//! Verification of the server's certificate, as far as the mode asks for it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, RootCertStore, SignatureScheme};
use webpki::RawPublicKeyEntity;

use super::certificate::Parsed;
use super::error::TlsError;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checks {
    /// Nothing: encryption without knowing to whom.
    Nothing,
    /// That the certificate comes from the authorities.
    Chain,
    /// That, and that it is for the host.
    ChainAndName,
}

/// Checks the server's certificate as OpenSSL does for libpq.
pub(super) struct ServerVerifier {
    checks: Checks,
    roots: Vec<CertificateDer<'static>>,
    anchors: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl std::fmt::Debug for ServerVerifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { checks, .. } = self;
        formatter
            .debug_struct("ServerVerifier")
            .field("checks", checks)
            .finish_non_exhaustive()
    }
}

impl ServerVerifier {
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        checks: Checks,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let mut anchors = RootCertStore::empty();
        let (usable, _) = anchors.add_parsable_certificates(roots.iter().cloned());
        if checks != Checks::Nothing && usable == 0 {
            return Err(TlsError::PemUnreadable {
                what: "root certificate",
            });
        }
        Ok(Self {
            checks,
            roots,
            anchors,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn check_chain(
        &self,
        server: &Parsed,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let in_its_time = || {
            let in_time = server.is_in_its_time(now);
            in_time.then_some(()).ok_or(CertificateError::Expired.into())
        };
        // A self-signed certificate that is its own root: webpki refuses it because it has the CA flag.
        if self.roots.iter().any(|root| root == der) {
            return in_its_time();
        }
        if server.is_version_1() {
            // No extensions, so no path can be built over it: only a root's own signature counts.
            let mut roots = self.roots.iter().filter_map(|root| Parsed::from_der(root));
            if roots.any(|root| server.is_signed_by(&root, &self.algorithms)) {
                return in_its_time();
            }
            return Err(CertificateError::UnknownIssuer.into());
        }
        let parsed = ParsedCertificate::try_from(der)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.anchors, intermediates, now, self.algorithms.all)
    }

    fn check_name(server: &Parsed, der: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
        let host = name.to_str();
        let fits = if server.has_alternative_name_for(&host) {
            verify_server_name(&ParsedCertificate::try_from(der)?, name).is_ok()
        } else {
            server.common_name_fits(&host)
        };
        if fits {
            return Ok(());
        }
        let mismatch = CertificateError::NotValidForNameContext {
            expected: name.to_owned(),
            presented: server.names(),
        };
        Err(mismatch.into())
    }
}

fn parsed(der: &CertificateDer<'_>) -> Result<Parsed, Error> {
    Parsed::from_der(der).ok_or_else(|| CertificateError::BadEncoding.into())
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.checks != Checks::Nothing {
            let server = parsed(end_entity)?;
            self.check_chain(&server, end_entity, intermediates, now)?;
            if self.checks == Checks::ChainAndName {
                Self::check_name(&server, end_entity, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    // The signatures are checked with the public key alone, because webpki does not read certificates of version 1.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = parsed(cert)?.public_key().ok_or(CertificateError::BadEncoding)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
        let candidates = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == dss.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let valid = candidates
            .1
            .iter()
            .any(|algorithm| key.verify_signature(*algorithm, message, dss.signature()).is_ok());
        if valid {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = parsed(cert)?.public_key().ok_or(CertificateError::BadEncoding)?;
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
