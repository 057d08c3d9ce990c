//! What fails at the server, in between, or here: it is told as such, and nothing half done counts.

use std::time::{Duration, Instant};

use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass::{Permanent, Temporary};
use pgrescue::plan::connection::ConnectionPlan;
use pgrescue::postgres::wire::{WireError, WireSession};
use tokio_postgres::error::SqlState;

use crate::parts::{PASSWORD, PostgresServer, SUPERUSER, TlsMode, Toxiproxy};
use crate::reach::{connect, plan, secrets, secrets_of, session, wire_session};

const SLEEP: &str = "SELECT pg_sleep(600)";

/// Waits until so many sessions run [`SLEEP`].
async fn wait_for_sleepers(server: &PostgresServer, count: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(600)%'";
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.psql("postgres", sql) != count {
        assert!(Instant::now() < deadline, "not {count} sessions sleep");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The statement of the session is cancelled by its token, and by dropping the session.
pub(super) async fn assert_cancels(server: &PostgresServer, mut session: WireSession) {
    let token = session.cancel_token();
    let (error, cancelled) = tokio::join!(session.execute(SLEEP), async {
        wait_for_sleepers(server, "1").await;
        token.cancel().await
    });
    cancelled.unwrap();
    let error = error.unwrap_err();
    assert_eq!(error.code().map(SqlState::code), Some("57014"), "{error}");
    session.execute("SELECT 1").await.unwrap();
    {
        let mut sleeping = Box::pin(session.execute(SLEEP));
        tokio::select! {
            result = &mut sleeping => panic!("{result:?}"),
            () = wait_for_sleepers(server, "1") => {}
        }
    }
    assert!(matches!(session.execute("SELECT 1").await, Err(WireError::Unfinished)));
    drop(session);
    wait_for_sleepers(server, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statement_of_a_session_that_is_dropped_or_cancelled_ends_at_the_server() {
    let plain = PostgresServer::start(13);
    assert_cancels(&plain, wire_session(&plain, "postgres").await).await;
    let secured = PostgresServer::with(17).tls(TlsMode::Required).start();
    assert_cancels(&secured, wire_session(&secured, "postgres").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_behind_many_rows_is_told_and_the_session_goes_on() {
    for major in [12, 18] {
        let server = PostgresServer::shared(major);
        let mut session = wire_session(server, "postgres").await;
        let sql = "COPY (SELECT 100000 / (100000 - i) FROM generate_series(1, 200000) i) TO STDOUT (FORMAT binary)";
        let mut copy = session.copy_out(sql).await.unwrap();
        let mut rows = Vec::new();
        let error = copy.read_rows(&mut rows, usize::MAX).await.unwrap_err();
        assert_eq!(error.code().map(SqlState::code), Some("22012"), "{error}");
        assert!(matches!(copy.read_rows(&mut rows, 1).await, Err(WireError::Unfinished)));
        assert_eq!(session.query("SELECT 1").await.unwrap(), [[Some("1".to_owned())]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_told_as_an_ordinary_session_tells_it() {
    let server = PostgresServer::shared(16);
    let database = server.create_database("wire");
    database.psql("CREATE TABLE t (a int CONSTRAINT positive CHECK (a > 0))");
    let ordinary = session(server, &database.name).await;
    let mut ours = wire_session(server, &database.name).await;
    for sql in [
        "SELECT 1 FROM no_such_table",
        "INSERT INTO t VALUES (-1)",
        "SELECT 1; SET statement_timeout = 1; SELECT pg_sleep(9)",
        "DO $$ BEGIN RAISE 'x' USING ERRCODE = '53200', HINT = 'more', DETAIL = 'less'; END $$",
    ] {
        let theirs = ordinary.batch_execute(sql).await.unwrap_err();
        let error = ours.execute(sql).await.unwrap_err();
        assert_eq!(error.code(), theirs.code(), "{sql}");
        for object in [None, Some("this")] {
            assert_eq!(
                error.refusal("doing it", object),
                ordinary.refusal(&theirs, "doing it", object),
                "{sql}"
            );
        }
        ordinary.batch_execute("RESET statement_timeout").await.unwrap();
        ours.execute("RESET statement_timeout").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_an_administrator_ended_says_so_wherever_it_is() {
    for major in [12, 18] {
        let server = PostgresServer::shared(major);
        let mut idle = wire_session(server, "postgres").await;
        let mut copying = wire_session(server, "postgres").await;
        let mut loading = wire_session(server, "postgres").await;
        let mut pids = Vec::new();
        for session in [&mut idle, &mut copying, &mut loading] {
            pids.push(
                session.query("SELECT pg_backend_pid()").await.unwrap()[0][0]
                    .clone()
                    .unwrap(),
            );
        }
        loading.execute("CREATE TEMPORARY TABLE t (a int)").await.unwrap();
        // A server says that the COPY has begun when it sends the first rows.
        let sql = "COPY (SELECT CASE i WHEN 1 THEN repeat('x', 100000) ELSE pg_sleep(600)::text END \
                   FROM generate_series(1, 2) i) TO STDOUT";
        let mut out = copying.copy_out(sql).await.unwrap();
        let mut load = loading.copy_in("COPY t FROM STDIN").await.unwrap();
        for pid in pids {
            server.psql("postgres", &format!("SELECT pg_terminate_backend({pid})"));
        }
        let errors = [
            out.read_rows(&mut Vec::new(), 1 << 20).await.map(|_| ()).unwrap_err(),
            loop {
                if let Err(error) = load.write(&b"1\n".repeat(50_000)).await {
                    break error;
                }
            },
            idle.execute("SELECT 1").await.unwrap_err(),
        ];
        for error in errors {
            let refusal = error.refusal("reading", None);
            assert_eq!(
                (refusal.reason.as_str(), refusal.class),
                (reasons::CONNECTION_LOST, Temporary),
                "{refusal:?}"
            );
            assert_eq!(refusal.sqlstate.as_deref(), Some("57P01"), "{major} {refusal:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_in_the_middle_is_an_error_and_nothing_of_a_load_stays() {
    let toxiproxy = Toxiproxy::start();
    for tls in [TlsMode::Off, TlsMode::Required] {
        let server = PostgresServer::with(18).tls(tls).start();
        let database = server.create_database("wire");
        database.psql("CREATE TABLE t (a int, b text)");
        let proxy = toxiproxy.proxy(server.port);
        let mut plan = plan(&server);
        plan.port = Some(proxy.port);
        let references = secrets_of(&server, &database.name);
        let settings = connect(&plan, &references).await.unwrap().settings().clone();

        let mut session = WireSession::connect(&settings).await.unwrap();
        proxy.add_toxic("limit_data", &["bytes=1000000"], false);
        let mut sql = session
            .copy_out("COPY (SELECT i, repeat('x', 90) FROM generate_series(1, 100000) i) TO STDOUT")
            .await
            .unwrap();
        let mut rows = Vec::new();
        let error = sql.read_rows(&mut rows, usize::MAX).await.unwrap_err();
        assert!(rows.len() > 500_000 && rows.len() < 1_000_000, "{}", rows.len());
        assert_lost(&error);
        proxy.remove_toxic("limit_data");

        let mut session = WireSession::connect(&settings).await.unwrap();
        proxy.add_toxic("limit_data", &["bytes=1000000"], true);
        let mut copy = session.copy_in("COPY t FROM STDIN").await.unwrap();
        let error = loop {
            if let Err(error) = copy.write(&b"1\tx\n".repeat(10_000)).await {
                break error;
            }
        };
        assert_lost(&error);
        assert!(copy.finish().await.is_err());
        proxy.remove_toxic("limit_data");
        assert_eq!(database.psql("SELECT count(*) FROM t"), "0");
    }
}

fn assert_lost(error: &WireError) {
    let refusal = error.refusal("reading the rows", Some("public.t"));
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::CONNECTION_LOST, Temporary),
        "{refusal:?}"
    );
    assert_eq!(refusal.object.as_deref(), Some("public.t"));
    assert!(refusal.hint.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_fails_or_is_told_to_leaves_nothing_and_the_session_goes_on() {
    for major in [12, 18] {
        let server = PostgresServer::shared(major);
        let database = server.create_database("wire");
        database.psql("CREATE TABLE t (a int CHECK (a > 0))");
        let mut session = wire_session(server, &database.name).await;

        let mut copy = session.copy_in("COPY t FROM STDIN").await.unwrap();
        copy.write(b"1\n2\n").await.unwrap();
        copy.fail("the chunk is\0damaged").await.unwrap();

        // The error comes with the first rows, long before the last are sent.
        let mut copy = session.copy_in("COPY t FROM STDIN").await.unwrap();
        copy.write(b"-1\n").await.unwrap();
        let error = loop {
            if let Err(error) = copy.write(&b"1\n".repeat(100_000)).await {
                break error;
            }
        };
        assert_eq!(error.code().map(SqlState::code), Some("23514"), "{error}");
        assert!(matches!(copy.finish().await, Err(WireError::Unfinished)));

        // The error comes with the last rows.
        let mut copy = session.copy_in("COPY t FROM STDIN").await.unwrap();
        copy.write(b"1\n-1\n").await.unwrap();
        let error = copy.finish().await.unwrap_err();
        assert_eq!(error.code().map(SqlState::code), Some("23514"), "{error}");

        // Binary rows that end too soon.
        let mut copy = session.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
        copy.write(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01\0\0")
            .await
            .unwrap();
        let error = copy.finish().await.unwrap_err();
        assert_eq!(error.code().map(SqlState::code), Some("22P04"), "{error}");

        assert_eq!(
            session.query("SELECT count(*) FROM t").await.unwrap(),
            [[Some("0".to_owned())]],
            "{major}"
        );
        let copy = session.copy_in("COPY t FROM STDIN").await.unwrap();
        drop(copy);
        drop(session);
        database.psql("BEGIN; SET LOCAL lock_timeout = '20s'; LOCK TABLE t; COMMIT");
        assert_eq!(database.psql("SELECT count(*) FROM t"), "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_raises_a_notice_for_every_row_stops_no_load() {
    let server = PostgresServer::shared(17);
    let database = server.create_database("wire");
    database.psql(
        "CREATE TABLE t (a int);
         CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE NOTICE '%', repeat('x', 2000); RETURN new; END $$;
         CREATE TRIGGER tell BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION tell()",
    );
    let mut session = wire_session(server, &database.name).await;
    let mut copy = session.copy_in("COPY t FROM STDIN").await.unwrap();
    let loading = async {
        // 10 MB there, 80 MB of notices back.
        for _ in 0..10 {
            copy.write(
                &b"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001\n"
                    .repeat(4000),
            )
            .await
            .unwrap();
        }
        copy.finish().await.unwrap()
    };
    let loaded = tokio::time::timeout(Duration::from_mins(2), loading)
        .await
        .expect("it hangs");
    assert_eq!(loaded, 40_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_copy_of_that_direction_is_refused() {
    let server = PostgresServer::shared(14);
    let database = server.create_database("wire");
    database.psql("CREATE TABLE t (a int)");
    let mut session = wire_session(server, &database.name).await;
    for sql in ["SELECT 1", "", "COPY t FROM STDIN"] {
        let error = session.copy_out(sql).await.unwrap_err();
        assert!(matches!(error, WireError::NotTheCopy(_)), "{sql}: {error}");
    }
    let error = session.execute("COPY t FROM STDIN").await.unwrap_err();
    assert!(matches!(error, WireError::NotTheCopy(_)), "{error}");
    let error = session.execute("SELECT '\0'").await.unwrap_err();
    assert!(matches!(error, WireError::Unsendable(_)), "{error}");
    let error = session.copy_out("COPY no_such_table TO STDOUT").await.unwrap_err();
    let refusal = error.refusal("reading the rows", None);
    assert_eq!((refusal.sqlstate.as_deref(), refusal.class), (Some("42P01"), Permanent));
    session.execute("SELECT 1").await.unwrap();
    let error = session.copy_in("COPY t TO STDOUT").await.unwrap_err();
    assert!(matches!(error, WireError::NotTheCopy(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_shown() {
    let server = PostgresServer::shared(18);
    let session = wire_session(server, "postgres").await;
    assert!(!format!("{session:?} {:?}", session.cancel_token()).contains(PASSWORD));
    let keys = [
        ("host", "127.0.0.1"),
        ("port", "1"),
        ("user", SUPERUSER),
        ("password", PASSWORD),
    ];
    let plan = ConnectionPlan {
        secret: Some("db".into()),
        ..ConnectionPlan::default()
    };
    let error = connect(&plan, &secrets(&[("db", &keys)])).await.unwrap_err();
    assert!(!format!("{error:?}").contains(PASSWORD));
}
