//! What bad input gets: the reason, the object, and a store without a trace.

use std::net::TcpListener;
use std::sync::Arc;

use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass;
use pgrescue::plan::Refusal;
use pgrescue::postgres::client_tools::ClientTools;
use serde_json::{Value, json};

use super::{
    ROLE_PASSWORD, Request, client_tools, create_role, in_bucket, in_bucket_of, in_folder, new_bucket, request,
    request_as, s3,
};
use crate::parts::{Certificates, Database, PASSWORD, PgBouncer, PostgresServer, S3Server, SUPERUSER, TlsMode};

/// Runs a request that must fail, and checks that the bucket is as it was.
async fn refused(request: &Request, bucket: &str) -> Refusal {
    let before = s3().keys(bucket);
    let ended = request.run().await;
    let refusal = ended.refusal().clone();
    assert_eq!(s3().keys(bucket), before);
    assert_eq!(s3().orphan_parts(bucket).len(), 0);
    assert!(refusal.hint.is_some(), "no hint: {refusal:?}");
    refusal
}

/// Refused for good, with this reason.
#[track_caller]
fn assert_permanent(refusal: &Refusal, reason: &str) {
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reason, FailureClass::Permanent),
        "{refusal:?}"
    );
}

fn plain(server: &'static PostgresServer) -> Database<'static> {
    let database = server.create_database("refused");
    database.load_plain();
    database
}

/// The spec of a connection to this host and port in place of the Secret's.
fn to(host: &str, port: u16) -> Value {
    json!({"connection": {"host": host, "port": port}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_named() {
    let source = plain(PostgresServer::shared(17));
    let bucket = new_bucket();
    let mut unknown = request(&source, in_bucket(&bucket), json!({}));
    unknown.plan.connection.secret = None;
    unknown.plan.connection.host = Some("no-such-host.invalid".into());
    let refusal = refused(&unknown, &bucket).await;
    assert_eq!(refusal.reason, reasons::HOST_UNKNOWN);
    assert!(refusal.message.contains("no-such-host.invalid"), "{refusal:?}");

    let closed = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    let nobody = request_as(SUPERUSER, PASSWORD, closed, &source.name, in_bucket(&bucket), json!({}));
    let refusal = refused(&nobody, &bucket).await;
    assert_eq!(refusal.reason, reasons::CONNECTION_REFUSED);
    assert_ne!(refusal.class, FailureClass::Permanent, "the server may come back");
    assert!(refusal.message.contains(&closed.to_string()), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_not_shown() {
    let source = plain(PostgresServer::shared(16));
    let bucket = new_bucket();
    let port = source.server.port;
    let wrong = request_as(
        SUPERUSER,
        "canary:wrong",
        port,
        &source.name,
        in_bucket(&bucket),
        json!({}),
    );
    let refusal = refused(&wrong, &bucket).await;
    assert_permanent(&refusal, reasons::AUTHENTICATION_FAILED);
    assert!(!format!("{refusal:?}").contains("canary"), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_does_not_fit_is_refused() {
    let source = plain(PostgresServer::shared(15));
    let bucket = new_bucket();
    let more = json!({"connection": {"tls": {"mode": "require"}}});
    let refusal = refused(&request(&source, in_bucket(&bucket), more), &bucket).await;
    assert_permanent(&refusal, reasons::TLS_FAILED);

    let secure = PostgresServer::with(18).tls(TlsMode::Required).start();
    let database = secure.create_database("secure");
    let root =
        |text: &str| json!({"connection": {"tls": {"mode": "verify-full", "rootCertificate": {"inline": text}}}});
    let certificates = Certificates::of_this_process();
    let more = root(&certificates.unrelated_root);
    let refusal = refused(&request(&database, in_bucket(&bucket), more), &bucket).await;
    assert_permanent(&refusal, reasons::TLS_FAILED);
    let good = request(&database, in_bucket(&bucket), root(&certificates.root));
    good.run().await.artifact();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_exist_is_named() {
    let source = plain(PostgresServer::shared(14));
    let bucket = new_bucket();
    let more = json!({"databases": {"include": ["no such database"]}});
    let refusal = refused(&request(&source, in_bucket(&bucket), more), &bucket).await;
    assert_permanent(&refusal, reasons::DATABASE_MISSING);
    assert_eq!(refusal.object.as_deref(), Some("no such database"));

    let port = source.server.port;
    let by_connection = request_as(SUPERUSER, PASSWORD, port, "no such one", in_bucket(&bucket), json!({}));
    assert_permanent(&refused(&by_connection, &bucket).await, reasons::DATABASE_MISSING);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_do_not_exist_are_refused() {
    let source = plain(PostgresServer::shared(13));
    let bucket = new_bucket();
    let choices = [
        json!({"schemas": {"include": ["no such schema"]}}),
        json!({"schemas": {"exclude": ["pg_catalog"]}}),
        json!({"tables": {"include": [{"schema": "public", "name": "Customer"}]}}),
        json!({"tables": {"exclude": [{"schema": "pg_catalog", "name": "pg_class"}]}}),
        json!({"tables": {"excludeData": [{"schema": "other", "name": "customer"}]}}),
    ];
    for choice in choices {
        let refusal = refused(&request(&source, in_bucket(&bucket), choice), &bucket).await;
        assert_permanent(&refusal, reasons::INVALID_SPEC);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_role_may_not_read_is_named() {
    let server = PostgresServer::start(17);
    let source = server.create_database("closed");
    source.load_plain();
    source.psql(
        "CREATE SCHEMA closed; CREATE TABLE closed.\"t.x\" (id int); CREATE SEQUENCE lonely; SELECT lo_create(7);
         REVOKE ALL ON SCHEMA public FROM PUBLIC",
    );
    create_role(&server, "dumper", "");
    let bucket = new_bucket();
    let by_role = || {
        request_as(
            "dumper",
            ROLE_PASSWORD,
            server.port,
            &source.name,
            in_bucket(&bucket),
            json!({}),
        )
    };
    let steps = [
        ("\"closed\"", "GRANT USAGE ON SCHEMA public, closed TO dumper"),
        (
            "\"public\".\"customer\"",
            "GRANT SELECT ON customer, purchase TO dumper",
        ),
        ("\"closed\".\"t.x\"", "GRANT SELECT ON closed.\"t.x\" TO dumper"),
        (
            "\"public\".\"customer_id_seq\"",
            "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO dumper",
        ),
        (source.name.as_str(), "GRANT SELECT ON LARGE OBJECT 7 TO dumper"),
    ];
    for (object, grant) in steps {
        let refusal = refused(&by_role(), &bucket).await;
        assert_permanent(&refusal, reasons::PERMISSION_DENIED);
        assert_eq!(refusal.object.as_deref(), Some(object), "{refusal:?}");
        source.psql(grant);
    }
    let ended = by_role().run().await;
    assert_eq!(ended.artifact().rows, 1100);
    assert!(
        ended
            .status
            .warnings
            .iter()
            .any(|warning| warning.contains("pg_authid")),
        "{:?}",
        ended.status.warnings
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn row_security_that_hides_rows_is_refused() {
    let server = PostgresServer::start(15);
    create_role(&server, "owner", "");
    let source = server.create_database_with("hidden", "OWNER owner");
    source.psql(
        "SET ROLE owner; CREATE SCHEMA own; CREATE TABLE own.secret AS SELECT 1 AS id;
         ALTER TABLE own.secret ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON own.secret USING (false)",
    );
    let bucket = new_bucket();
    let by_owner = |more| {
        request_as(
            "owner",
            ROLE_PASSWORD,
            server.port,
            &source.name,
            in_bucket(&bucket),
            more,
        )
    };
    assert_eq!(by_owner(json!({})).run().await.artifact().rows, 1, "an owner sees all");
    source.psql("ALTER TABLE own.secret FORCE ROW LEVEL SECURITY");
    let refusal = refused(&by_owner(json!({})), &bucket).await;
    assert_permanent(&refusal, reasons::PERMISSION_DENIED);
    assert_eq!(refusal.object.as_deref(), Some("\"own\".\"secret\""));
    let without = json!({"tables": {"excludeData": [{"schema": "own", "name": "secret"}]}});
    assert_eq!(by_owner(without).run().await.artifact().rows, 0);
    server.psql("postgres", "ALTER ROLE owner BYPASSRLS");
    assert_eq!(by_owner(json!({})).run().await.artifact().rows, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_newer_than_the_clients_is_refused() {
    let source = plain(PostgresServer::shared(18));
    let bucket = new_bucket();
    let mut request = request(&source, in_bucket(&bucket), json!({}));
    let old = client_tools()
        .sets()
        .filter(|set| set.major < 18)
        .cloned()
        .collect::<Vec<_>>();
    request.context.client_tools = Arc::new(ClientTools::of(old));
    assert_permanent(&refused(&request, &bucket).await, reasons::SERVER_TOO_NEW);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_pooler_is_refused() {
    let source = plain(PostgresServer::shared(16));
    let pooler = PgBouncer::start_with_transaction_pooling(source.server);
    let bucket = new_bucket();
    let through_it = request_as(
        SUPERUSER,
        PASSWORD,
        pooler.port,
        &source.name,
        in_bucket(&bucket),
        json!({}),
    );
    assert_permanent(&refused(&through_it, &bucket).await, reasons::POOLER_IN_FRONT);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tables_than_the_server_has_locks_for_are_refused() {
    let server = PostgresServer::with(18)
        .setting("max_connections", "20")
        .setting("max_locks_per_transaction", "10")
        .setting("max_prepared_transactions", "0")
        .start();
    let source = server.create_database("many");
    let make = |from: u32, to: u32| {
        let sql = (from..to)
            .map(|n| format!("CREATE TABLE t{n} ();"))
            .collect::<Vec<_>>()
            .join("\n");
        source.psql(&sql);
    };
    make(0, 150);
    let bucket = new_bucket();
    let ended = request(&source, in_bucket(&bucket), json!({})).run().await;
    ended.artifact();
    let warned = ended
        .status
        .warnings
        .iter()
        .any(|warning| warning.contains("max_locks_per_transaction"));
    assert!(warned, "{:?}", ended.status.warnings);
    make(150, 250);
    let refusal = refused(&request(&source, in_bucket(&bucket), json!({})), &bucket).await;
    assert_permanent(&refusal, reasons::TOO_FEW_LOCKS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_used_is_refused() {
    let source = plain(PostgresServer::shared(17));
    let bucket = new_bucket();
    let missing = request(&source, in_bucket("no-such-bucket"), json!({}));
    assert_permanent(&refused(&missing, &bucket).await, reasons::BUCKET_MISSING);

    let mut denied = request(&source, in_bucket(&bucket), json!({}));
    let mut references = pgrescue::references::manifests::ManifestReferences::default();
    for (name, keys) in [
        (
            "db",
            json!({"host": "127.0.0.1", "port": source.server.port.to_string(), "user": SUPERUSER,
                      "password": PASSWORD, "dbname": source.name}),
        ),
        (
            "s3",
            json!({"AWS_ACCESS_KEY_ID": S3Server::ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": "wrong"}),
        ),
    ] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys});
        references.add(&secret).expect("a Secret");
    }
    denied.context.references = Arc::new(references);
    assert_permanent(&refused(&denied, &bucket).await, reasons::STORE_ACCESS_DENIED);

    let nobody = request(&source, in_bucket_of("http://127.0.0.1:1", &bucket), json!({}));
    assert_eq!(refused(&nobody, &bucket).await.reason, reasons::STORE_UNREACHABLE);

    let tls = S3Server::start_tls();
    tls.create_bucket(&bucket);
    let untrusted = request(&source, in_bucket_of(&tls.endpoint, &bucket), json!({}));
    assert_permanent(&refused(&untrusted, &bucket).await, reasons::STORE_UNREACHABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_its_own_does_not_get_the_password_of_a_secret() {
    let source = plain(PostgresServer::shared(17));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let elsewhere = request(&source, in_folder(folder.path()), to("localhost", source.server.port));
    let ended = elsewhere.run().await;
    assert_eq!(ended.refusal().class, FailureClass::Permanent);
}
