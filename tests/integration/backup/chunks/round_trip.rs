//! What was backed up is put together again, the same to the last row.

use pgrescue::store::manifest::{Manifest, RelationKind, RowFormat};
use serde_json::json;

use super::reassemble::{restore, stream};
use super::{Objects, backed_up, chunks};
use crate::backup::{in_bucket, new_bucket, request, s3};
use crate::parts::{Database, PostgresServer, quoted};

async fn everything_comes_back(major: u32) {
    let server = PostgresServer::shared(major);
    let source = server.create_database("chunks of \"every\" thing");
    source.load_everything();
    let bucket = new_bucket();
    let more = json!({"unloggedTableData": "Include", "parallelism": 3});
    let request = request(&source, in_bucket(&bucket), chunks(more));
    let ended = request.run().await;
    let artifact = ended.artifact();

    let objects = Objects::of_bucket(&bucket);
    let snapshot = request.snapshot();
    let manifest = objects.manifest(&snapshot);
    let target = server.create_database_with("restored", "TEMPLATE template0");
    restore(&objects, &snapshot, &source.name, &target, manifest.tools.client_major).await;
    source.content().assert_same(&target.content());

    assert_counts(&source, &manifest);
    let database = manifest.database(&source.name).expect("the database");
    assert_eq!(database.rows, artifact.rows);
    assert_eq!(database.large_objects, 4);
    let progress = ended.status.progress.expect("progress");
    assert_eq!(progress.percent, 100);
    assert!(progress.tables >= progress.tables_total, "{progress:?}");
    assert_eq!(s3().orphan_parts(&bucket).len(), 0);
    let keys = s3().keys(&bucket);
    assert!(!keys.iter().any(|key| key.contains("locks/")), "{keys:?}");
}

