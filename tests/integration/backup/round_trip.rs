//! What was backed up restores with stock pg_restore, the same to the last row.

use serde_json::json;

use super::{Objects, in_bucket, in_folder, new_bucket, request, s3};
use crate::parts::{PostgresServer, quoted};

async fn everything_comes_back(major: u32) {
    let server = PostgresServer::shared(major);
    let source = server.create_database("backup of \"every\" thing");
    source.load_everything();
    let bucket = new_bucket();
    let request = request(&source, in_bucket(&bucket), json!({"unloggedTableData": "Include"}));
    let ended = request.run().await;
    let artifact = ended.artifact();

    let objects = Objects::of_bucket(&bucket);
    let snapshot = request.snapshot();
    let target = server.create_database_with("restored", "TEMPLATE template0");
    // What was stripped of its connection string cannot be restored as it is.
    let archive_client = objects.manifest(&snapshot).tools.client_major;
    objects.restore(
        &snapshot,
        &source.name,
        &target,
        archive_client,
        &["--no-subscriptions"],
    );
    source.content().assert_same(&target.content());

    let manifest = objects.manifest(&snapshot);
    let database = manifest
        .database(&source.name)
        .expect("the database is in the manifest");
    assert!(database.rows > 1000);
    assert_eq!(database.rows, artifact.rows);
    for relation in &database.relations {
        let Some(rows) = relation.rows else { continue };
        let sql = format!(
            "SELECT count(*) FROM ONLY {}.{}",
            quoted(&relation.schema),
            quoted(&relation.name)
        );
        // Of an extension's table a part of the rows is the dump's.
        if relation.extension.is_none() {
            assert_eq!(
                source.psql(&sql),
                rows.to_string(),
                "{}.{}",
                relation.schema,
                relation.name
            );
        }
    }
    assert_eq!(database.large_objects, 4);
    assert_eq!(s3().orphan_parts(&bucket).len(), 0);
    for object in &manifest.objects {
        let stored = objects.read(&object.key);
        assert_eq!(stored.len() as u64, object.size);
        assert_eq!(
            hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&stored)),
            object.sha256,
            "{}",
            object.key
        );
    }
}

macro_rules! on_every_server {
    ($($name:ident: $major:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            everything_comes_back($major).await;
        }
    )*};
}

on_every_server! {
    everything_comes_back_on_12: 12;
    everything_comes_back_on_13: 13;
    everything_comes_back_on_14: 14;
    everything_comes_back_on_15: 15;
    everything_comes_back_on_16: 16;
    everything_comes_back_on_17: 17;
    everything_comes_back_on_18: 18;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_keeps_credentials_holds_the_same_definitions() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("kept");
    source.load_everything();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let more = json!({"foreignCredentials": "Keep", "unloggedTableData": "Include", "compression": {"method": "Lz4"}});
    let request = request(&source, in_folder(folder.path()), more);
    request.run().await.artifact();

    let target = server.create_database_with("restored", "TEMPLATE template0");
    let objects = Objects(folder.path().to_owned());
    objects.restore(&request.snapshot(), &source.name, &target, 17, &[]);
    source.content().assert_same(&target.content());
    source.schema().assert_same(&target.schema());
}

#[tokio::test(flavor = "multi_thread")]
async fn pre_data_and_the_other_sections_make_the_whole() {
    let server = PostgresServer::shared(18);
    let source = server.create_database("sections");
    source.load_plain();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let request = request(&source, in_folder(folder.path()), json!({}));
    request.run().await.artifact();

    let objects = Objects(folder.path().to_owned());
    let target = server.create_database_with("restored", "TEMPLATE template0");
    let key = pgrescue::store::layout::pre_data(&request.snapshot(), &source.name);
    target.psql(&String::from_utf8(objects.read(&key)).expect("UTF-8"));
    objects.restore(
        &request.snapshot(),
        &source.name,
        &target,
        18,
        &["--section=data", "--section=post-data"],
    );
    source.content().assert_same(&target.content());
    source.schema().assert_same(&target.schema());
}

#[tokio::test(flavor = "multi_thread")]
async fn globals_make_the_roles_on_another_server() {
    let server = PostgresServer::shared(16);
    server.load_roles();
    let source = server.create_database("globals");
    source.load_plain();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let request = request(&source, in_folder(folder.path()), json!({}));
    request.run().await.artifact();

    let objects = Objects(folder.path().to_owned());
    let globals =
        String::from_utf8(objects.read(&pgrescue::store::layout::globals(&request.snapshot()))).expect("UTF-8");
    let other = PostgresServer::start(17);
    // The superuser is there already.
    let globals = globals.replace("CREATE ROLE postgres;", "");
    other.psql("postgres", &globals);
    let roles =
        "SELECT rolname, rolcanlogin, rolcreatedb, rolpassword FROM pg_authid WHERE rolname LIKE 'fixture%' ORDER BY 1";
    assert_eq!(server.psql("postgres", roles), other.psql("postgres", roles));
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_other_encodings_come_back() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let server = PostgresServer::with(15).encoding(encoding).start();
        let source = server.create_database("latin");
        source.psql(
            "SET client_encoding = 'LATIN1'; CREATE TABLE t (id int, body text); SET client_encoding = 'SQL_ASCII'",
        );
        source.psql(r"INSERT INTO t VALUES (1, convert_from('\xe9e8', getdatabaseencoding()))");
        let bucket = new_bucket();
        let request = request(&source, in_bucket(&bucket), json!({}));
        request.run().await.artifact();
        let target = server.create_database_with("restored", "TEMPLATE template0");
        Objects::of_bucket(&bucket).restore(&request.snapshot(), &source.name, &target, 15, &[]);
        let bytes = "SELECT convert_to(body, getdatabaseencoding()) FROM t";
        assert_eq!(target.psql(bytes), source.psql(bytes), "{encoding}");
        assert_eq!(target.psql(bytes), r"\xe9e8", "{encoding}");
    }
}
