//! Rows out and in, in both formats, on every server.

use futures::TryStreamExt as _;
use pgrescue::postgres::wire::{WireError, WireSession};
use tokio_postgres::error::SqlState;

use crate::parts::{Database, MAJORS, PostgresServer, TlsMode};
use crate::reach::wire_session;

const TABLE: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE t (id int, name text, data bytea, at timestamptz, amount numeric, moods mood[], gone int);
    ALTER TABLE t DROP COLUMN gone;
    INSERT INTO t SELECT i, repeat(E'ä\\t\\n\\\\ ' || i, i % 40), decode(md5(i::text), 'hex'),
        'epoch'::timestamptz + i * interval '1 second', i / 7.0, ARRAY['sad', NULL]::mood[]
        FROM generate_series(1, 5000) i;
    INSERT INTO t (id) SELECT NULL FROM generate_series(1, 10);
    CREATE TABLE empty (LIKE t);
    CREATE TABLE copy (LIKE t)";

/// All rows, by reads of `limit` bytes. Each read must hold whole rows, no fewer than asked for.
async fn read_all(session: &mut WireSession, sql: &str, limit: usize) -> (Vec<u8>, u64) {
    let mut copy = session.copy_out(sql).await.unwrap();
    let (mut all, mut rows) = (Vec::new(), 0);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let read = copy.read_rows(&mut buffer, limit).await.unwrap();
        all.extend_from_slice(&buffer);
        rows += read.rows;
        if read.done {
            let again = copy.read_rows(&mut buffer, limit).await.unwrap();
            assert!(again.done && again.rows == 0);
            return (all, rows);
        }
        assert!(buffer.len() >= limit, "{} bytes of {limit}", buffer.len());
    }
}

/// The stream as tokio-postgres has it.
async fn by_tokio_postgres(database: &Database<'_>, sql: &str) -> Vec<u8> {
    let client = database.server.connect(&database.name).await;
    let stream = client.copy_out(sql).await.unwrap();
    let parts: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
    parts.concat()
}

