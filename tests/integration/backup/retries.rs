//! Attempts of one run: none doubles what another did, and none takes a part for the whole.

use std::time::Duration;

use pgrescue::agent::backup::{clean_up, delete_artifact};
use pgrescue::api::reasons;
use pgrescue::api::status::{FailureClass, StepState};
use serde_json::json;

use super::{Objects, in_bucket, in_folder, new_bucket, request, s3};
use crate::parts::PostgresServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_the_finished_backup_and_changes_nothing() {
    let source = PostgresServer::shared(17).create_database("retried");
    source.load_plain();
    let bucket = new_bucket();
    let first = request(&source, in_bucket(&bucket), json!({}));
    let artifact = first.run().await.artifact().clone();
    source.psql("INSERT INTO customer (name) VALUES ('late')");
    let second = first.again().run().await;
    assert_eq!(*second.artifact(), artifact);
    assert!(
        second.status.steps.iter().all(|step| step.state == StepState::Skipped),
        "{:?}",
        second.status.steps
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_makes_a_backup_again_whose_objects_are_not_whole() {
    let source = PostgresServer::shared(16).create_database("damaged");
    source.load_plain();
    let bucket = new_bucket();
    let first = request(&source, in_bucket(&bucket), json!({}));
    first.run().await.artifact();
    let objects = Objects::of_bucket(&bucket);
    let archive = pgrescue::store::layout::archive(&first.snapshot(), &source.name);
    std::fs::remove_file(objects.0.join(&archive)).expect("the archive is there");
    first.again().run().await.artifact();
    let target = source.server.create_database_with("restored", "TEMPLATE template0");
    objects.restore(&first.snapshot(), &source.name, &target, 16, &[]);
    source.content().assert_same(&target.content());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_removes_what_an_attempt_left_unfinished() {
    let source = PostgresServer::shared(15).create_database("leftovers");
    source.load_plain();
    let bucket = new_bucket();
    let request = request(&source, in_bucket(&bucket), json!({}));
    let prefix = format!("team/a/snapshots/{}", request.snapshot());
    let client = crate::parts::S3Server::client(&s3().endpoint);
    let key = format!("{prefix}/old/archive.dump");
    client
        .put_object()
        .bucket(&bucket)
        .key(&key)
        .body(vec![1; 100].into())
        .send()
        .await
        .expect("stored");
    let upload = client
        .create_multipart_upload()
        .bucket(&bucket)
        .key(&key)
        .send()
        .await
        .expect("begun");
    let upload_id = upload.upload_id().expect("an id");
    let part = client
        .upload_part()
        .bucket(&bucket)
        .key(&key)
        .upload_id(upload_id)
        .part_number(1);
    part.body(vec![2; 100].into()).send().await.expect("a part");
    assert_ne!(s3().orphan_parts(&bucket).len(), 0);

    request.run().await.artifact();
    assert_eq!(s3().orphan_parts(&bucket).len(), 0);
    assert!(!s3().keys(&bucket).contains(&key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_waits_for_the_first() {
    let source = PostgresServer::shared(18).create_database("overlap");
    source.psql("CREATE TABLE big AS SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 50000) i");
    let bucket = new_bucket();
    let first = request(&source, in_bucket(&bucket), json!({}));
    let second = first.again();
    let (one, two) = tokio::join!(first.run(), second.run());
    assert_eq!(one.artifact(), two.artifact());
    let skipped = |ended: &super::Ended| ended.status.steps.iter().all(|step| step.state == StepState::Skipped);
    assert!(
        skipped(&one) != skipped(&two),
        "one of them works, the other finds its result"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_told_to_stop_leaves_nothing_and_can_be_run_again() {
    let source = PostgresServer::shared(14).create_database("stopped");
    source.psql("CREATE TABLE big AS SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 100000) i");
    let bucket = new_bucket();
    let first = request(&source, in_bucket(&bucket), json!({}));
    let stop = async {
        let reporter = first.context.reporter.clone();
        let mut changed = reporter.subscribe();
        while !reporter.current_step().starts_with("dump ")
            || reporter.status().progress.is_none_or(|progress| progress.bytes == 0)
        {
            let _ = tokio::time::timeout(Duration::from_millis(1), changed.changed()).await;
        }
        first.context.stop.cancel();
    };
    let (ended, ()) = tokio::join!(first.run(), stop);
    let refusal = ended.refusal();
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::INTERRUPTED, FailureClass::Interrupted)
    );
    assert_eq!(s3().keys(&bucket), Vec::<String>::new());
    assert_eq!(s3().orphan_parts(&bucket).len(), 0);
    assert_eq!(first.again().run().await.artifact().rows, 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_an_artefact_leaves_the_others() {
    let source = PostgresServer::shared(17).create_database("deleted");
    source.load_plain();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let objects = Objects(folder.path().to_owned());
    let (goes, stays) = (
        request(&source, in_folder(folder.path()), json!({})),
        request(&source, in_folder(folder.path()), json!({})),
    );
    goes.run().await.artifact();
    stays.run().await.artifact();
    let plan = goes.delete_plan();
    for _ in 0..2 {
        delete_artifact(&plan, &goes.context)
            .await
            .expect("deleted, again or not");
        assert!(!objects.exists(&format!("snapshots/{}", goes.snapshot())));
    }
    objects.manifest(&stays.snapshot());
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_up_removes_the_unfinished_and_keeps_the_finished() {
    let source = PostgresServer::shared(16).create_database("dead");
    source.load_plain();
    let bucket = new_bucket();
    let request = request(&source, in_bucket(&bucket), json!({}));
    let artifact = request.run().await.artifact().clone();
    let kept = clean_up(&request.delete_plan(), &request.context)
        .await
        .expect("looked");
    assert_eq!(kept.artifact, Some(artifact));

    let objects = Objects::of_bucket(&bucket);
    let manifest = pgrescue::store::layout::manifest(&request.snapshot());
    std::fs::remove_file(objects.0.join(manifest)).expect("the manifest is there");
    let cleaned = clean_up(&request.delete_plan(), &request.context)
        .await
        .expect("cleaned");
    assert_eq!(cleaned.artifact, None);
    assert_eq!(s3().keys(&bucket), Vec::<String>::new());
}
