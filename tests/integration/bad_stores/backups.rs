//! Backups: what passes is tried again, what does not is named, and nothing half done counts as a backup.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgrescue::api::reasons;
use pgrescue::store::repository::{CheckLevel, check};

use super::{
    FAILED, ROWS, backup_into, backup_through, holds_no_backup, is_permanent, is_temporary, is_whole, open, proxy,
    source, stores_rows,
};
use crate::backup::{in_bucket, in_folder, new_bucket, s3};
use crate::parts::{Fault, Toxiproxy};
use crate::store::full_disk::SmallDisk;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_answers_500_for_a_while_costs_a_backup_time_alone() {
    let (bucket, proxy) = (new_bucket(), proxy());
    let mut answers = [
        (500, "InternalError"),
        (503, "SlowDown"),
        (502, ""),
        (500, ""),
        (503, "ServiceUnavailable"),
    ]
    .into_iter()
    .cycle()
    .take(10);
    proxy.rule(move |request| {
        let (status, code) = stores_rows(request).then(|| answers.next()).flatten()?;
        Some(Fault::Answer(status, code))
    });
    let request = backup_through(&proxy.endpoint, &bucket);
    assert_eq!(request.run().await.artifact().rows, ROWS);
    assert_eq!(proxy.faults(), 10);
    is_whole(&request.plan.storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_answers_500_for_ever_fails_the_backup_as_temporary_and_the_next_attempt_ends_well() {
    let (bucket, proxy) = (new_bucket(), proxy());
    proxy.always(Fault::Answer(500, "InternalError"), stores_rows);
    let request = backup_through(&proxy.endpoint, &bucket);
    let ended = request.run().await;
    is_temporary(ended.refusal(), FAILED);
    assert!(ended.refusal().message.contains("500"), "{:?}", ended.refusal());
    holds_no_backup(&bucket);
    assert!(
        proxy.faults() >= 10,
        "each request is tried ten times: {}",
        proxy.faults()
    );
    proxy.heal();
    assert_eq!(request.again().run().await.artifact().rows, ROWS);
    is_whole(&request.plan.storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_in_the_middle_of_a_chunk_costs_a_backup_time_alone() {
    let (bucket, proxy) = (new_bucket(), proxy());
    proxy.first(6, Fault::CutUpload, stores_rows);
    let request = backup_through(&proxy.endpoint, &bucket);
    assert_eq!(request.run().await.artifact().rows, ROWS);
    assert_eq!(proxy.faults(), 6);
    is_whole(&request.plan.storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_change_on_the_way_to_the_store_are_sent_again() {
    let (bucket, proxy) = (new_bucket(), proxy());
    proxy.first(3, Fault::FlipUpload, stores_rows);
    let request = backup_through(&proxy.endpoint, &bucket);
    assert_eq!(request.run().await.artifact().rows, ROWS);
    assert_eq!(proxy.faults(), 3);
    is_whole(&request.plan.storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_slows_to_a_crawl_for_a_moment_costs_a_backup_time_alone() {
    let (bucket, toxiproxy) = (new_bucket(), Toxiproxy::start());
    let slow = toxiproxy.proxy(s3().port);
    slow.add_toxic("bandwidth", &["rate=10"], true); // kilobytes a second: a chunk would take minutes
    let request = backup_through(&format!("http://127.0.0.1:{}", slow.port), &bucket);
    let faster = async {
        tokio::time::sleep(Duration::from_secs(3)).await; // how long the store is slow
        tokio::task::block_in_place(|| slow.remove_toxic("bandwidth"));
    };
    let (ended, ()) = tokio::join!(request.run(), faster);
    assert_eq!(ended.artifact().rows, ROWS);
    is_whole(&request.plan.storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_lost_half_way_end_the_backup_with_what_is_missing() {
    for key in ["/chunks/", "/snapshots/"] {
        let (bucket, proxy) = (new_bucket(), proxy());
        let mut stored = 0;
        proxy.rule(move |request| {
            stored += usize::from(request.method == "PUT" && request.path().contains(key));
            let denied = stored > 1 && ["PUT", "POST", "DELETE"].contains(&request.method.as_str());
            denied.then_some(Fault::Answer(403, "AccessDenied"))
        });
        let request = backup_through(&proxy.endpoint, &bucket);
        let ended = request.run().await;
        is_permanent(ended.refusal(), reasons::STORE_ACCESS_DENIED);
        assert!(
            ended.refusal().message.contains("may not write"),
            "{:?}",
            ended.refusal()
        );
        assert!(
            ended.refusal().message.contains("left in the store"),
            "{:?}",
            ended.refusal()
        );
        holds_no_backup(&bucket);
        // With the rights back, what is left is no obstacle.
        proxy.heal();
        assert_eq!(request.again().run().await.artifact().rows, ROWS);
        is_whole(&request.plan.storage).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_by_a_day_is_named_before_anything_is_done() {
    let (bucket, proxy) = (new_bucket(), proxy());
    for hours in [-24, 24] {
        let wrong = Timestamp::now() + SignedDuration::from_hours(hours);
        let date = wrong.strftime("%Y%m%dT%H%M%SZ").to_string();
        proxy.always(Fault::Header("x-amz-date", date), |_| true);
        let request = backup_through(&proxy.endpoint, &bucket);
        let ended = request.run().await;
        let refusal = ended.refusal();
        is_temporary(refusal, FAILED);
        assert!(refusal.message.contains("clocks"), "{refusal:?}");
        assert!(
            refusal.hint.as_deref().is_some_and(|hint| hint.contains("NTP")),
            "{refusal:?}"
        );
    }
    assert_eq!(s3().keys(&bucket), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_backup_and_room_lets_it_be_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let _disk = SmallDisk::mount(folder.path());
    let filler = folder.path().join("filler");
    let storage = folder.path().join("backups");
    // Of 48 MiB the file system takes some; two more for the backup, which needs ten.
    let mut size = 48 << 20;
    while std::fs::write(&filler, vec![1; size]).is_err() {
        size -= 1 << 20;
    }
    std::fs::write(&filler, vec![1; size - (2 << 20)]).expect("it fitted before");
    let request = backup_into(in_folder(&storage));
    let ended = request.run().await;
    is_permanent(ended.refusal(), reasons::STORE_FULL);
    let manifest = storage.join(format!("snapshots/{}/manifest.json", request.snapshot()));
    assert!(!manifest.exists());
    std::fs::remove_file(&filler).expect("it is ours");
    assert_eq!(request.again().run().await.artifact().rows, ROWS);
    is_whole(&request.plan.storage).await;
    let unfinished = open(&request.plan.storage).await.abort_uploads("").await;
    assert_eq!(unfinished.expect("looked"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_lost_their_end_are_stored_again_by_the_next_backup() {
    let bucket = new_bucket();
    backup_into(in_bucket(&bucket)).run().await.artifact();
    let rows = |keys: Vec<String>| {
        let of_rows = |key: &String| key.contains("/chunks/") || key.contains("/packs/");
        keys.into_iter().filter(of_rows).collect::<Vec<_>>()
    };
    let before = rows(s3().keys(&bucket));
    for key in &before {
        let path = s3().bucket_folder(&bucket).join(key);
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("it is there");
        let length = file.metadata().expect("it is there").len();
        file.set_len(length - 1).expect("it is ours");
    }
    let request = backup_into(in_bucket(&bucket));
    let ended = request.run().await;
    let new = ended.artifact().new_bytes.expect("it says what is new");
    assert!(new > 4 << 20, "{new} bytes of {} were new", ended.artifact().bytes);
    assert_eq!(rows(s3().keys(&bucket)).len(), 2 * before.len());
    let store = open(&request.plan.storage).await;
    let report = check(&store, CheckLevel::Sizes, None).await.expect("it can be checked");
    // The first one is hurt, but for the table whose chunk is not the last of the pack; the second one is whole.
    assert_eq!(report.snapshots, 2);
    let hurts: Vec<_> = report.damages.iter().flat_map(|damage| &damage.hurts).collect();
    assert!(
        hurts.iter().all(|hurt| hurt.snapshot != request.snapshot()),
        "{hurts:?}"
    );
    let mut tables: Vec<_> = hurts.iter().flat_map(|hurt| hurt.tables.clone()).collect();
    tables.sort();
    let name = &source().name;
    // Either of the two small ones comes last, as their workers have it.
    let hurt = |last| ["large_0", "large_1", "large_2", "large_3", last].map(|table| format!("{name}.public.{table}"));
    assert!(tables == hurt("other") || tables == hurt("small"), "{tables:?}");
}
