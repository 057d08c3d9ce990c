//! Definitions that change while backups run: what is stored is one moment, or the backup says why it is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass;
use serde_json::json;

use super::{Objects, in_folder, request};
use crate::parts::{Database, PostgresServer};

/// At every moment that a transaction can see, each of these tables has 1000 rows, and both halves of `swapped` the
/// same generation.
const TABLES: &str = "
    CREATE TABLE truncated AS SELECT i, 0 AS generation FROM generate_series(1, 1000) i;
    CREATE TABLE rewritten AS SELECT i, 0 AS generation FROM generate_series(1, 1000) i;
    CREATE TABLE swapped AS SELECT i, 0 AS generation FROM generate_series(1, 1000) i;
    CREATE TABLE replaced AS SELECT i, 0 AS generation FROM generate_series(1, 1000) i;
    CREATE SCHEMA moved; CREATE TABLE moved.t AS SELECT i, 0 AS generation FROM generate_series(1, 1000) i;";

/// What changes them, each in a transaction of its own.
const CHANGES: [&str; 5] = [
    "BEGIN; TRUNCATE truncated; INSERT INTO truncated SELECT i, $g FROM generate_series(1, 1000) i; COMMIT",
    "ALTER TABLE rewritten ALTER generation TYPE int USING $g",
    "BEGIN; CREATE TABLE fresh AS SELECT i, $g AS generation FROM generate_series(1, 1000) i;
     ALTER TABLE swapped RENAME TO old; ALTER TABLE fresh RENAME TO swapped; DROP TABLE old; COMMIT",
    "BEGIN; DROP TABLE replaced; CREATE TABLE replaced AS SELECT i, $g AS generation FROM generate_series(1, 1000) i; COMMIT",
    "BEGIN; ALTER SCHEMA moved RENAME TO gone; CREATE SCHEMA moved;
     CREATE TABLE moved.t AS SELECT i, $g AS generation FROM generate_series(1, 1000) i; DROP SCHEMA gone CASCADE; COMMIT",
];

/// Changes definitions until it is told to stop; gives how often.
async fn change(database: &Database<'_>, stop: Arc<AtomicBool>) -> u32 {
    let client = database.server.connect(&database.name).await;
    client.batch_execute("SET lock_timeout = '200ms'").await.expect("set");
    let changed = AtomicU32::new(0);
    let mut generation = 0;
    while !stop.load(Ordering::Relaxed) {
        generation += 1;
        for change in CHANGES {
            match client
                .batch_execute(&change.replace("$g", &generation.to_string()))
                .await
            {
                Ok(()) => {
                    changed.fetch_add(1, Ordering::Relaxed);
                }
                // The backup holds its locks.
                Err(_) => client.batch_execute("ROLLBACK").await.expect("rolled back"),
            }
        }
    }
    changed.load(Ordering::Relaxed)
}