/// Header and trailer of a binary stream taken off.
fn rows_of_binary(stream: &[u8]) -> &[u8] {
    stream
        .strip_prefix(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0")
        .and_then(|rows| rows.strip_suffix(&[0xff, 0xff]))
        .expect("a whole binary COPY")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_both_formats_are_those_of_every_client_and_load_again() {
    for major in MAJORS {
        let tls = PostgresServer::with(major).tls(TlsMode::Required).start();
        let (plain, secured) = (PostgresServer::shared(major), &tls);
        for server in [plain, secured] {
            let database = server.create_database("wire");
            database.psql(TABLE);
            let mut session = wire_session(server, &database.name).await;
            let (text, rows) = read_all(&mut session, "COPY t TO STDOUT", 1).await;
            assert_eq!(rows, 5010, "{major}");
            let (binary, rows) = read_all(&mut session, "COPY t TO STDOUT (FORMAT binary)", 10_000).await;
            assert_eq!(rows, 5010, "{major}");
            if std::ptr::eq(server, plain) {
                assert!(by_tokio_postgres(&database, "COPY t TO STDOUT").await == text);
                let stream = by_tokio_postgres(&database, "COPY t TO STDOUT (FORMAT binary)").await;
                assert!(rows_of_binary(&stream) == binary);
            }
            for (format, bytes) in [("text", &text), ("binary", &binary)] {
                load(&mut session, format, bytes).await;
                let (again, _) = read_all(&mut session, "COPY copy TO STDOUT", 1 << 20).await;
                assert!(again == text, "{major} {format}");
                session.execute("TRUNCATE copy").await.unwrap();
            }
        }
    }
}

async fn load(session: &mut WireSession, format: &str, rows: &[u8]) {
    let mut copy = session
        .copy_in(&format!("COPY copy FROM STDIN (FORMAT {format})"))
        .await
        .unwrap();
    if format == "binary" {
        copy.write(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0").await.unwrap();
    }
    for part in rows.chunks(70_001) {
        copy.write(part).await.unwrap();
    }
    if format == "binary" {
        copy.write(&[0xff, 0xff]).await.unwrap();
    }
    assert_eq!(copy.finish().await.unwrap(), 5010);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_rows_or_without_columns_give_as_many_rows_as_they_have() {
    for major in MAJORS {
        let server = PostgresServer::shared(major);
        let database = server.create_database("wire");
        database.psql("CREATE TABLE empty (a int, b text); CREATE TABLE nothing (); INSERT INTO nothing SELECT FROM generate_series(1, 3)");
        let mut session = wire_session(server, &database.name).await;
        for (table, format, bytes, rows) in [
            ("empty", "text", &b""[..], 0),
            ("empty", "binary", b"", 0),
            ("nothing", "text", b"\n\n\n", 3),
            ("nothing", "binary", &[0; 6], 3),
        ] {
            let sql = format!("COPY {table} TO STDOUT (FORMAT {format})");
            let read = read_all(&mut session, &sql, 1).await;
            assert_eq!(read, (bytes.to_vec(), rows), "{major} {sql}");
        }
        let mut copy = session.copy_in("COPY empty FROM STDIN").await.unwrap();
        copy.write(b"").await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 0, "{major}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_may_be_larger_than_every_buffer() {
    let server = PostgresServer::shared(18);
    let database = server.create_database("wire");
    database.psql(
        "CREATE TABLE t (id int, data text); CREATE TABLE copy (LIKE t);
         INSERT INTO t SELECT i, repeat('x', 1 + i % 3 * 5000000) FROM generate_series(1, 8) i",
    );
    let mut session = wire_session(server, &database.name).await;
    for format in ["text", "binary"] {
        let sql = format!("COPY t TO STDOUT (FORMAT {format})");
        let (bytes, rows) = read_all(&mut session, &sql, 1 << 20).await;
        assert_eq!(rows, 8);
        let mut copy = session
            .copy_in(&format!("COPY copy FROM STDIN (FORMAT {format})"))
            .await
            .unwrap();
        if format == "binary" {
            copy.write(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0").await.unwrap();
        }
        copy.write(&bytes).await.unwrap();
        if format == "binary" {
            copy.write(&[0xff, 0xff]).await.unwrap();
        }
        assert_eq!(copy.finish().await.unwrap(), 8);
    }
    let same =
        "SELECT count(*) FROM (SELECT id, data FROM copy GROUP BY 1, 2 HAVING count(*) = 2) c JOIN t USING (id, data)";
    assert_eq!(session.query(same).await.unwrap(), [[Some("8".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_around_a_copy_and_a_transaction_work_as_with_every_client() {
    let server = PostgresServer::shared(15);
    let database = server.create_database("wire");
    let mut session = wire_session(server, &database.name).await;
    session.execute("CREATE TABLE t (a int)").await.unwrap();
    session
        .execute("BEGIN; INSERT INTO t VALUES (1), (2); SELECT * FROM t; COPY t TO STDOUT")
        .await
        .unwrap();
    let (rows, _) = read_all(&mut session, "SET work_mem = '1MB'; COPY t TO STDOUT", 1).await;
    assert_eq!(rows, b"1\n2\n");
    session.execute("").await.unwrap();
    session.execute("ROLLBACK").await.unwrap();
    assert_eq!(
        session.query("SELECT a FROM t").await.unwrap(),
        Vec::<Vec<Option<String>>>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_sent_behind_another_statement_begins_when_that_has_ended_well() {
    for major in [12, 18] {
        let server = PostgresServer::shared(major);
        let database = server.create_database("wire");
        database.psql("CREATE TABLE t (a int); CREATE TABLE nötes (a text)");
        let mut session = wire_session(server, &database.name).await;
        // The second query is read in the encoding of the session, not in that of the transaction before it.
        session
            .execute("BEGIN; INSERT INTO t VALUES (1); SET LOCAL client_encoding = LATIN1")
            .await
            .unwrap();
        let begin = "BEGIN; SELECT 'not asked for'; INSERT INTO nötes VALUES ('ä') RETURNING a; COPY t FROM STDIN";
        let begun = session.execute_then_copy_in("COMMIT; SELECT 3", begin).await.unwrap();
        let mut copy = begun.unwrap();
        let rows = [[Some("not asked for".to_owned())], [Some("ä".to_owned())]];
        assert_eq!(copy.rows_before(), rows, "{major}");
        copy.write(b"2\n").await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 1);

        // What is wrong in the second leaves the first as it is, and the session of use.
        let begun = session
            .execute_then_copy_in("COMMIT", "BEGIN; COPY no FROM STDIN")
            .await;
        let error = begun.unwrap().unwrap_err();
        assert_eq!(error.code().map(SqlState::code), Some("42P01"), "{error}");
        session.execute("ROLLBACK").await.unwrap();
        let sum = "SELECT sum(a), (SELECT string_agg(a, '') FROM nötes) FROM t";
        assert_eq!(
            session.query(sum).await.unwrap(),
            [["3", "ä"].map(|value| Some(value.to_owned()))]
        );

        // An error of the first is told as such. The COPY that the server goes on to takes nothing.
        let begun = session.execute_then_copy_in("SELECT 1 / 0", "COPY t FROM STDIN").await;
        let error = begun.unwrap_err();
        assert_eq!(error.code().map(SqlState::code), Some("22012"), "{error}");
        assert!(matches!(session.execute("SELECT 1").await, Err(WireError::Unfinished)));
        drop(session);
        database.psql("BEGIN; SET LOCAL lock_timeout = '20s'; LOCK TABLE t; COMMIT");
        assert_eq!(database.psql("SELECT sum(a) FROM t"), "3");
    }
}
