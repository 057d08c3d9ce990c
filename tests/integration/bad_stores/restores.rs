//! Restores: what passes is tried again, what does not is named, and nothing is called restored that is not.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgrescue::api::reasons;
use pgrescue::plan::report::Failed;
use pgrescue::plan::storage::StoragePlan;
use serde_json::{Value, json};

use super::{FAILED, ROWS, backup_through, content, is_permanent, is_temporary, proxy, reads_rows, source};
use crate::backup::{self, Objects, new_bucket, s3, s3_keys};
use crate::parts::{Database, Fault, PostgresServer, S3Server, Toxiproxy};
use crate::restore::{self, runtime};
use crate::whole::source_of;

/// A backup that nobody changes, and the SHA-256 of its manifest.
fn stored() -> &'static (backup::Request, String) {
    static STORED: OnceLock<(backup::Request, String)> = OnceLock::new();
    STORED.get_or_init(|| {
        let request = backup_through(&s3().endpoint, &new_bucket());
        let ended = runtime().block_on(request.run());
        let sha256 = ended.artifact().manifest_sha256.clone();
        (request, sha256)
    })
}

/// A restore of a backup through another endpoint than that of its server.
fn restore_of(backup: &backup::Request, sha256: &str, endpoint: &str, target: &Database<'_>) -> restore::Request {
    let mut snapshot = source_of(backup, &source().name, sha256);
    if let StoragePlan::S3(s3) = &mut snapshot.storage {
        s3.endpoint = Some(endpoint.to_owned());
    }
    restore::Request::of(snapshot, target.server.port, &target.name).secret("s3", &s3_keys())
}

fn through(endpoint: &str, target: &Database<'_>) -> restore::Request {
    let (backup, sha256) = stored();
    restore_of(backup, sha256, endpoint, target)
}

fn target(purpose: &str) -> Database<'static> {
    PostgresServer::shared(18).reserve_database(purpose)
}

#[track_caller]
fn came_back(target: &Database<'_>) {
    content().assert_same(&target.content());
}

#[test]
fn a_store_that_answers_500_for_a_while_costs_a_restore_time_alone() {
    let (proxy, target) = (proxy(), target("a_while"));
    let mut answers = [(500, "InternalError"), (503, "SlowDown"), (502, ""), (500, "")]
        .into_iter()
        .cycle()
        .take(8);
    proxy.rule(move |request| {
        let (status, code) = reads_rows(request).then(|| answers.next()).flatten()?;
        Some(Fault::Answer(status, code))
    });
    through(&proxy.endpoint, &target).succeed();
    assert_eq!(proxy.faults(), 8);
    came_back(&target);
}

#[test]
fn a_store_that_answers_500_for_ever_keeps_what_is_loaded_for_the_next_attempt() {
    let (proxy, target) = (proxy(), target("for_ever"));
    let mut read = 0;
    proxy.rule(move |request| {
        read += usize::from(reads_rows(request));
        (reads_rows(request) && read > 2).then_some(Fault::Answer(500, "InternalError"))
    });
    let failed = through(&proxy.endpoint, &target).with("jobs", json!(1)).fail();
    is_temporary(&failed.refusal, FAILED);
    assert_eq!(failed.step.as_deref(), Some("data"), "{failed:?}");
    assert!(failed.refusal.message.contains("goes on from there"), "{failed:?}");
    assert!(restore_notes(&target) > 0, "{failed:?}");
    proxy.heal();
    through(&proxy.endpoint, &target).succeed();
    came_back(&target);
}

