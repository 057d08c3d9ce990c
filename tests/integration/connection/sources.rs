//! Where host, user, password and database come from, and who may receive the password.

use pgrescue::api::reasons;
use pgrescue::plan::Refusal;
use pgrescue::plan::connection::ConnectionPlan;
use pgrescue::postgres::connection::{ALLOW_HOST_KEY, ConnectionError, ConnectionSettings};

use crate::parts::{MAJORS, PASSWORD, PostgresServer, SUPERUSER};
use crate::reach::{connect, key, secrets, session};

/// `text` with everything but letters and digits percent-encoded.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_supported_server_is_reached_with_a_password_of_odd_letters() {
    for major in MAJORS {
        let session = session(PostgresServer::shared(major), "postgres").await;
        assert_eq!(session.server_major(), major);
        let row = session
            .query_one("SELECT current_database(), current_user", &[])
            .await
            .unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("postgres", SUPERUSER));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inline_fields_win_over_keys_and_keys_over_the_uri() {
    let server = PostgresServer::shared(16);
    let database = server.create_database("a b%/?");
    let uri = "postgresql://nobody:wrong@127.0.0.1:1/nowhere?application_name=from%20uri&host=127.0.0.1";
    let references = secrets(&[(
        "db",
        &[
            ("uri", uri),
            ("host", "127.0.0.1"),
            ("port", &server.port.to_string()),
            ("user", SUPERUSER),
            ("password", PASSWORD),
            ("dbname", "postgres"),
        ],
    )]);
    let plan = ConnectionPlan {
        secret: Some("db".into()),
        database: Some(database.name.clone()),
        ..ConnectionPlan::default()
    };
    let session = connect(&plan, &references).await.unwrap();
    let row = session
        .query_one("SELECT current_database(), current_setting('application_name')", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), database.name);
    assert_eq!(row.get::<_, &str>(1), "from uri");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uri_alone_is_enough_and_may_list_hosts_that_are_down() {
    let server = PostgresServer::shared(18);
    let database = server.create_database("ä/b?c");
    let uri = format!(
        "postgres://{}:{}@127.0.0.1:1,localhost:{}/{}?connect_timeout=5&target_session_attrs=read-write",
        encoded(SUPERUSER),
        encoded(PASSWORD),
        server.port,
        encoded(&database.name)
    );
    let plan = ConnectionPlan {
        secret: Some("db".into()),
        ..ConnectionPlan::default()
    };
    let session = connect(&plan, &secrets(&[("db", &[("uri", &uri)])])).await.unwrap();
    assert_eq!(session.settings().database(), Some(database.name.as_str()));
    // Whoever follows comes to the instance that answered.
    assert_eq!(
        (session.settings().host().as_str(), session.settings().port()),
        ("localhost", server.port)
    );
    let again = session.settings().connect().await.unwrap();
    let name: String = again.query_one("SELECT current_database()", &[]).await.unwrap().get(0);
    assert_eq!(name, database.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_database_or_with_a_star_names_none_and_reaches_one() {
    let server = PostgresServer::shared(15);
    for dbname in ["*", ""] {
        let references = secrets(&[(
            "db",
            &[
                ("host", "127.0.0.1"),
                ("port", &server.port.to_string()),
                ("user", SUPERUSER),
                ("password", PASSWORD),
                ("dbname", dbname),
            ],
        )]);
        let plan = ConnectionPlan {
            secret: Some("db".into()),
            ..ConnectionPlan::default()
        };
        let settings = ConnectionSettings::resolve(&plan, &references).await.unwrap();
        assert_eq!(settings.database(), None);
        let session = settings.connect().await.unwrap();
        assert_eq!(session.settings().database(), Some("postgres"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wanted_standby_is_not_found_on_a_primary() {
    let server = PostgresServer::shared(14);
    let references = crate::reach::secrets_of(server, "postgres");
    let mut plan = crate::reach::plan(server);
    for (wanted, found) in [
        ("any", true),
        ("read-write", true),
        ("primary", true),
        ("prefer-standby", true),
        ("standby", false),
        ("read-only", false),
    ] {
        plan.parameters.insert("target_session_attrs".into(), wanted.into());
        let result = connect(&plan, &references).await;
        assert_eq!(result.is_ok(), found, "{wanted}: {result:?}");
        if let Err(error) = result {
            assert!(matches!(error, ConnectionError::NoServerOfKind { .. }), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_and_application_name_reach_the_session() {
    let server = PostgresServer::shared(13);
    let mut plan = crate::reach::plan(server);
    plan.parameters.insert("options".into(), "-c work_mem=7MB".into());
    let session = connect(&plan, &crate::reach::secrets_of(server, "postgres"))
        .await
        .unwrap();
    let row = session
        .query_one(
            "SELECT current_setting('work_mem'), current_setting('application_name')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("7MB", "pgrescue"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_cannot_be_honoured_is_refused_by_name() {
    let references = secrets(&[]);
    for (name, value) in [
        ("passfile", "/etc/passwd"),
        ("service", "x"),
        ("host", "evil"),
        ("password", "x"),
        ("sslmode", "disable"),
        ("no_such_parameter", "x"),
        ("connect_timeout", "soon"),
        ("target_session_attrs", "fast"),
    ] {
        let plan = ConnectionPlan {
            host: Some("127.0.0.1".into()),
            user: Some("u".into()),
            parameters: [(name.to_owned(), value.to_owned())].into(),
            ..ConnectionPlan::default()
        };
        let error = ConnectionSettings::resolve(&plan, &references).await.unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(Refusal::from(error).reason, reasons::INVALID_SPEC);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_s_password_is_sent_to_no_host_that_the_secret_does_not_allow() {
    let inline = |host: &str| ConnectionPlan {
        secret: Some("db".into()),
        host: Some(host.into()),
        ..ConnectionPlan::default()
    };
    let keys = [("user", "u"), ("password", "canary")];
    let with = |more: &[(&str, &str)]| {
        let all: Vec<_> = keys.iter().chain(more).copied().collect();
        secrets(&[("db", &all)])
    };
    let resolve =
        async |plan: &ConnectionPlan, more: &[(&str, &str)]| ConnectionSettings::resolve(plan, &with(more)).await;

    for own in [
        &[("host", "db.shop")][..],
        &[("uri", "postgresql://u:p@db.shop/d")],
        &[(ALLOW_HOST_KEY, "other, DB.shop")],
        &[("host", "db"), (ALLOW_HOST_KEY, "*")],
    ] {
        assert!(resolve(&inline("db.shop"), own).await.is_ok(), "{own:?}");
    }
    for own in [
        &[][..],
        &[("host", "db.shop")],
        &[(ALLOW_HOST_KEY, "db.shop,evil.example")],
    ] {
        let error = resolve(&inline("db.shop,evil"), own).await.unwrap_err();
        assert!(
            matches!(error, ConnectionError::HostNotAllowed { .. }),
            "{own:?}: {error}"
        );
        assert!(!error.to_string().contains("canary"));
        // By address as well.
        let mut plan = inline("db.shop");
        plan.host = None;
        plan.parameters.insert("hostaddr".into(), "192.0.2.1".into());
        assert!(resolve(&plan, own).await.is_err(), "{own:?}");
    }
    // A Secret without a host of its own, named key by key, was named for this connection.
    let by_key = ConnectionPlan {
        secret: None,
        password: Some(key("db", "password")),
        ..inline("db.shop")
    };
    assert!(resolve(&by_key, &[]).await.is_ok());
    assert!(resolve(&by_key, &[("host", "DB.shop")]).await.is_ok());
    assert!(resolve(&by_key, &[("host", "elsewhere")]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_with_a_line_break_is_refused_with_the_reason() {
    let references = secrets(&[("db", &[("host", "h"), ("user", "u"), ("password", "canary\n")])]);
    let plan = ConnectionPlan {
        secret: Some("db".into()),
        ..ConnectionPlan::default()
    };
    let error = ConnectionSettings::resolve(&plan, &references).await.unwrap_err();
    assert!(matches!(error, ConnectionError::PasswordLineBreak { .. }));
}
