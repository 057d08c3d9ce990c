//! Deletion with `deletionPolicy: Delete`, which takes the artefact along.

use serde_json::{Value, json};

use super::cluster::{Backup, Cluster, NAMESPACE, wrong_password};
use crate::api::status::{FollowUpPurpose, Phase};
use crate::operator::names::{ARTIFACT_FINALIZER, UNFINISHED_FINALIZER};
use crate::plan::Plan;
use crate::plan::report::Outcome;

super::scenarios!(
    a_finalizer_follows_the_deletion_policy_and_the_run,
    the_artefact_is_deleted_by_a_job_that_outlives_the_resource,
    a_run_under_way_is_stopped_before_its_artefact_is_deleted,
    an_artefact_that_cannot_be_deleted_is_kept_and_the_resource_goes,
    a_deletion_that_takes_too_long_keeps_the_artefact,
    a_namespace_that_is_being_deleted_releases_at_once,
    a_resource_that_never_ran_goes_at_once,
);

fn finalizers(cluster: &Cluster) -> Value {
    cluster.server.get("shop/pgbackups/orders").unwrap()["metadata"]["finalizers"].clone()
}

async fn finished(cluster: &Cluster) -> String {
    cluster.backup("orders", json!({"deletionPolicy": "Delete"}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.succeed(&job, Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    job
}

/// The Job that deletes the artefact.
fn deletion(cluster: &Cluster) -> String {
    let status = cluster.status::<Backup>("orders");
    assert_eq!(status.phase, Some(Phase::Deleting));
    let follow_up = status.follow_up.unwrap();
    assert_eq!(follow_up.purpose, FollowUpPurpose::Delete);
    follow_up.job.name
}

fn is_gone(cluster: &Cluster) -> bool {
    cluster.server.get("shop/pgbackups/orders").is_none()
}

async fn a_finalizer_follows_the_deletion_policy_and_the_run(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    assert_eq!(finalizers(cluster), json!([UNFINISHED_FINALIZER]));
    cluster.change_spec::<Backup>("orders", "deletionPolicy", json!("Delete"));
    cluster.reconcile::<Backup>("orders").await;
    assert_eq!(finalizers(cluster), json!([ARTIFACT_FINALIZER]));
    cluster.change_spec::<Backup>("orders", "deletionPolicy", json!("Retain"));
    cluster.reconcile::<Backup>("orders").await;
    assert_eq!(finalizers(cluster), json!([UNFINISHED_FINALIZER]));
    cluster.succeed(&job, Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    assert_eq!(finalizers(cluster), json!([]), "none where the artefact stays");
}

async fn the_artefact_is_deleted_by_a_job_that_outlives_the_resource(cluster: &mut Cluster) {
    let job = finished(cluster).await;
    cluster.server.delete("shop/pgbackups/orders");
    cluster.reconcile::<Backup>("orders").await;
    let deletion = deletion(cluster);
    assert_eq!(deletion, format!("{job}-delete"));
    let stored = cluster.server.get(&format!("{NAMESPACE}/jobs/{deletion}")).unwrap();
    assert_eq!(stored["metadata"]["ownerReferences"], Value::Null);
    let config_map = cluster
        .server
        .get(&format!("{NAMESPACE}/configmaps/{deletion}"))
        .unwrap();
    assert_eq!(config_map["metadata"]["ownerReferences"][0]["kind"], "Job");
    let plan = serde_json::from_str(config_map["data"]["plan.json"].as_str().unwrap()).unwrap();
    assert!(matches!(plan, Plan::DeleteArtifact(_)));
    assert!(!is_gone(cluster));
    cluster.succeed(&deletion, Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    assert!(is_gone(cluster));
    let stored = cluster.server.get(&format!("{NAMESPACE}/jobs/{deletion}")).unwrap();
    assert_eq!(stored["spec"]["ttlSecondsAfterFinished"], 86_400);
}

async fn a_run_under_way_is_stopped_before_its_artefact_is_deleted(cluster: &mut Cluster) {
    cluster.backup("orders", json!({"deletionPolicy": "Delete"}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.pod(&job, "orders-1", &json!({"running": {}}));
    cluster.server.delete("shop/pgbackups/orders");
    cluster.reconcile::<Backup>("orders").await;
    let stored = cluster.server.get(&format!("{NAMESPACE}/jobs/{job}")).unwrap();
    assert_eq!(stored["spec"]["suspend"], true);
    assert_eq!(cluster.server.names("shop/jobs").len(), 1, "the agent still runs");
    cluster.server.change("shop/pods/orders-1", |pod| {
        pod["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 12}});
    });
    cluster.reconcile::<Backup>("orders").await;
    cluster.succeed(&deletion(cluster), Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    assert!(is_gone(cluster));
}

async fn an_artefact_that_cannot_be_deleted_is_kept_and_the_resource_goes(cluster: &mut Cluster) {
    finished(cluster).await;
    cluster.server.delete("shop/pgbackups/orders");
    cluster.reconcile::<Backup>("orders").await;
    cluster.fail(&deletion(cluster), wrong_password());
    cluster.reconcile::<Backup>("orders").await;
    assert!(is_gone(cluster));
    assert!(
        cluster
            .context
            .metrics
            .text()
            .unwrap()
            .contains("pgrescue_artifacts_kept_total 1")
    );
}

async fn a_deletion_that_takes_too_long_keeps_the_artefact(cluster: &mut Cluster) {
    finished(cluster).await;
    cluster.server.delete("shop/pgbackups/orders");
    cluster.reconcile::<Backup>("orders").await;
    let deletion = deletion(cluster);
    cluster.server.change("shop/pgbackups/orders", |object| {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    });
    cluster.reconcile::<Backup>("orders").await;
    assert!(is_gone(cluster));
    // It would wait for its Secret, delete after all, and stay for ever: no resource owns it.
    let job = cluster.server.get(&format!("{NAMESPACE}/jobs/{deletion}")).unwrap();
    assert_eq!(job["spec"]["activeDeadlineSeconds"], 1);
    assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 86_400);
    assert!(
        cluster
            .context
            .metrics
            .text()
            .unwrap()
            .contains("pgrescue_artifacts_kept_total 1")
    );
}

async fn a_namespace_that_is_being_deleted_releases_at_once(cluster: &mut Cluster) {
    finished(cluster).await;
    cluster.server.change("namespaces/shop", |namespace| {
        namespace["metadata"]["finalizers"] = json!(["kubernetes"]);
        namespace["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    });
    let jobs = cluster.server.names("shop/jobs");
    cluster.server.delete("shop/pgbackups/orders");
    cluster.reconcile::<Backup>("orders").await;
    assert!(is_gone(cluster));
    assert_eq!(cluster.server.names("shop/jobs"), jobs);
    assert!(
        cluster
            .context
            .metrics
            .text()
            .unwrap()
            .contains("pgrescue_artifacts_kept_total 1")
    );
}

async fn a_resource_that_never_ran_goes_at_once(cluster: &mut Cluster) {
    cluster.backup("orders", json!({"deletionPolicy": "Delete", "dryRun": true}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.succeed(&job, Outcome::Planned);
    cluster.reconcile::<Backup>("orders").await;
    cluster.server.delete("shop/pgbackups/orders");
    cluster.reconcile::<Backup>("orders").await;
    assert!(is_gone(cluster));
}
