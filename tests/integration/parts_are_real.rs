//! The parts themselves: a comparison that finds nothing proves something only
//! if it finds what was damaged.

use std::process::Stdio;

use crate::parts::{MAJORS, PgBouncer, PostgresServer, S3Server, TlsMode, Toxiproxy};

#[test]
fn every_supported_server_starts_and_answers() {
    for major in MAJORS {
        let answer = PostgresServer::shared(major).psql("postgres", "SHOW server_version_num");
        assert_eq!(answer.parse::<u32>().expect("a number") / 10_000, major);
    }
}

#[test]
fn one_changed_row_changes_the_content() {
    let server = PostgresServer::shared(12);
    let (one, other) = (server.create_database("one"), server.create_database("other"));
    for database in [&one, &other] {
        database.load_plain();
    }
    one.content().assert_same(&other.content());
    one.schema().assert_same(&other.schema());

    for damage in [
        "UPDATE customer SET name = name || ' ' WHERE id = 7",
        "DELETE FROM purchase WHERE id = 500",
        "INSERT INTO customer (name) SELECT name FROM customer WHERE id = 1",
        "SELECT nextval('purchase_id_seq')",
        "REFRESH MATERIALIZED VIEW turnover WITH NO DATA",
        "SELECT lo_from_bytea(0, 'x')",
    ] {
        let before = other.content();
        other.psql(damage);
        assert_ne!(other.content(), before, "{damage}");
    }
    assert_eq!(one.content().differences(&other.content()).len(), 6);
}

#[test]
fn one_changed_definition_changes_the_schema() {
    let server = PostgresServer::shared(18);
    let (one, other) = (server.create_database("one"), server.create_database("other"));
    for database in [&one, &other] {
        database.load_plain();
    }
    one.schema().assert_same(&other.schema());
    for damage in [
        "ALTER TABLE purchase DROP CONSTRAINT purchase_amount_check",
        "COMMENT ON TABLE customer IS 'changed'",
        "GRANT SELECT ON customer TO PUBLIC",
        "DROP INDEX purchase_placed_at",
    ] {
        let before = other.schema();
        other.psql(damage);
        assert_ne!(other.schema(), before, "{damage}");
    }
    let before = other.properties();
    other.psql(&format!("ALTER DATABASE \"{}\" SET work_mem = '5MB'", other.name));
    assert_ne!(other.properties(), before);
}

#[test]
fn a_server_asks_for_its_password_and_for_tls_as_told() {
    let server = PostgresServer::with(17).tls(TlsMode::ClientCertificate).start();
    assert_eq!(
        server.psql("postgres", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"),
        "t"
    );
    let refused = |environment: &[(&str, &str)]| {
        let mut command = server.client(18, "psql", "postgres");
        command.envs(environment.iter().copied()).args(["-Atc", "SELECT 1"]);
        !command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("psql is installed")
            .success()
    };
    assert!(!refused(&[]));
    assert!(refused(&[("PGPASSWORD", "wrong")]));
    assert!(refused(&[("PGSSLMODE", "disable")]));
    assert!(refused(&[("PGSSLCERT", "/nonexistent")]));
}

#[test]
fn a_server_stops_and_leaves_nothing_when_dropped() {
    let server = PostgresServer::start(14);
    let data = server.data_folder();
    assert!(data.exists());
    drop(server);
    assert!(!data.exists());
}

#[tokio::test]
async fn the_s3_server_keeps_objects_and_shows_orphan_parts() {
    let server = S3Server::start();
    server.create_bucket("backups");
    let client = S3Server::client(&server.endpoint);
    let upload = client
        .create_multipart_upload()
        .bucket("backups")
        .key("a/unfinished")
        .send()
        .await
        .expect("the upload starts");
    client
        .upload_part()
        .bucket("backups")
        .key("a/unfinished")
        .upload_id(upload.upload_id().expect("an id"))
        .part_number(1)
        .body(b"part".to_vec().into())
        .send()
        .await
        .expect("the part is stored");
    client
        .put_object()
        .bucket("backups")
        .key("a/b c")
        .body(b"whole".to_vec().into())
        .send()
        .await
        .expect("the object is stored");
    assert_eq!(server.keys("backups"), ["a/b c"]);
    assert_eq!(server.object("backups", "a/b c"), b"whole");
    assert_eq!(server.orphan_parts("backups").len(), 1);
}

#[test]
fn a_cut_proxy_refuses_connections() {
    let server = PostgresServer::shared(16);
    let toxiproxy = Toxiproxy::start();
    let proxy = toxiproxy.proxy(server.port);
    let reaches = || {
        let mut command = server.client(18, "psql", "postgres");
        command.env("PGPORT", proxy.port.to_string()).args(["-Atc", "SELECT 1"]);
        command.stderr(Stdio::null()).stdout(Stdio::null());
        command.status().expect("psql is installed").success()
    };
    assert!(reaches());
    proxy.toggle();
    assert!(!reaches());
    proxy.toggle();
    proxy.add_toxic("limit_data", &["bytes=200"], false);
    assert!(!reaches());
    proxy.remove_toxic("limit_data");
    assert!(reaches());
}

#[test]
fn the_pooler_shares_server_sessions_between_clients() {
    let server = PostgresServer::shared(15);
    let pooler = PgBouncer::start_with_transaction_pooling(server);
    let through_pooler = |sql: &str| {
        let mut command = server.client(18, "psql", "postgres");
        command.env("PGPORT", pooler.port.to_string()).args(["-XAtqc", sql]);
        let output = command.output().expect("psql is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    through_pooler("SET work_mem = '77kB'");
    assert_eq!(through_pooler("SHOW work_mem"), "77kB", "another client's setting");
}