/// Rows of every table, and where they are: in chunks or in the archive, never in both.
fn assert_counts(source: &Database<'_>, manifest: &Manifest) {
    let database = manifest.database(&source.name).expect("the database");
    let mut in_archive = Vec::new();
    for relation in &database.relations {
        let Some(rows) = relation.rows else { continue };
        let name = format!("{}.{}", quoted(&relation.schema), quoted(&relation.name));
        // Of an extension's table a part of the rows is the dump's.
        if relation.extension.is_none() {
            assert_eq!(
                source.psql(&format!("SELECT count(*) FROM ONLY {name}")),
                rows.to_string(),
                "{name}"
            );
        }
        match (&relation.chunks, &relation.data) {
            (Some(chunked), None) => {
                assert_eq!(relation.kind, RelationKind::Table);
                assert_eq!(chunked.chunks.iter().map(|chunk| chunk.rows).sum::<u64>(), rows);
            }
            (None, Some(_)) => in_archive.push(name),
            both => panic!("{name}: {both:?}"),
        }
    }
    in_archive.sort();
    assert_eq!(
        in_archive,
        [
            "\"fixture_extension\".\"entry\"",
            "\"fixture_extension\".\"setting\"",
            "\"types\".\"unlogged\"",
            "\"types\".\"zero_columns\"",
        ]
    );
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
    everything_comes_back_in_chunks_on_12: 12;
    everything_comes_back_in_chunks_on_14: 14;
    everything_comes_back_in_chunks_on_16: 16;
    everything_comes_back_in_chunks_on_18: 18;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_from_a_database_in_latin1() {
    let server = PostgresServer::with(16).encoding("LATIN1").start();
    let source = server.create_database("latin");
    source.load_everything();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (request, manifest) = backed_up(&source, folder.path(), json!({"unloggedTableData": "Include"})).await;
    assert_counts(&source, &manifest);
    let target = server.create_database_with("restored", "TEMPLATE template0");
    let objects = Objects(folder.path().to_owned());
    restore(&objects, &request.snapshot(), &source.name, &target, 16).await;
    source.content().assert_same(&target.content());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_database_without_encoding_come_back_as_they_are() {
    let server = PostgresServer::with(15).encoding("SQL_ASCII").start();
    let source = server.create_database("ascii");
    source.psql(
        "CREATE TABLE \"ümläut\" (\"größe\" int, body text, of regclass); \
         CREATE TABLE t (id int, body text)",
    );
    source.psql(r#"INSERT INTO "ümläut" VALUES (1, convert_from('\xe9e8', getdatabaseencoding()), 'pg_class')"#);
    source.psql(r"INSERT INTO t VALUES (1, convert_from('\xe9e8', getdatabaseencoding()))");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (request, manifest) = backed_up(&source, folder.path(), json!({})).await;
    for (relation, format) in [("t", RowFormat::Binary), ("ümläut", RowFormat::Text)] {
        let database = manifest.database(&source.name).expect("the database");
        let relation = database.relations.iter().find(|other| other.name == relation);
        let rows = relation.and_then(|relation| relation.chunks.as_ref()).expect("chunks");
        assert_eq!((rows.format, rows.client_encoding.as_str()), (format, "SQL_ASCII"));
    }
    let target = server.create_database_with("restored", "TEMPLATE template0");
    let objects = Objects(folder.path().to_owned());
    restore(&objects, &request.snapshot(), &source.name, &target, 15).await;
    for table in ["t", "\"ümläut\""] {
        let bytes = format!("SELECT convert_to(body, getdatabaseencoding()) FROM {table}");
        assert_eq!(target.psql(&bytes), r"\xe9e8");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_several_ranges_is_read_in_ranges_and_in_whole_rows() {
    for major in [13, 14, 18] {
        let server = PostgresServer::shared(major);
        let source = server.create_database("ranges");
        super::load_ranges(&source, "big", 8);
        // Values out of line: one range holds more than one chunk.
        source.psql(
            "CREATE TABLE wide (id int, body text); ALTER TABLE wide ALTER body SET STORAGE EXTERNAL; \
             INSERT INTO wide SELECT i, repeat(md5(i::text), 30000) FROM generate_series(1, 50) i; \
             CREATE TABLE emptied AS SELECT generate_series(1, 100000) AS id; DELETE FROM emptied; CREATE TABLE empty (id int)",
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (request, manifest) = backed_up(&source, folder.path(), json!({"parallelism": 2})).await;
        let database = manifest.database(&source.name).expect("the database");
        let ranges = |name: &str| -> Vec<(Option<u64>, Option<u64>)> {
            let relation = database.relations.iter().find(|relation| relation.name == name);
            let rows = relation.and_then(|relation| relation.chunks.as_ref()).expect("chunks");
            rows.chunks
                .iter()
                .map(|chunk| (chunk.first_block, chunk.end_block))
                .collect()
        };
        if major >= 14 {
            let expected: Vec<_> = (0..=8)
                .map(|number| (Some(number * 512), (number < 8).then_some(number * 512 + 512)))
                .collect();
            assert_eq!(ranges("big"), expected, "{major}");
        } else {
            assert!(ranges("big").len() > 1 && ranges("big").iter().all(|range| *range == (None, None)));
        }
        assert_eq!(ranges("wide").len(), 3, "48 MB in chunks of 16 MiB");
        assert_eq!(ranges("empty").len() + ranges("emptied").len(), 0);
        let objects = Objects(folder.path().to_owned());
        for chunk in manifest.chunks() {
            assert!(stream(&objects, chunk).starts_with(b"PGCOPY\n\xff\r\n\0"));
            assert!(chunk.bytes < 18 << 20, "{} bytes", chunk.bytes);
        }
        let target = server.create_database_with("restored", "TEMPLATE template0");
        let client = manifest.tools.client_major;
        restore(&objects, &request.snapshot(), &source.name, &target, client).await;
        source.content().assert_same(&target.content());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_read_as_such_where_the_database_turns_tid_scans_off() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("tidscan");
    super::load_ranges(&source, "big", 3);
    source.psql(&format!(
        "ALTER DATABASE {} SET enable_tidscan = off",
        quoted(&source.name)
    ));
    let scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'big'";
    let before = source.psql(scans);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_, manifest) = backed_up(&source, folder.path(), json!({"parallelism": 2})).await;
    assert_eq!(manifest.chunks().count(), 4);
    // The counters of a session arrive when it has ended.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while source.psql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") != "1" {
        assert!(std::time::Instant::now() < until, "the sessions of the backup end");
    }
    assert_eq!(source.psql(scans), before);
}
