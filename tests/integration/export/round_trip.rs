//! Whole databases, out of chunks and out of archives.

use std::fs;

use serde_json::json;

use super::{Backup, ODD_LINES, encrypted};
use crate::backup::{in_bucket, new_bucket};
use crate::parts::{Database, PostgresServer, quoted};

/// Both must be the same to the last row and definition.
#[track_caller]
fn assert_same(source: &Database<'_>, target: &Database<'_>) {
    source.content().assert_same(&target.content());
    source.schema().assert_same(&target.schema());
}

async fn everything_is_exported(major: u32) {
    let server = PostgresServer::shared(major);
    let source = server.create_database("exported \"every\" 'thing'");
    source.load_everything_for_parallel_pg_restore();
    let bucket = new_bucket();
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Credentials are kept: a stripped mapping would be no difference of the export.
    let more = json!({"dataFormat": "Chunks", "unloggedTableData": "Include", "foreignCredentials": "Keep"});
    let backup = Backup::into(folder, &source, in_bucket(&bucket), more).await;
    let (folder, report) = backup.export("from chunks", &["--database", &source.name]);
    assert!(report["convertedTables"].as_u64().expect("a number") > 5, "{report}");
    assert_eq!(report["largeObjects"], 4);
    assert_eq!(report["pgRestore"], major.max(14));
    let target = server.create_database_with("from_chunks", "TEMPLATE template0");
    backup.restore(&folder, &target);
    assert_same(&source, &target);

    let backup = Backup::of(
        &source,
        json!({"dataFormat": "Custom", "unloggedTableData": "Include", "foreignCredentials": "Keep"}),
    )
    .await;
    let (folder, report) = backup.export("from an archive", &[]);
    assert_eq!(report["convertedTables"], 0);
    let target = server.create_database_with("from_an_archive", "TEMPLATE template0");
    backup.restore(&folder, &target);
    assert_same(&source, &target);
}

macro_rules! on {
    ($($name:ident: $major:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            everything_is_exported($major).await;
        }
    )*};
}