fn restore_notes(target: &Database<'_>) -> u64 {
    let sql = "SELECT count(*) FROM pgrescue.loaded_chunks";
    target.psql(sql).parse().expect("a number")
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_a_chunk_costs_a_restore_time_alone() {
    let (proxy, target) = (proxy(), target("cut_chunk"));
    proxy.first(6, Fault::CutAnswer, reads_rows);
    through(&proxy.endpoint, &target).succeed();
    assert_eq!(proxy.faults(), 6);
    came_back(&target);
}

#[test]
fn a_chunk_that_changes_on_the_way_is_read_again() {
    let (proxy, target) = (proxy(), target("changed_once"));
    let mut seen = std::collections::BTreeSet::new();
    proxy
        .rule(move |request| (reads_rows(request) && seen.insert(request.target.clone())).then_some(Fault::FlipAnswer));
    through(&proxy.endpoint, &target).succeed();
    assert!(proxy.faults() >= 5, "{}", proxy.faults());
    came_back(&target);
}

#[test]
fn a_store_that_gives_wrong_bytes_every_time_is_not_restored_from() {
    let manifest = Objects::of_bucket(bucket()).manifest(&stored().0.snapshot());
    let relation = manifest.databases[0]
        .relations
        .iter()
        .find(|relation| relation.name == "large_2");
    let object = relation
        .and_then(|relation| relation.chunks.as_ref())
        .expect("chunks")
        .chunks[0]
        .object
        .clone();
    let (proxy, target) = (proxy(), target("changed_always"));
    let wrong = object.clone();
    proxy.always(Fault::FlipAnswer, move |request| request.is("GET", &wrong));
    let failed = through(&proxy.endpoint, &target).fail();
    is_permanent(&failed.refusal, reasons::OBJECT_CHANGED);
    assert_eq!(failed.refusal.object.as_deref(), Some(object.as_str()), "{failed:?}");
    assert!(failed.refusal.message.contains(r#""public"."large_2""#), "{failed:?}");
    assert!(!target.exists(), "{failed:?}");
}

/// The bucket of `stored`.
fn bucket() -> &'static str {
    match &stored().0.plan.storage {
        StoragePlan::S3(s3) => &s3.bucket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_archive_that_changes_on_the_way_is_read_again_and_one_that_is_wrong_every_time_is_refused() {
    let (proxy, target) = (proxy(), target("archive"));
    proxy.first(1, Fault::FlipAnswer, |request| request.is("GET", "archive.dump"));
    through(&proxy.endpoint, &target).succeed();
    assert_eq!(proxy.faults(), 1);
    came_back(&target);
    let target = self::target("archive_always");
    proxy.always(Fault::FlipAnswer, |request| request.is("GET", "archive.dump"));
    is_permanent(
        &through(&proxy.endpoint, &target).fail().refusal,
        reasons::OBJECT_CHANGED,
    );
    assert!(!target.exists());
}

#[test]
fn a_store_that_slows_to_a_crawl_for_a_moment_costs_a_restore_time_alone() {
    let (toxiproxy, target) = (Toxiproxy::start(), target("crawl"));
    let slow = toxiproxy.proxy(s3().port);
    slow.add_toxic("bandwidth", &["rate=100"], false); // kilobytes a second: the chunks would take a minute
    let request = through(&format!("http://127.0.0.1:{}", slow.port), &target);
    let result = runtime().block_on(async {
        let faster = async {
            tokio::time::sleep(Duration::from_secs(4)).await; // how long the store is slow
            tokio::task::block_in_place(|| slow.remove_toxic("bandwidth"));
        };
        tokio::join!(request.run(), faster).0
    });
    result.expect("it ends well");
    came_back(&target);
}

#[test]
fn rights_that_are_lost_half_way_end_the_restore_and_leave_nothing() {
    let (proxy, target) = (proxy(), target("denied"));
    let mut read = 0;
    proxy.rule(move |request| {
        read += usize::from(reads_rows(request));
        (read > 2).then_some(Fault::Answer(403, "AccessDenied"))
    });
    let failed = through(&proxy.endpoint, &target).with("jobs", json!(1)).fail();
    is_permanent(&failed.refusal, reasons::STORE_ACCESS_DENIED);
    assert_eq!(failed.step.as_deref(), Some("data"), "{failed:?}");
    assert!(!target.exists(), "{failed:?}");
}

#[test]
fn a_clock_that_is_wrong_by_a_day_is_named_before_anything_is_made() {
    let (proxy, target) = (proxy(), target("clock"));
    let wrong = Timestamp::now() + SignedDuration::from_hours(24);
    let date = wrong.strftime("%Y%m%dT%H%M%SZ").to_string();
    proxy.always(Fault::Header("x-amz-date", date), |_| true);
    let failed = through(&proxy.endpoint, &target).fail();
    is_temporary(&failed.refusal, FAILED);
    assert!(failed.refusal.message.contains("clocks"), "{failed:?}");
    assert!(!target.exists());
}

/// Changes of a manifest that fit together: only its hash, which the backup's status keeps, tells.
#[test]
fn a_manifest_that_was_edited_with_care_is_told_by_its_hash() {
    let bucket = new_bucket();
    let backup = backup_through(&s3().endpoint, &bucket);
    let ended = runtime().block_on(backup.run());
    let sha256 = &ended.artifact().manifest_sha256;
    let key = format!("team/a/snapshots/{}/manifest.json", backup.snapshot());
    let good: Value = serde_json::from_slice(&s3().object(&bucket, &key)).expect("JSON");
    let store = |manifest: &Value| {
        let request = S3Server::client(&s3().endpoint).put_object().bucket(&bucket).key(&key);
        let request = request.body(manifest.to_string().into_bytes().into());
        runtime().block_on(request.send()).expect("stored");
    };
    for edit in [leave_a_chunk_out, change_rows, swap_two_tables] {
        let mut edited = good.clone();
        edit(&mut edited["databases"][0]);
        store(&edited);
        let target = target("edited");
        let Failed { refusal, step, .. } = restore_of(&backup, sha256, &s3().endpoint, &target).fail();
        is_permanent(&refusal, reasons::OBJECT_CHANGED);
        assert!(step.is_none_or(|step| step == "preflight"), "{refusal:?}");
        assert!(!target.exists());
    }
}

fn relation<'a>(database: &'a mut Value, name: &str) -> &'a mut Value {
    let relations = database["relations"].as_array_mut().expect("relations");
    relations
        .iter_mut()
        .find(|relation| relation["name"] == name)
        .expect("the table")
}

fn leave_a_chunk_out(database: &mut Value) {
    let large = relation(database, "large_1");
    large["chunks"]["chunks"] = json!([]);
    large["rows"] = json!(0);
    database["rows"] = json!(ROWS - 320);
}

fn change_rows(database: &mut Value) {
    let large = relation(database, "large_1");
    large["chunks"]["chunks"][0]["rows"] = json!(319);
    large["rows"] = json!(319);
    database["rows"] = json!(ROWS - 1);
}

fn swap_two_tables(database: &mut Value) {
    let small = relation(database, "small")["chunks"].clone();
    let other = std::mem::replace(&mut relation(database, "other")["chunks"], small);
    relation(database, "small")["chunks"] = other;
}
