//! What becomes of a run's artefact or database when its resource, its namespace or its Job goes.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pgrescue::api::status::Phase;
use pgrescue::api::{PgBackup, PgRestore, reasons};
use serde_json::json;

use crate::cluster::cluster;
use crate::namespace::Namespace;
use crate::operator::{Run, backup, restore};
use crate::servers::{Postgres, S3};
use crate::shop::Shop;

/// Content of a small database.
const ITEMS: &str = "CREATE TABLE item (id int PRIMARY KEY, name text);
                     INSERT INTO item SELECT n, 'item ' || n FROM generate_series(1, 1000) n";
/// A restore was told to stop, and has not ended.
const STOPPING: &str = "told to stop";
/// What a clean-up says that found a database of the restore.
const DROPPED: &str = "The database \"copy\", which the restore had created, was dropped.";

/// Messages of the Events about a resource.
fn messages(namespace: &Namespace, name: &str) -> String {
    let events = namespace.events(name).into_iter();
    events.map(|(_, message)| message).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_backup_that_is_deleted_in_its_middle_leaves_nothing_in_the_bucket() {
    let namespace = Namespace::with_operator("deleted-backup").await;
    let shop = Shop::open(&namespace, 17).await;
    for policy in ["Retain", "Delete"] {
        let mut manifest = shop.backup("shop");
        manifest["spec"]["deletionPolicy"] = policy.into();
        let (stalled, pod) = shop.stop_in_the_middle(&manifest).await;
        namespace.delete::<PgBackup>("shop");
        namespace.gone::<PgBackup>("shop").await;
        namespace.gone::<Pod>(&pod.name_any()).await;
        stalled.go_on();
        assert_eq!(shop.s3.keys(), Vec::<String>::new(), "{policy}");
    }
    // An agent that was killed has aborted nothing.
    let Some(node) = cluster().own_node() else { return };
    let (stalled, pod) = shop.backup_in_the_middle().await;
    node.kill(&pod, "pgrescue");
    namespace.delete::<PgBackup>("shop");
    stalled.go_on();
    namespace.gone::<PgBackup>("shop").await;
    namespace.gone::<Pod>(&pod.name_any()).await;
    assert_eq!(shop.s3.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn a_restore_that_is_deleted_in_its_middle_leaves_no_database_and_can_be_made_again() {
    let namespace = Namespace::with_operator("deleted-restore").await;
    let shop = Shop::open(&namespace, 18).await;
    shop.back_up().await;
    let (stalled, pod) = shop.restore_in_the_middle().await;
    namespace.delete::<PgRestore>("copy");
    let name = pod.name_any();
    shop.eventually("the agent is told to stop", || namespace.logs(&name).contains(STOPPING))
        .await;
    stalled.go_on();
    namespace.gone::<PgRestore>("copy").await;
    namespace.gone::<Pod>(&name).await;
    assert_eq!(shop.server.databases(), ["shop"]);

    // An agent that was killed has dropped nothing.
    if let Some(node) = cluster().own_node() {
        let (stalled, pod) = shop.restore_in_the_middle().await;
        node.kill(&pod, "pgrescue");
        shop.agent_ended(&pod).await;
        assert_eq!(shop.server.databases(), ["copy", "shop"]);
        namespace.delete::<PgRestore>("copy");
        stalled.go_on();
        namespace.gone::<PgRestore>("copy").await;
        assert_eq!(shop.server.databases(), ["shop"]);
        let said = messages(&namespace, "copy");
        assert!(said.contains(DROPPED), "{said}");
    }
    shop.apply(&restore("copy", "shop", "production-db", "copy"));
    namespace.succeeded::<PgRestore>("copy").await;
    shop.copy_is_whole();
}

#[tokio::test]
async fn a_namespace_that_is_deleted_in_the_middle_of_runs_goes_and_the_artefact_stays() {
    let servers = Namespace::with_operator("servers").await;
    let namespace = Namespace::new("deleted-namespace").await;
    let shop = Shop::open(&servers, 17).await;
    let shop = shop.in_namespace(&namespace);
    let mut manifest = shop.backup("shop");
    manifest["spec"]["deletionPolicy"] = "Delete".into();
    shop.apply(&manifest);
    let finished = namespace.succeeded::<PgBackup>("shop").await;
    let (stalled_restore, pod) = shop.restore_in_the_middle().await;
    manifest["metadata"]["name"] = "unfinished".into();
    let (stalled_backup, _) = shop.stop_in_the_middle(&manifest).await;

    let name = pod.name_any();
    let restore_goes_on = async {
        let stopping = || {
            namespace
                .kubectl(&["logs", &name])
                .is_ok_and(|log| log.contains(STOPPING))
        };
        shop.eventually("the agent is told to stop", stopping).await;
        stalled_restore.go_on();
    };
    tokio::join!(namespace.delete_all(), restore_goes_on);
    stalled_backup.go_on();
    shop.bucket_holds(&finished);
    // The server's DROP DATABASE waits for every backend, and so for the one that was stopped until now
    // (`WaitForProcSignalBarrier` in `procsignal.c`).
    let dropped = || shop.server.databases() == ["shop"];
    shop.eventually("the database is dropped", dropped).await;
}

/// What is not shared among backups.
fn of_backups(s3: &S3) -> Vec<String> {
    let objects = s3.objects().into_iter();
    objects.filter(|key| key.contains("/snapshots/")).collect()
}

#[tokio::test]
async fn a_finished_backup_takes_its_artefact_along_where_its_deletion_policy_says_so() {
    let namespace = Namespace::with_operator("artefact").await;
    let production = Postgres::start(&namespace, "production", 17, "shop").await;
    let s3 = S3::start(&namespace, "backups").await;
    production.psql("shop", ITEMS);
    for (name, policy) in [("kept", "Retain"), ("deleted", "Delete")] {
        let mut manifest = backup(name, "production-db");
        manifest["spec"]["deletionPolicy"] = policy.into();
        namespace.apply(&manifest.to_string()).expect("applied");
    }
    namespace.succeeded::<PgBackup>("kept").await;
    let deleted = namespace.succeeded::<PgBackup>("deleted").await;
    assert_eq!(of_backups(&s3).len(), 8, "{:?}", s3.objects());
    for name in ["kept", "deleted"] {
        namespace.delete::<PgBackup>(name);
        namespace.gone::<PgBackup>(name).await;
    }
    let kept = of_backups(&s3);
    assert_eq!(kept.len(), 4, "{kept:?}");
    let snapshot = deleted
        .status
        .as_ref()
        .and_then(|status| status.artifact.clone())
        .expect("an artefact")
        .snapshot;
    assert!(kept.iter().all(|key| !key.contains(&snapshot)), "{kept:?}");
    let said = messages(&namespace, "deleted");
    assert!(said.contains(&format!("The snapshot {snapshot} was deleted")), "{said}");
    // The Job outlives the resource until its TTL has run out.
    let job = format!("{}-delete", deleted.run().job.expect("it had a Job").name);
    let job = namespace.api::<Job>().get(&job).await.expect("a Job did it");
    assert!(job.spec.is_some_and(|spec| spec.ttl_seconds_after_finished.is_some()));
}

#[tokio::test]
async fn a_restore_that_is_applied_again_after_its_resource_was_deleted_changes_nothing() {
    let namespace = Namespace::with_operator("again").await;
    let production = Postgres::start(&namespace, "production", 18, "shop").await;
    let _s3 = S3::start(&namespace, "backups").await;
    production.psql("shop", ITEMS);
    let request = restore("copy", "shop", "production-db", "copy");
    for manifest in [&backup("shop", "production-db"), &request] {
        namespace.apply(&manifest.to_string()).expect("applied");
    }
    namespace.succeeded::<PgRestore>("copy").await;
    namespace.delete::<PgRestore>("copy");
    namespace.gone::<PgRestore>("copy").await;
    production.psql(
        "copy",
        "UPDATE item SET name = 'changed since' WHERE id <= 10; DELETE FROM item WHERE id > 990;
         INSERT INTO item VALUES (2000, 'new'); CREATE TABLE note AS SELECT 1 AS n",
    );
    let before = production.contents("copy");

    namespace.apply(&request.to_string()).expect("applied");
    let run = namespace.ended_as::<PgRestore>("copy", Phase::AlreadyApplied).await;
    assert_eq!(production.contents("copy"), before);
    assert_eq!(namespace.pods_of(&run).await.len(), 1);
    let ready = run.condition(pgrescue::api::conditions::READY).expect("it says so");
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("True", reasons::ALREADY_APPLIED)
    );
    assert!(ready.message.contains("Nothing was changed"), "{ready:?}");
}

#[tokio::test]
async fn what_a_restore_had_made_whose_job_is_lost_is_dropped_and_the_status_says_so() {
    let Some(node) = cluster().own_node() else { return };
    let namespace = Namespace::with_operator("lost").await;
    let shop = Shop::open(&namespace, 17).await;
    shop.back_up().await;
    let (stalled, pod) = shop.restore_in_the_middle().await;
    node.kill(&pod, "pgrescue");
    let run = namespace.api::<PgRestore>().get("copy").await.expect("it is there");
    namespace.delete::<Job>(&run.run().job.expect("it has a Job").name);
    stalled.go_on();
    let failure = namespace.failed::<PgRestore>("copy").await;
    assert_eq!(failure.reason, reasons::JOB_LOST);
    assert!(failure.message.contains(DROPPED), "{failure:?}");
    assert_eq!(shop.server.databases(), ["shop"]);
}

#[tokio::test]
async fn a_backup_whose_last_agent_was_killed_leaves_nothing_in_the_bucket_and_the_status_says_so() {
    let Some(node) = cluster().own_node() else { return };
    let namespace = Namespace::with_operator("for-good").await;
    let shop = Shop::open(&namespace, 18).await;
    let (stalled, pod) = shop.backup_in_the_middle().await;
    let run = namespace.api::<PgBackup>().get("shop").await.expect("it is there");
    let job = run.run().job.expect("it has a Job").name;
    // The attempts that would follow take 70 s to fail.
    let last = json!({"spec": {"backoffLimit": 0}}).to_string();
    namespace
        .kubectl(&["patch", "job", &job, "--type=merge", "--patch", &last])
        .expect("a Job's limit can be changed");
    node.kill(&pod, "pgrescue");
    stalled.go_on();
    let failure = namespace.failed::<PgBackup>("shop").await;
    assert_eq!(failure.reason, reasons::REPORT_MISSING);
    assert!(
        failure.message.contains("No unfinished backup is left in the store"),
        "{failure:?}"
    );
    assert_eq!(shop.s3.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn a_backup_in_a_volume_is_restored_and_goes_with_its_resource() {
    let namespace = Namespace::with_operator("volume-backup").await;
    namespace.volume_claim("backups");
    let production = Postgres::start(&namespace, "production", 18, "shop").await;
    production.psql("shop", ITEMS);
    let mut manifest = backup("shop", "production-db");
    manifest["spec"]["storage"] = json!({"volume": {"claimName": "backups", "path": "shop/nightly"}});
    manifest["spec"]["deletionPolicy"] = "Delete".into();
    namespace.apply(&manifest.to_string()).expect("applied");
    namespace
        .apply(&restore("copy", "shop", "production-db", "copy").to_string())
        .expect("applied");
    let run = namespace.succeeded::<PgBackup>("shop").await;
    namespace.succeeded::<PgRestore>("copy").await;
    assert_eq!(production.contents("copy"), production.contents("shop"));

    let artifact = run.status.and_then(|status| status.artifact).expect("an artefact");
    let snapshot = artifact.snapshot;
    assert_eq!(
        artifact.location,
        format!("volume://backups/shop/nightly/snapshots/{snapshot}")
    );
    let objects = ["globals.sql", "manifest.json", "shop/archive.dump", "shop/pre-data.sql"]
        .map(|object| format!("shop/nightly/snapshots/{snapshot}/{object}"));
    let volume = namespace.open_volume("backups").await;
    let parted = || -> (Vec<String>, Vec<String>) {
        let snapshots = "shop/nightly/snapshots/";
        volume.files().into_iter().partition(|file| file.starts_with(snapshots))
    };
    let (of_backup, shared) = parted();
    assert_eq!(of_backup, objects);
    assert!(shared.contains(&"shop/nightly/pgrescue.json".to_owned()), "{shared:?}");
    assert!(
        shared.iter().any(|file| file.starts_with("shop/nightly/packs/")),
        "{shared:?}"
    );
    namespace.delete::<PgBackup>("shop");
    namespace.gone::<PgBackup>("shop").await;
    // What backups share goes with a prune.
    assert_eq!(parted(), (Vec::new(), shared));
}
