//! libpq's six modes against servers with and without TLS: ours and psql's own libpq must agree.

use std::process::Stdio;

use pgrescue::api::connection::TlsMode as Mode;
use pgrescue::api::reasons;
use pgrescue::plan::Refusal;
use pgrescue::plan::connection::{ConnectionPlan, TextSource};
use pgrescue::postgres::client_tools::ClientTools;
use pgrescue::postgres::connection::ConnectionSettings;
use pgrescue::postgres::program::Program;
use pgrescue::references::manifests::ManifestReferences;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use crate::parts::{Certificates, NEWEST_CLIENT, PASSWORD, PostgresServer, SUPERUSER, TlsMode, client_folder};
use crate::reach::{key, secrets_of};

const MODES: [Mode; 6] = [
    Mode::Disable,
    Mode::Allow,
    Mode::Prefer,
    Mode::Require,
    Mode::VerifyCa,
    Mode::VerifyFull,
];

/// What came of an attempt: whether the session is encrypted, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Plain,
    Encrypted,
    Refused,
}

/// Connects by pgrescue and by psql with the same settings; both must come to the same.
pub(super) async fn outcome(plan: &ConnectionPlan, references: &ManifestReferences) -> (Outcome, Option<Refusal>) {
    let settings = match ConnectionSettings::resolve(plan, references).await {
        Ok(settings) => settings,
        Err(error) => return (Outcome::Refused, Some(error.into())),
    };
    let (ours, refusal) = match settings.connect().await {
        Ok(session) => {
            let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            let encrypted: bool = session.query_one(sql, &[]).await.unwrap().get(0);
            assert_eq!(session.is_encrypted(), encrypted);
            (if encrypted { Outcome::Encrypted } else { Outcome::Plain }, None)
        }
        Err(error) => (Outcome::Refused, Some(Refusal::from(error))),
    };
    let theirs = by_psql(&settings).await;
    assert_eq!(ours, theirs, "{:?} {refusal:?}", plan.tls_mode);
    (ours, refusal)
}

async fn by_psql(settings: &ConnectionSettings) -> Outcome {
    let tools = ClientTools::find(Some(&client_folder(NEWEST_CLIENT))).unwrap();
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let mut running = Program::new(tools.newest_set().unwrap(), "psql")
        .connect_to(settings, "postgres")
        .args(["-X", "-A", "-t", "-w", "-c", sql])
        .pipe_stdout()
        .spawn()
        .unwrap();
    let mut text = String::new();
    running.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    let output = running.wait(&CancellationToken::new()).await.unwrap();
    match (output.is_success(), text.trim()) {
        (true, "t") => Outcome::Encrypted,
        (true, "f") => Outcome::Plain,
        _ => Outcome::Refused,
    }
}