on! {
    everything_of_12_is_exported_and_restored_by_stock_pg_restore: 12;
    everything_of_15_is_exported_and_restored_by_stock_pg_restore: 15;
    everything_of_16_is_exported_and_restored_by_stock_pg_restore: 16;
    everything_of_18_is_exported_and_restored_by_stock_pg_restore: 18;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_is_exported_with_its_identity_and_not_without() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("sealed");
    source.load_plain();
    source.psql("SELECT lo_from_bytea(0, 'an object'); CREATE TABLE named AS SELECT 'pg_class'::regclass AS of");
    for format in ["Chunks", "Custom"] {
        let backup = Backup::of(&source, encrypted(json!({"dataFormat": format}))).await;
        let said = backup.refused(&backup.path("out"), 10);
        assert!(said.contains("is encrypted to age1"), "{said}");
        let identity = backup.write_identity();
        let other = backup.path("other.txt");
        let key = age::x25519::Identity::generate().to_string();
        fs::write(&other, secrecy::ExposeSecret::expose_secret(&key)).expect("the folder is ours");
        let of = |file: &std::path::Path| ["--identity-file".to_owned(), file.display().to_string()];
        let wrong = of(&other);
        let output = backup
            .command(&backup.path("out"), &wrong.each_ref().map(String::as_str))
            .output()
            .expect("built");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(10) && said.contains("none of the given identities opens it"),
            "{said}"
        );
        assert!(!backup.path("out").exists());
        let right = of(&identity);
        let (folder, _) = backup.export("out", &right.each_ref().map(String::as_str));
        let target = server.create_database_with("opened", "TEMPLATE template0");
        backup.restore(&folder, &target);
        assert_same(&source, &target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_many_chunks_is_one_entry_and_loses_no_row() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("many");
    // One is binary and in block ranges; the other text, for it has a type that is not portable.
    source.psql(
        "CREATE TABLE wide (id int PRIMARY KEY, body text); ALTER TABLE wide ALTER body SET STORAGE PLAIN; \
         INSERT INTO wide SELECT i, repeat(md5(i::text), 60) FROM generate_series(1, 3 * 2048 * 4) i; \
         CREATE TABLE named (id int PRIMARY KEY, body text, of regclass); ALTER TABLE named ALTER body SET STORAGE PLAIN; \
         INSERT INTO named SELECT i, repeat(md5(i::text), 60), 'wide' FROM generate_series(1, 2 * 2048 * 4) i; \
         CREATE TABLE refers (id int REFERENCES wide); INSERT INTO refers SELECT i FROM generate_series(1, 500) i; \
         CREATE TABLE empty (id int); CREATE TABLE \"no columns\" (); INSERT INTO \"no columns\" SELECT FROM generate_series(1, 5)",
    );
    let backup = Backup::of(&source, json!({"dataFormat": "Chunks", "parallelism": 2})).await;
    let manifest =
        fs::read(backup.path(&format!("backups/snapshots/{}/manifest.json", backup.snapshot))).expect("it is there");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let relations = manifest["databases"][0]["relations"].as_array().expect("relations");
    let chunks = |name: &str| {
        let relation = relations
            .iter()
            .find(|relation| relation["name"] == name)
            .expect("a table");
        relation["chunks"]["chunks"].as_array().map_or(0, Vec::len)
    };
    assert!(
        chunks("wide") >= 3 && chunks("named") >= 2,
        "{} {}",
        chunks("wide"),
        chunks("named")
    );
    for jobs in ["1", "3"] {
        let (folder, _) = backup.export(&format!("with {jobs} jobs"), &["--jobs", jobs]);
        let target = server.create_database_with("many_copy", "TEMPLATE template0");
        backup.restore(&folder, &target);
        assert_same(&source, &target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_partitions_and_columns_that_are_computed_come_through() {
    let from = PostgresServer::shared(16);
    let source = from.create_database(ODD_LINES);
    let odd = quoted(ODD_LINES);
    let of = quoted(&format!("type {ODD_LINES}"));
    source.psql(&format!(
        "CREATE SCHEMA {odd}; CREATE TYPE {odd}.{of} AS ENUM ('sad', 'ok', 'it''s'); \
         CREATE DOMAIN {odd}.checked AS int CHECK (VALUE > 0); \
         CREATE TABLE {odd}.{odd} ({odd} {odd}.{of}, id int GENERATED ALWAYS AS IDENTITY, \
             twice int GENERATED ALWAYS AS (n * 2) STORED, n {odd}.checked, l {odd}.{of}[]); \
         INSERT INTO {odd}.{odd} ({odd}, n, l) SELECT 'it''s', i, '{{sad,ok}}' FROM generate_series(1, 900) i; \
         CREATE TABLE {odd}.by_enum (m {odd}.{of}, i int) PARTITION BY HASH (m); \
         CREATE TABLE {odd}.\"by_enum\n0\" PARTITION OF {odd}.by_enum FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
         CREATE TABLE {odd}.by_enum_1 PARTITION OF {odd}.by_enum FOR VALUES WITH (MODULUS 2, REMAINDER 1); \
         INSERT INTO {odd}.by_enum SELECT (enum_range(NULL::{odd}.{of}))[1 + i % 3], i FROM generate_series(1, 900) i; \
         CREATE TABLE by_day (d date, i int) PARTITION BY RANGE (d); \
         CREATE TABLE by_day_1 PARTITION OF by_day FOR VALUES FROM ('2026-01-01') TO ('2026-02-01'); \
         INSERT INTO by_day SELECT '2026-01-03', i FROM generate_series(1, 900) i"
    ));
    let backup = Backup::of(&source, json!({"dataFormat": "Chunks"})).await;
    let (folder, _) = backup.export("odd 'names'", &["--database", &source.name]);
    // The enum has other OIDs there, so rows belong into other partitions.
    let target = from.create_database_with("odd_copy", "TEMPLATE template0");
    target.psql("CREATE TABLE shifts_oids (); DROP TABLE shifts_oids");
    backup.restore(&folder, &target);
    assert_same(&source, &target);
    let id = format!("INSERT INTO {odd}.{odd} (n) VALUES (1) RETURNING id");
    assert_eq!(source.psql(&id), target.psql(&id), "identity goes on where it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_an_encoding_comes_through_byte_by_byte() {
    let server = PostgresServer::shared(18);
    let source = server.create_database_with("bytes", "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'");
    source.psql(
        "CREATE TABLE raw (id int, body text); \
         INSERT INTO raw SELECT i, convert_from(decode('e4f6fc', 'hex'), 'SQL_ASCII') || i FROM generate_series(1, 500) i",
    );
    let backup = Backup::of(&source, json!({"dataFormat": "Chunks"})).await;
    let (folder, report) = backup.export("bytes", &[]);
    assert_eq!(report["convertedTables"], 1);
    let target = server.create_database_with("bytes_copy", "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'");
    backup.restore(&folder, &target);
    let sum = "SELECT count(*), md5(string_agg(encode(body::bytea, 'hex'), ',' ORDER BY id)) FROM raw";
    assert_eq!(source.psql(sum), target.psql(sum));
}
