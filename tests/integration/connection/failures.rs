//! What each failure to connect says, and whether a retry helps.

use std::net::TcpListener;

use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass::{self, Permanent, Temporary};
use pgrescue::plan::Refusal;
use pgrescue::plan::connection::ConnectionPlan;
use pgrescue::postgres::pooler;

use crate::parts::{MAJORS, PASSWORD, PgBouncer, PostgresServer, SUPERUSER, TlsMode};
use crate::reach::{connect, plan, secrets, secrets_of, session};

async fn refusal(plan: &ConnectionPlan, keys: &[(&str, &str)]) -> Refusal {
    let refusal = Refusal::from(connect(plan, &secrets(&[("db", keys)])).await.unwrap_err());
    assert!(!format!("{refusal:?}").contains(PASSWORD));
    assert!(refusal.hint.is_some(), "{refusal:?}");
    refusal
}

fn of_secret() -> ConnectionPlan {
    ConnectionPlan {
        secret: Some("db".into()),
        parameters: [("connect_timeout".to_owned(), "2".to_owned())].into(),
        ..ConnectionPlan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_reason_and_says_whether_a_retry_helps() {
    let server = PostgresServer::shared(17);
    let port = server.port.to_string();
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port().to_string();
    type Case<'a> = (&'a str, [(&'a str, &'a str); 5], &'a str, FailureClass, Option<&'a str>);
    let cases: [Case<'_>; 6] = [
        (
            "unknown host",
            [
                ("host", "no-such-host.invalid"),
                ("port", &port),
                ("user", SUPERUSER),
                ("password", PASSWORD),
                ("dbname", "postgres"),
            ],
            reasons::HOST_UNKNOWN,
            Temporary,
            None,
        ),
        (
            "refused",
            [
                ("host", "127.0.0.1"),
                ("port", "1"),
                ("user", SUPERUSER),
                ("password", PASSWORD),
                ("dbname", "postgres"),
            ],
            reasons::CONNECTION_REFUSED,
            Temporary,
            None,
        ),
        (
            "silent",
            [
                ("host", "127.0.0.1"),
                ("port", &silent_port),
                ("user", SUPERUSER),
                ("password", PASSWORD),
                ("dbname", "postgres"),
            ],
            reasons::CONNECTION_REFUSED,
            Temporary,
            None,
        ),
        (
            "wrong password",
            [
                ("host", "127.0.0.1"),
                ("port", &port),
                ("user", SUPERUSER),
                ("password", "wrong"),
                ("dbname", "postgres"),
            ],
            reasons::AUTHENTICATION_FAILED,
            Permanent,
            Some("28P01"),
        ),
        (
            "no password",
            [
                ("host", "127.0.0.1"),
                ("port", &port),
                ("user", SUPERUSER),
                ("password", ""),
                ("dbname", "postgres"),
            ],
            reasons::AUTHENTICATION_FAILED,
            Permanent,
            None,
        ),
        (
            "no database",
            [
                ("host", "127.0.0.1"),
                ("port", &port),
                ("user", SUPERUSER),
                ("password", PASSWORD),
                ("dbname", "Missing one"),
            ],
            reasons::DATABASE_MISSING,
            Permanent,
            Some("3D000"),
        ),
    ];
    for (what, keys, reason, class, sqlstate) in cases {
        let refusal = refusal(&of_secret(), &keys).await;
        assert_eq!(
            (refusal.reason.as_str(), refusal.class),
            (reason, class),
            "{what}: {refusal:?}"
        );
        assert_eq!(refusal.sqlstate.as_deref(), sqlstate, "{what}: {refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_or_starting_is_worth_another_try() {
    let server = PostgresServer::with(18)
        .setting("superuser_reserved_connections", "0")
        .start();
    server.psql("postgres", "CREATE ROLE narrow LOGIN CONNECTION LIMIT 0 PASSWORD 'x y'");
    let port = server.port.to_string();
    let keys = [
        ("host", "127.0.0.1"),
        ("port", port.as_str()),
        ("user", "narrow"),
        ("password", "x y"),
        ("dbname", "postgres"),
    ];
    let refusal = refusal(&of_secret(), &keys).await;
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::CONNECTION_REFUSED, Temporary),
        "{refusal:?}"
    );
    assert_eq!(refusal.sqlstate.as_deref(), Some("53300"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_pg_hba_conf_does_not_let_in_is_told_so() {
    let server = PostgresServer::with(15)
        .host_based_authentication("host all other 127.0.0.1/32 trust\n")
        .start();
    let error = connect(&plan(&server), &secrets_of(&server, "postgres"))
        .await
        .unwrap_err();
    let refusal = Refusal::from(error);
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::AUTHENTICATION_FAILED, Permanent)
    );
    assert_eq!(refusal.sqlstate.as_deref(), Some("28000"));
    assert!(refusal.hint.unwrap().contains("pg_hba.conf"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_an_administrator_ended_says_so() {
    let server = PostgresServer::shared(16);
    let victim = session(server, "postgres").await;
    let process: i32 = victim.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    server.psql("postgres", &format!("SELECT pg_terminate_backend({process})"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !victim.is_closed() {
        assert!(std::time::Instant::now() < deadline, "the session lives on");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let error = victim.query_one("SELECT 1", &[]).await.unwrap_err();
    let refusal = victim.refusal(&error, "counting the rows", Some("t"));
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::CONNECTION_LOST, Temporary),
        "{refusal:?}"
    );
    assert_eq!(refusal.sqlstate.as_deref(), Some("57P01"), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_refused_by_sqlstate() {
    let server = PostgresServer::shared(12);
    let session = session(server, "postgres").await;
    for (sql, sqlstate, reason) in [
        ("SELECT 1 FROM pg_authid, no_such_table", "42P01", reasons::INTERNAL),
        (
            "SET ROLE pg_monitor; SELECT 1 FROM pg_authid",
            "42501",
            reasons::PERMISSION_DENIED,
        ),
        (
            "RESET ROLE; SET statement_timeout = 1; SELECT pg_sleep(9)",
            "57014",
            reasons::TARGET_BUSY,
        ),
    ] {
        let error = session.batch_execute(sql).await.unwrap_err();
        let refusal = session.refusal(&error, "reading the roles", None);
        assert_eq!(
            (refusal.sqlstate.as_deref(), refusal.reason.as_str()),
            (Some(sqlstate), reason),
            "{refusal:?}"
        );
        assert!(refusal.message.starts_with("Reading the roles failed: "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_pooler_in_front_is_detected_and_a_server_is_not_taken_for_one() {
    for major in MAJORS {
        let session = session(PostgresServer::shared(major), "postgres").await;
        assert_eq!(pooler::detect(&session).await.unwrap(), None, "{major}");
    }
    let server = PostgresServer::with(16).tls(TlsMode::Off).start();
    let pooler = PgBouncer::start_with_transaction_pooling(&server);
    let port = pooler.port.to_string();
    let keys = [
        ("host", "127.0.0.1"),
        ("port", port.as_str()),
        ("user", SUPERUSER),
        ("password", PASSWORD),
        ("dbname", "postgres"),
    ];
    let session = connect(&of_secret(), &secrets(&[("db", &keys)])).await.unwrap();
    let refusal = pooler::detect(&session).await.unwrap().expect("a pooler");
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::POOLER_IN_FRONT, Permanent)
    );
    assert!(refusal.hint.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_behind_one_name_are_detected() {
    let (one, other) = (PostgresServer::shared(16), PostgresServer::shared(17));
    let session = session(one, "postgres").await;
    // A load balancer that sends every second connection elsewhere.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let ports = [one.port, other.port];
    let balancer = tokio::spawn(async move {
        for upstream in ports.into_iter().cycle() {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    drop(session);
    let keys = [
        ("host", "127.0.0.1"),
        ("port", port.as_str()),
        ("user", SUPERUSER),
        ("password", PASSWORD),
        ("dbname", "postgres"),
    ];
    let mut plan = of_secret();
    plan.tls_mode = Some(pgrescue::api::connection::TlsMode::Disable);
    let session = connect(&plan, &secrets(&[("db", &keys)])).await.unwrap();
    let refusal = pooler::detect(&session).await.unwrap().expect("two instances");
    assert_eq!(refusal.reason, reasons::POOLER_IN_FRONT, "{refusal:?}");
    balancer.abort();
}