/// By a name, for the certificate has it; by its address, for `localhost` may be another first.
pub(super) fn plan(mode: Mode, root: Option<&str>, client: bool) -> ConnectionPlan {
    ConnectionPlan {
        secret: Some("db".into()),
        tls_mode: Some(mode),
        root_certificate: root.map(|root| TextSource::Inline(root.into())),
        client_certificate: client.then(|| TextSource::Secret(key("tls", "tls.crt"))),
        client_key: client.then(|| key("tls", "tls.key")),
        ..ConnectionPlan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_six_modes_come_to_what_libpq_comes_to() {
    use Outcome::{Encrypted, Plain, Refused};
    let certificates = Certificates::of_this_process();
    let root = Some(certificates.root.as_str());
    let expected = [
        (TlsMode::Off, false, [Plain, Plain, Plain, Refused, Refused, Refused]),
        (
            TlsMode::Offered,
            false,
            [Plain, Plain, Encrypted, Encrypted, Encrypted, Encrypted],
        ),
        (
            TlsMode::Required,
            false,
            [Refused, Encrypted, Encrypted, Encrypted, Encrypted, Encrypted],
        ),
        (TlsMode::ClientCertificate, false, [Refused; 6]),
        (
            TlsMode::ClientCertificate,
            true,
            [Refused, Encrypted, Encrypted, Encrypted, Encrypted, Encrypted],
        ),
    ];
    for major in [12, 18] {
        for (tls, client, outcomes) in expected {
            let server = PostgresServer::with(major).tls(tls).start();
            let references = secrets_of(&server, "postgres");
            for (mode, expected) in MODES.into_iter().zip(outcomes) {
                let (found, refusal) = outcome(&plan(mode, root, client), &references).await;
                assert_eq!(found, expected, "{major} {tls:?} {mode:?} client {client}: {refusal:?}");
                if let Some(refusal) = refusal {
                    let reason = if tls == TlsMode::Off {
                        reasons::TLS_FAILED
                    } else {
                        reasons::AUTHENTICATION_FAILED
                    };
                    assert_eq!(refusal.reason, reason, "{tls:?} {mode:?}: {refusal:?}");
                    assert!(refusal.hint.is_some(), "{refusal:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_root_is_found_out_wherever_libpq_finds_it_out() {
    let server = PostgresServer::with(17).tls(TlsMode::Required).start();
    let references = secrets_of(&server, "postgres");
    let stranger = Some(Certificates::of_this_process().unrelated_root.as_str());
    for (mode, expected) in [
        (Mode::Prefer, Outcome::Refused),
        (Mode::Require, Outcome::Refused),
        (Mode::VerifyCa, Outcome::Refused),
        (Mode::VerifyFull, Outcome::Refused),
    ] {
        let (found, refusal) = outcome(&plan(mode, stranger, false), &references).await;
        assert_eq!(found, expected, "{mode:?}: {refusal:?}");
        let refusal = refusal.expect("a reason");
        assert_eq!(refusal.reason, reasons::TLS_FAILED, "{refusal:?}");
        assert!(
            refusal.message.contains("not signed by the root certificate"),
            "{refusal:?}"
        );
    }
    for mode in [Mode::VerifyCa, Mode::VerifyFull] {
        let (found, refusal) = outcome(&plan(mode, None, false), &references).await;
        assert_eq!(found, Outcome::Refused);
        assert!(
            refusal
                .expect("a reason")
                .hint
                .expect("a hint")
                .contains("rootCertificate")
        );
    }
    let (found, _) = outcome(&plan(Mode::Require, None, false), &references).await;
    assert_eq!(found, Outcome::Encrypted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_missing_or_encrypted_is_named() {
    let server = PostgresServer::shared(16);
    let references = secrets_of(server, "postgres");
    let mut half = plan(Mode::Prefer, None, true);
    half.client_key = None;
    let (_, refusal) = outcome(&half, &references).await;
    assert!(refusal.expect("a reason").message.contains("the key is missing"));

    let output = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:canary"])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let encrypted = String::from_utf8(output.stdout).unwrap();
    let certificates = Certificates::of_this_process();
    let references = crate::reach::secrets(&[
        ("db", &[("host", "127.0.0.1"), ("user", "u")]),
        ("tls", &[("tls.crt", &certificates.client), ("tls.key", &encrypted)]),
    ]);
    let (_, refusal) = outcome(&plan(Mode::Require, None, true), &references).await;
    assert!(refusal.expect("a reason").message.contains("passphrase"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_a_stranger_is_said_to_be_rejected() {
    for major in [12, 18] {
        let server = PostgresServer::with(major).tls(TlsMode::ClientCertificate).start();
        let folder = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=postgres"])
            .args(["-keyout", "key", "-out", "certificate"])
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let references = crate::reach::secrets(&[
            (
                "db",
                &[
                    ("host", "127.0.0.1"),
                    ("port", &server.port.to_string()),
                    ("user", SUPERUSER),
                    ("password", PASSWORD),
                    ("dbname", "postgres"),
                ],
            ),
            ("tls", &[("tls.crt", &read("certificate")), ("tls.key", &read("key"))]),
        ]);
        let (found, refusal) = outcome(&plan(Mode::Require, None, true), &references).await;
        let refusal = refusal.expect("a reason");
        assert_eq!(
            (found, refusal.reason.as_str()),
            (Outcome::Refused, reasons::TLS_FAILED),
            "{refusal:?}"
        );
        assert!(
            refusal.message.contains("does not accept the client certificate"),
            "{refusal:?}"
        );
    }
}
