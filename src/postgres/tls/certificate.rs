//! What libpq reads in a server's certificate and webpki does not: the common name, and certificates of X.509
//! version 1, which `openssl x509 -req` makes where it is given no extensions.

use std::net::IpAddr;

use base64::Engine as _;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;
use x509_cert::Certificate;
use x509_cert::Version;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// `commonName` (RFC 5280, appendix A.1).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A certificate, taken apart.
pub(super) struct Parsed {
    certificate: Certificate,
    alternative_names: Vec<GeneralName>,
}

impl Parsed {
    pub(super) fn from_der(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let names = certificate.tbs_certificate.get::<SubjectAltName>().ok()?;
        Some(Self {
            certificate,
            alternative_names: names.map(|(_, names)| names.0).unwrap_or_default(),
        })
    }

    pub(super) fn is_version_1(&self) -> bool {
        self.certificate.tbs_certificate.version == Version::V1
    }

    pub(super) fn is_in_its_time(&self, now: UnixTime) -> bool {
        let validity = &self.certificate.tbs_certificate.validity;
        let now = now.as_secs();
        let from = validity.not_before.to_unix_duration().as_secs();
        let to = validity.not_after.to_unix_duration().as_secs();
        (from..=to).contains(&now)
    }

    /// The certificate's public key, as RFC 7250 sends it.
    pub(super) fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'static>> {
        let key = &self.certificate.tbs_certificate.subject_public_key_info;
        key.to_der().ok().map(SubjectPublicKeyInfoDer::from)
    }

    /// Whether `issuer` has signed this certificate directly.
    pub(super) fn is_signed_by(&self, issuer: &Self, algorithms: &WebPkiSupportedAlgorithms) -> bool {
        self.certificate.tbs_certificate.issuer == issuer.certificate.tbs_certificate.subject
            && self.signature_fits(issuer, algorithms).unwrap_or(false)
    }

    fn signature_fits(&self, issuer: &Self, algorithms: &WebPkiSupportedAlgorithms) -> Option<bool> {
        let key = issuer.public_key()?;
        let key = RawPublicKeyEntity::try_from(&key).ok()?;
        let signed = self.certificate.tbs_certificate.to_der().ok()?;
        let signature = self.certificate.signature.as_bytes()?;
        let identifier = Any::from_der(&self.certificate.signature_algorithm.to_der().ok()?).ok()?;
        let fits = algorithms
            .all
            .iter()
            .filter(|algorithm| algorithm.signature_alg_id().as_ref() == identifier.value())
            .any(|algorithm| key.verify_signature(*algorithm, &signed, signature).is_ok());
        Some(fits)
    }

    /// Whether a subjectAltName of the host's kind is there. libpq looks at the common name only without (libpq,
    /// `pgtls_verify_peer_name_matches_certificate_guts`; RFC 6125, section 6.4.4).
    pub(super) fn has_alternative_name_for(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().is_ok();
        self.alternative_names.iter().any(|name| match name {
            GeneralName::DnsName(_) => !address,
            GeneralName::IpAddress(_) => address,
            _ => false,
        })
    }

    /// Whether the common name is the host, or a wildcard for its first label.
    pub(super) fn common_name_fits(&self, host: &str) -> bool {
        self.common_name().is_some_and(|name| name_fits(&name, host))
    }

    /// Every name that the certificate gives to a host, for the reader.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .alternative_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
                GeneralName::IpAddress(octets) => address(octets.as_bytes()),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            names.extend(self.common_name());
        }
        names
    }

    fn common_name(&self) -> Option<String> {
        let subject = &self.certificate.tbs_certificate.subject;
        let attribute = subject
            .0
            .iter()
            .flat_map(|relative| relative.0.iter())
            .rfind(|attribute| attribute.oid == COMMON_NAME)?;
        let text = std::str::from_utf8(attribute.value.value()).ok()?;
        (!text.contains('\0')).then(|| text.to_owned())
    }
}

fn address(octets: &[u8]) -> Option<String> {
    let address = match octets.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
        _ => return None,
    };
    Some(address.to_string())
}

/// libpq, `wildcard_certificate_match`: `*` stands for one whole first label.
fn name_fits(name: &str, host: &str) -> bool {
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(parent) = name.strip_prefix("*.") else {
        return false;
    };
    host.parse::<IpAddr>().is_err()
        && host.split_once('.').is_some_and(|(label, host_parent)| {
            !label.is_empty() && parent.contains('.') && host_parent.eq_ignore_ascii_case(parent)
        })
}

/// A certificate as PEM.
pub(super) fn to_pem(der: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::name_fits;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(name_fits("DB.example.com", "db.Example.com"));
        assert!(name_fits("*.example.com", "db.example.com"));
        for (name, host) in [
            ("*.example.com", "a.db.example.com"),
            ("*.example.com", "example.com"),
            ("*.com", "example.com"),
            ("*.0.0.1", "127.0.0.1"),
            ("example.com", "db.example.com"),
        ] {
            assert!(!name_fits(name, host), "{name} {host}");
        }
    }
}
