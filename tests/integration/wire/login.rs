//! The login: what succeeds and what fails does so as with an ordinary session, in the same words.

use pgrescue::api::connection::TlsMode as Mode;
use pgrescue::plan::Refusal;
use pgrescue::plan::connection::{ConnectionPlan, TextSource};
use pgrescue::postgres::connection::ConnectionSettings;
use pgrescue::postgres::wire::WireSession;
use pgrescue::references::manifests::ManifestReferences;

use crate::parts::{Certificates, MAJORS, PASSWORD, PostgresServer, SUPERUSER, TlsMode};
use crate::reach::{key, plan, secrets, secrets_of, settings, wire_session};

/// Connects in both ways, which must come to the same. `Ok` says whether TLS is spoken.
async fn by_both(plan: &ConnectionPlan, references: &ManifestReferences) -> Result<bool, Refusal> {
    let settings = ConnectionSettings::resolve(plan, references)
        .await
        .expect("the plan is sound");
    let ordinary = settings.connect().await.map_err(Refusal::from);
    let ordinary = ordinary.map(|session| session.is_encrypted());
    let ours = match WireSession::connect(&settings).await {
        Ok(mut session) => {
            let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            Ok(session.query(sql).await.unwrap() == [[Some("t".to_owned())]])
        }
        Err(error) => Err(Refusal::from(error)),
    };
    assert_eq!(ours, ordinary, "{plan:?}");
    ours
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_lets_it_in_with_and_without_tls() {
    for major in MAJORS {
        let mut plain = wire_session(PostgresServer::shared(major), "postgres").await;
        let rows = plain
            .query("SELECT current_user, current_database(), NULL; SELECT 'ä'")
            .await;
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            rows.unwrap(),
            [vec![text(SUPERUSER), text("postgres"), None], vec![text("ä")]],
            "{major}"
        );
        let server = PostgresServer::with(major).tls(TlsMode::Required).start();
        let references = secrets_of(&server, "postgres");
        assert_eq!(by_both(&plan(&server), &references).await, Ok(true), "{major}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_modes_of_tls_come_to_what_an_ordinary_session_comes_to() {
    let certificates = Certificates::of_this_process();
    let roots = [None, Some(&certificates.root), Some(&certificates.unrelated_root)];
    for major in [12, 18] {
        for tls in [
            TlsMode::Off,
            TlsMode::Offered,
            TlsMode::Required,
            TlsMode::ClientCertificate,
        ] {
            let server = PostgresServer::with(major).tls(tls).start();
            let references = secrets_of(&server, "postgres");
            let mut encrypted = 0;
            for (mode, root, client) in [
                (Mode::Disable, 0, false),
                (Mode::Allow, 0, false),
                (Mode::Prefer, 0, false),
                (Mode::Prefer, 2, false),
                (Mode::Require, 0, false),
                (Mode::Require, 0, true),
                (Mode::VerifyCa, 1, true),
                (Mode::VerifyFull, 1, true),
                (Mode::VerifyFull, 2, true),
            ] {
                let plan = ConnectionPlan {
                    secret: Some("db".into()),
                    tls_mode: Some(mode),
                    root_certificate: roots[root].map(|root| TextSource::Inline(root.clone())),
                    client_certificate: client.then(|| TextSource::Secret(key("tls", "tls.crt"))),
                    client_key: client.then(|| key("tls", "tls.key")),
                    ..ConnectionPlan::default()
                };
                encrypted += u32::from(by_both(&plan, &references).await == Ok(true));
            }
            let expected = match tls {
                TlsMode::Off => 0,
                TlsMode::Offered => 5,
                TlsMode::Required => 6,
                TlsMode::ClientCertificate => 3,
            };
            assert_eq!(encrypted, expected, "{major} {tls:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_send_a_password_works_and_a_wrong_one_is_refused() {
    for major in [12, 14, 18] {
        for method in ["scram-sha-256", "md5", "password"] {
            let encryption = if method == "md5" { "md5" } else { "scram-sha-256" };
            let server = PostgresServer::with(major)
                .host_based_authentication(&format!(
                    "host all postgres 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 {method}\n"
                ))
                .start();
            server.psql(
                "postgres",
                &format!("SET password_encryption = '{encryption}'; CREATE ROLE \"o'x\" LOGIN PASSWORD 'pass wörd'"),
            );
            let port = server.port.to_string();
            for (password, comes_in) in [("pass wörd", true), ("wrong", false), ("", false)] {
                let keys = [
                    ("host", "127.0.0.1"),
                    ("port", port.as_str()),
                    ("user", "o'x"),
                    ("password", password),
                    ("dbname", "postgres"),
                ];
                let plan = ConnectionPlan {
                    secret: Some("db".into()),
                    ..ConnectionPlan::default()
                };
                let came_in = by_both(&plan, &secrets(&[("db", &keys)])).await;
                assert_eq!(came_in.is_ok(), comes_in, "{major} {method} {password}: {came_in:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_may_be_bound_to_the_certificate_of_the_server() {
    let server = PostgresServer::with(16).tls(TlsMode::Required).start();
    let mut bound = plan(&server);
    bound.parameters.insert("channel_binding".into(), "require".into());
    assert_eq!(by_both(&bound, &secrets_of(&server, "postgres")).await, Ok(true));
    let server = PostgresServer::shared(16);
    let mut bound = plan(server);
    bound.parameters.insert("channel_binding".into(), "require".into());
    by_both(&bound, &secrets_of(server, "postgres")).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_is_told_as_an_ordinary_session_tells_it() {
    let server = PostgresServer::shared(17);
    let port = server.port.to_string();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port().to_string();
    for (host, port, database) in [
        ("no-such-host.invalid", port.as_str(), "postgres"),
        ("127.0.0.1", "1", "postgres"),
        ("127.0.0.1", silent_port.as_str(), "postgres"),
        ("127.0.0.1", port.as_str(), "Missing one"),
        ("/nowhere", port.as_str(), "postgres"),
    ] {
        let keys = [
            ("host", host),
            ("port", port),
            ("user", SUPERUSER),
            ("password", PASSWORD),
            ("dbname", database),
        ];
        let plan = ConnectionPlan {
            secret: Some("db".into()),
            parameters: [("connect_timeout".to_owned(), "2".to_owned())].into(),
            ..ConnectionPlan::default()
        };
        by_both(&plan, &secrets(&[("db", &keys)])).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wanted_kind_of_server_and_the_settings_of_the_session_hold() {
    let server = PostgresServer::shared(14);
    let references = secrets_of(server, "postgres");
    let mut plan = plan(server);
    for (wanted, found) in [
        ("primary", true),
        ("prefer-standby", true),
        ("standby", false),
        ("read-only", false),
    ] {
        plan.parameters.insert("target_session_attrs".into(), wanted.into());
        assert_eq!(by_both(&plan, &references).await.is_ok(), found, "{wanted}");
    }
    let settings = settings(server, "postgres").await;
    let settings = settings.with_setting("work_mem", "7MB").with_application_name("a b");
    let mut session = WireSession::connect(&settings).await.unwrap();
    let shown = session
        .query("SHOW work_mem; SHOW application_name; SHOW client_encoding")
        .await
        .unwrap();
    let shown: Vec<String> = shown.into_iter().flatten().flatten().collect();
    assert_eq!(shown, ["7MB", "a b", "UTF8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_leads_to_the_server_and_cancels_on_it() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), None, None).unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), permissions).unwrap();
    let path = folder.path().display().to_string();
    let server = PostgresServer::with(18)
        .setting("unix_socket_directories", &path)
        .host_based_authentication("local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n")
        .start();
    let keys = [
        ("host", path.as_str()),
        ("port", &server.port.to_string()),
        ("user", SUPERUSER),
        ("password", PASSWORD),
        ("dbname", "postgres"),
    ];
    let plan = ConnectionPlan {
        secret: Some("db".into()),
        ..ConnectionPlan::default()
    };
    let references = secrets(&[("db", &keys)]);
    assert_eq!(by_both(&plan, &references).await, Ok(false));
    let settings = ConnectionSettings::resolve(&plan, &references).await.unwrap();
    let mut session = WireSession::connect(&settings).await.unwrap();
    let address = session.query("SELECT inet_client_addr()").await.unwrap();
    assert_eq!(address, [[None]]);
    super::faults::assert_cancels(&server, session).await;
}