async fn every_backup_is_one_moment(major: u32) {
    let server = PostgresServer::shared(major);
    let source = server.create_database("storm");
    source.psql(TABLES);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let objects = Objects(folder.path().to_owned());
    let stop = Arc::new(AtomicBool::new(false));
    let mut stored = 0;
    let backups = async {
        for _ in 0..12 {
            let request = request(&source, in_folder(folder.path()), json!({}));
            let ended = request.run().await;
            if let Err(failed) = &ended.result {
                let refusal = &failed.refusal;
                assert_eq!(refusal.class, FailureClass::Temporary, "{refusal:?}");
                continue;
            }
            stored += 1;
            assert_eq!(ended.artifact().rows, 5000);
            let target = server.create_database_with("restored", "TEMPLATE template0");
            objects.restore(&request.snapshot(), &source.name, &target, major.max(14), &[]);
            for table in ["truncated", "rewritten", "swapped", "replaced", "moved.t"] {
                let sql = format!("SELECT count(*), count(DISTINCT generation) FROM {table}");
                assert_eq!(target.psql(&sql), "1000|1", "{table}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let ((), changes) = tokio::join!(backups, change(&source, Arc::clone(&stop)));
    assert!(changes > 20, "only {changes} changes went through");
    assert!(stored > 6, "only {stored} of 12 backups were stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_backup_in_a_storm_of_changes_is_one_moment_on_12() {
    every_backup_is_one_moment(12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_backup_in_a_storm_of_changes_is_one_moment_on_18() {
    every_backup_is_one_moment(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_queues_for_its_lock_delays_no_backup_for_ever() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("queued");
    source.load_plain();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let request = request(&source, in_folder(folder.path()), json!({}));
    let reporter = request.context.reporter.clone();
    let client = server.connect(&source.name).await;
    let alter = async {
        // As soon as the exporter has its locks, and most often before pg_dump has its own.
        while !reporter.current_step().starts_with("dump ") {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        client
            .batch_execute("ALTER TABLE purchase ADD COLUMN note text")
            .await
            .expect("altered");
    };
    let (ended, ()) = tokio::join!(request.run(), alter);
    assert_eq!(ended.artifact().rows, 1100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_waits_for_a_lock_without_end_is_given_up() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("stuck");
    source.psql("CREATE SEQUENCE counter; CREATE TABLE t AS SELECT 1 AS id");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let request = request(&source, in_folder(folder.path()), json!({}));
    // A sequence cannot be locked beforehand; pg_dump reads it late.
    let client = server.connect(&source.name).await;
    client
        .batch_execute(
            "SET application_name = 'holder'; BEGIN; ALTER SEQUENCE counter OWNED BY t.id; DROP SEQUENCE counter",
        )
        .await
        .expect("dropped");
    let ended = request.run().await;
    let refusal = ended.refusal();
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::DEFINITIONS_CHANGED, FailureClass::Temporary),
        "{refusal:?}"
    );
    assert!(refusal.message.contains("holder"), "{refusal:?}");
    client.batch_execute("ROLLBACK").await.expect("rolled back");
    assert_eq!(request.again().run().await.artifact().rows, 1);
}

/// Definitions that a backup cannot lock, and rows that take a moment.
const UNLOCKED: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b int, c int);
    CREATE TABLE felt AS SELECT i, 'sad'::mood AS mood, row(1, 2, 3)::pair AS pair, repeat(md5(i::text), 20) AS filler
        FROM generate_series(1, 60000) i;
    CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW ones AS SELECT one();
    CREATE VIEW gone AS SELECT 1 AS id; CREATE VIEW other AS SELECT * FROM felt";

/// Waits for the dump, and for its rows where these are wanted; then changes definitions.
async fn change_during_dump(request: &super::Request, database: &Database<'_>, rows: bool, sql: &str) {
    let client = database.server.connect(&database.name).await;
    let reporter = &request.context.reporter;
    while !reporter.current_step().starts_with("dump ")
        || (rows && reporter.status().progress.is_none_or(|progress| progress.bytes == 0))
    {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    client.batch_execute(sql).await.expect("changed");
}

/// The change comes between the snapshot and what pg_dump reads, where it made pg_dump fail, or an archive that does not
/// restore.
async fn a_change_as_pg_dump_begins(change: &str, back: &str, label: &str) {
    let server = PostgresServer::shared(17);
    let source = server.create_database("unlocked");
    source.psql(UNLOCKED);
    // What is begun again begins its chunks again, too.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let chunks = json!({"dataFormat": "Chunks", "parallelism": 2});
    let of_chunks = request(&source, in_folder(folder.path()), chunks);
    let (ended, ()) = tokio::join!(of_chunks.run(), change_during_dump(&of_chunks, &source, false, change));
    assert_eq!(ended.artifact().rows, 60_000);
    source.psql(back);
    let request = request(&source, in_folder(folder.path()), json!({}));
    let (ended, ()) = tokio::join!(request.run(), change_during_dump(&request, &source, false, change));
    assert_eq!(ended.artifact().rows, 60_000);
    let target = server.create_database_with("restored", "TEMPLATE template0");
    Objects(folder.path().to_owned()).restore(&request.snapshot(), &source.name, &target, 17, &[]);
    assert_eq!(target.psql("SELECT DISTINCT mood FROM felt"), label, "{change}");
    source.schema().assert_same(&target.schema());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_dropped_while_pg_dump_reads_definitions_is_left_out() {
    a_change_as_pg_dump_begins("DROP VIEW gone", "CREATE VIEW gone AS SELECT 1 AS id", "sad").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_is_renamed_while_pg_dump_reads_definitions_is_the_new_one() {
    a_change_as_pg_dump_begins(
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
        "ALTER TYPE mood RENAME VALUE 'blue' TO 'sad'",
        "blue",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_renamed_while_pg_dump_reads_definitions_has_one_name() {
    a_change_as_pg_dump_begins(
        "ALTER FUNCTION one() RENAME TO eins",
        "ALTER FUNCTION eins() RENAME TO one",
        "sad",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_change_under_rows_fail_the_backup_and_what_rows_do_not_need_does_not() {
    let server = PostgresServer::shared(18);
    let changes = [
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", Some("mood")),
        ("ALTER TYPE pair DROP ATTRIBUTE b", Some("pair")),
        (
            "ALTER TYPE mood ADD VALUE 'glad'; DROP VIEW gone; CREATE VIEW gone AS SELECT 2 AS id",
            None,
        ),
    ];
    for (change, culprit) in changes {
        let source = server.create_database("under_rows");
        source.psql(UNLOCKED);
        source.psql("CREATE TABLE more AS SELECT * FROM felt");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let request = request(&source, in_folder(folder.path()), json!({}));
        let (ended, ()) = tokio::join!(request.run(), change_during_dump(&request, &source, true, change));
        let Some(culprit) = culprit else {
            assert_eq!(ended.artifact().rows, 120_000);
            continue;
        };
        let refusal = ended.refusal();
        assert_eq!(
            (refusal.reason.as_str(), refusal.class),
            (reasons::DEFINITIONS_CHANGED, FailureClass::Temporary),
            "{refusal:?}"
        );
        assert!(refusal.message.contains(culprit), "{refusal:?}");
        assert_eq!(request.again().run().await.artifact().rows, 120_000);
    }
}
