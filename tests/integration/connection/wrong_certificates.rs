//! Certificates as people make them: without subjectAltName, of X.509 version 1, self-signed, expired, for another host.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use pgrescue::api::connection::TlsMode as Mode;
use pgrescue::api::reasons;

use super::tls::{Outcome, outcome, plan};
use crate::parts::{PASSWORD, PostgresServer, SUPERUSER, TlsMode};
use crate::reach::secrets;

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A server certificate for `name`, signed by a new root. Gives root, certificate and key.
fn signed(name: &str, extensions: Option<&str>, days: &str) -> (String, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let subject = format!("/CN={name}");
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(
        path,
        &[
            &[
                "req", "-x509", "-subj", "/CN=root", "-keyout", "root.key", "-out", "root.crt", "-days", "30",
            ],
            &new_key[..],
        ]
        .concat(),
    );
    openssl(
        path,
        &[
            &["req", "-subj", &subject, "-keyout", "server.key", "-out", "server.csr"],
            &new_key[..],
        ]
        .concat(),
    );
    let mut sign = vec![
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "root.crt",
        "-CAkey",
        "root.key",
        "-CAcreateserial",
        "-days",
        days,
        "-out",
        "server.crt",
    ];
    if let Some(extensions) = extensions {
        fs::write(path.join("extensions"), extensions).unwrap();
        sign.extend(["-extfile", "extensions"]);
    }
    openssl(path, &sign);
    let read = |name: &str| fs::read_to_string(path.join(name)).unwrap();
    (read("root.crt"), read("server.crt"), read("server.key"))
}

/// Gives the server another certificate.
fn present(server: &PostgresServer, certificate: &str, key: &str) {
    fs::write(server.data_folder().join("server.crt"), certificate).unwrap();
    fs::write(server.data_folder().join("server.key"), key).unwrap();
    // The postmaster reads it a moment later: `expect` tries until it did.
    server.signal("HUP");
}

/// Modes with root certificate against a server with this certificate, by the host's name `host`.
async fn expect(server: &PostgresServer, host: &str, root: &str, expected: [(Mode, Result<(), &str>); 2]) {
    let (port, mut last) = (server.port.to_string(), String::new());
    let keys = [
        ("host", host),
        ("hostaddr", "127.0.0.1"),
        ("port", port.as_str()),
        ("user", SUPERUSER),
        ("password", PASSWORD),
    ];
    // hostaddr is no key of a Secret: it goes by the uri.
    let uri = format!("postgresql:///postgres?hostaddr=127.0.0.1&host={host}");
    let keys: Vec<_> = keys
        .iter()
        .filter(|(key, _)| *key != "hostaddr" && *key != "host")
        .copied()
        .chain([("uri", uri.as_str())])
        .collect();
    let references = secrets(&[("db", &keys)]);
    for (mode, wanted) in expected {
        let mut fits = false;
        for _ in 0..100 {
            let (found, refusal) = outcome(&plan(mode, Some(root), false), &references).await;
            last = format!("{found:?} {refusal:?}");
            fits = match wanted {
                Ok(()) => found == Outcome::Encrypted,
                Err(sentence) => refusal
                    .is_some_and(|refusal| refusal.reason == reasons::TLS_FAILED && refusal.message.contains(sentence)),
            };
            if fits {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(fits, "{mode:?} {host}: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_as_people_make_them_are_judged_as_libpq_judges_them() {
    let server = PostgresServer::with(16).tls(TlsMode::Required).start();
    let verify_ca = |result| (Mode::VerifyCa, result);
    let verify_full = |result| (Mode::VerifyFull, result);

    // The manual's own recipe: version 1, common name alone.
    let (root, certificate, key) = signed("db.shop.svc", None, "30");
    present(&server, &certificate, &key);
    expect(&server, "db.shop.svc", &root, [verify_ca(Ok(())), verify_full(Ok(()))]).await;
    let mismatch = "is for db.shop.svc, not for the host \"other.svc\"";
    expect(
        &server,
        "other.svc",
        &root,
        [verify_ca(Ok(())), verify_full(Err(mismatch))],
    )
    .await;
    let (stranger, _, _) = signed("x", None, "30");
    let untrusted = "not signed by the root certificate";
    expect(
        &server,
        "db.shop.svc",
        &stranger,
        [verify_ca(Err(untrusted)), verify_full(Err(untrusted))],
    )
    .await;

    // Version 3 without subjectAltName, with a wildcard.
    let (root, certificate, key) = signed("*.shop.svc", Some("basicConstraints=CA:FALSE"), "30");
    present(&server, &certificate, &key);
    expect(&server, "db.shop.svc", &root, [verify_ca(Ok(())), verify_full(Ok(()))]).await;
    expect(
        &server,
        "a.db.shop.svc",
        &root,
        [verify_ca(Ok(())), verify_full(Err("*.shop.svc"))],
    )
    .await;

    // With a subjectAltName the common name does not count.
    let (root, certificate, key) = signed("db.shop.svc", Some("subjectAltName=DNS:other.svc,IP:127.0.0.1"), "30");
    present(&server, &certificate, &key);
    expect(
        &server,
        "db.shop.svc",
        &root,
        [verify_ca(Ok(())), verify_full(Err("other.svc, 127.0.0.1"))],
    )
    .await;
    expect(&server, "127.0.0.1", &root, [verify_ca(Ok(())), verify_full(Ok(()))]).await;

    // Expired.
    let (root, certificate, key) = signed("db.shop.svc", None, "-1");
    present(&server, &certificate, &key);
    let expired = "expired";
    expect(
        &server,
        "db.shop.svc",
        &root,
        [verify_ca(Err(expired)), verify_full(Err(expired))],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_its_own_root() {
    let server = PostgresServer::with(14).tls(TlsMode::Required).start();
    let folder = tempfile::tempdir().unwrap();
    openssl(
        folder.path(),
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=db.shop.svc",
            "-keyout",
            "server.key",
            "-out",
            "server.crt",
        ],
    );
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    present(&server, &read("server.crt"), &read("server.key"));
    let root = read("server.crt");
    expect(
        &server,
        "db.shop.svc",
        &root,
        [(Mode::VerifyCa, Ok(())), (Mode::VerifyFull, Ok(()))],
    )
    .await;
}
