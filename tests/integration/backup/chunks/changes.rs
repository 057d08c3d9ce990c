//! Changes of definitions and rows while chunks are read: one consistent moment, or no backup.

use std::time::Duration;

use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass;
use serde_json::json;
use tokio::time::Instant;

use super::reassemble::restore;
use super::{Objects, chunks, load_ranges};
use crate::backup::slow_store::{SlowStore, rows_so_far};
use crate::backup::{Ended, Request, in_folder, request, s3};
use crate::parts::{Database, PostgresServer, Toxiproxy};

/// Waits until `sql` says true.
async fn wait_until(source: &Database<'_>, sql: &str) {
    let client = source.server.connect(&source.name).await;
    let until = Instant::now() + Duration::from_mins(3);
    while !client.query_one(sql, &[]).await.expect("looked").get::<_, bool>(0) {
        assert!(Instant::now() < until, "it never came to {sql}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Rows to read, and a table that nobody locks but the session whose snapshot all read under, and pg_dump.
fn load(source: &Database<'_>) {
    load_ranges(source, "big", 48);
    source.psql("CREATE UNLOGGED TABLE fleeting (id int)");
}

/// A session that makes pg_dump wait once it has locked the tables: it reads this catalog, and nobody else does.
async fn hold_dump(source: &Database<'_>) -> tokio_postgres::Client {
    let holder = source.server.connect(&source.name).await;
    let held = holder.batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_transform").await;
    held.expect("locked");
    holder
}

/// Waits until rows have gone by and pg_dump has ended, while the backup is `running`.
async fn rows_alone_are_read(
    running: &mut (impl Future<Output = Ended> + Unpin),
    request: &Request,
    source: &Database<'_>,
    holder: &tokio_postgres::Client,
) {
    tokio::select! {
        ended = running => panic!("the backup ended before: {:?}", ended.result),
        () = rows_go_by(request, source, holder) => {}
    }
}

async fn rows_go_by(request: &Request, source: &Database<'_>, holder: &tokio_postgres::Client) {
    // It begins beside the rows: what waits for its tables before that makes the backup begin again.
    let holders = "(SELECT count(DISTINCT pid) FROM pg_locks WHERE granted AND relation = 'fleeting'::regclass)";
    wait_until(source, &format!("SELECT {holders} = 2")).await;
    holder.batch_execute("COMMIT").await.expect("released");
    wait_until(source, &format!("SELECT {holders} = 1")).await;
    let until = Instant::now() + Duration::from_mins(3);
    while rows_so_far(request) == 0 {
        assert!(Instant::now() < until, "the backup reads rows");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The change is made in the middle, and has to wait until the backup has ended.
async fn is_backed_up_as_before(major: u32, change: &str, after: &str) {
    let server = PostgresServer::shared(major);
    let source = server.create_database("changing");
    load(&source);
    let content = source.content();
    let toxiproxy = Toxiproxy::start();
    let store = SlowStore::behind(&toxiproxy);
    let request = request(&source, store.storage(), chunks(json!({"parallelism": 1})));
    let changer = server.connect(&source.name).await;
    let holder = hold_dump(&source).await;
    let mut running = Box::pin(request.run());
    rows_alone_are_read(&mut running, &request, &source, &holder).await;
    let changing = async {
        let progress = request.context.reporter.status().progress.expect("progress");
        let change = async { changer.batch_execute(change).await.expect("changed") };
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'big'::regclass)";
        let going_on = async {
            wait_until(&source, waits).await;
            store.lets_go_on();
        };
        tokio::join!(change, going_on);
        progress.rows
    };
    let (ended, rows_before) = tokio::join!(running, changing);
    ended.artifact();
    let rows = 48 * 512 * 4 + 100;
    assert!(rows_before < rows, "the change came in the middle: {rows_before} rows");
    assert_eq!(source.psql(after), "t", "the change was made in the end");
    let objects = Objects::of_bucket(&store.bucket);
    let manifest = objects.manifest(&request.snapshot());
    assert_eq!(manifest.databases[0].rows, rows);
    let target = server.create_database_with("restored", "TEMPLATE template0");
    let client = manifest.tools.client_major;
    restore(&objects, &request.snapshot(), &source.name, &target, client).await;
    content.assert_same(&target.content());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_that_waits_for_the_tables_leaves_the_backup_whole() {
    is_backed_up_as_before(16, "TRUNCATE big", "SELECT NOT EXISTS (SELECT FROM big)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_that_waits_for_the_tables_leaves_the_backup_whole() {
    let change = "ALTER TABLE big ALTER id TYPE bigint";
    let after =
        "SELECT atttypid = 'int8'::regtype FROM pg_attribute WHERE attrelid = 'big'::regclass AND attname = 'id'";
    is_backed_up_as_before(18, change, after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_after_the_locks_were_lost_fails_the_backup() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("lost_locks");
    load(&source);
    let toxiproxy = Toxiproxy::start();
    let store = SlowStore::behind(&toxiproxy);
    let request = request(&source, store.storage(), chunks(json!({"parallelism": 1})));
    let holder = hold_dump(&source).await;
    let mut running = Box::pin(request.run());
    rows_alone_are_read(&mut running, &request, &source, &holder).await;
    let changing = async {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                   AND state = 'idle in transaction'; TRUNCATE big";
        let changer = server.connect(&source.name).await;
        changer.batch_execute(sql).await.expect("truncated");
        store.lets_go_on();
    };
    let (ended, ()) = tokio::join!(running, changing);
    let refusal = ended.refusal();
    assert_eq!(refusal.class, FailureClass::Temporary, "{refusal:?}");
    let expected = [reasons::CONNECTION_LOST, reasons::DEFINITIONS_CHANGED];
    assert!(expected.contains(&refusal.reason.as_str()), "{refusal:?}");
    let keys = s3().keys(&store.bucket);
    assert!(
        keys.iter()
            .all(|key| !key.contains("/snapshots/") && !key.contains("/locks/")),
        "{keys:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_meanwhile_is_in_no_part_of_the_backup() {
    let server = PostgresServer::shared(15);
    let source = server.create_database("written");
    load_ranges(&source, "big", 24);
    source.psql("CREATE TABLE account (id int PRIMARY KEY, amount int); INSERT INTO account SELECT i, 100 FROM generate_series(1, 500) i; \
                 ALTER TABLE big ADD COLUMN amount int; UPDATE big SET amount = 0 WHERE id <= 500; ANALYZE");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let request = request(&source, in_folder(folder.path()), chunks(json!({"parallelism": 3})));
    let (stop, writer) = (
        tokio_util::sync::CancellationToken::new(),
        server.connect(&source.name).await,
    );
    // Each transaction moves an amount from one table to the other: in every moment the sum is the same.
    let writing = async {
        let mut moved = 0;
        while !stop.is_cancelled() {
            let id = moved % 500 + 1;
            let sql = format!(
                "BEGIN; UPDATE account SET amount = amount - 1 WHERE id = {id}; \
                 UPDATE big SET amount = amount + 1 WHERE id = {id}; COMMIT"
            );
            writer.batch_execute(&sql).await.expect("moved");
            moved += 1;
        }
        moved
    };
    let backing_up = async {
        let ended = request.run().await;
        stop.cancel();
        ended
    };
    let (ended, moved) = tokio::join!(backing_up, writing);
    ended.artifact();
    assert!(moved > 10, "{moved}");
    let target = server.create_database_with("restored", "TEMPLATE template0");
    let objects = Objects(folder.path().to_owned());
    restore(&objects, &request.snapshot(), &source.name, &target, 15).await;
    let sum = "SELECT (SELECT sum(amount) FROM account) + (SELECT sum(amount) FROM big)";
    assert_eq!(target.psql(sum), "50000");
    assert_eq!(target.psql("SELECT count(DISTINCT id) = count(*) FROM big"), "t");
}
