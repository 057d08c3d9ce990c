//! Deletion in the middle of a run, which leaves nothing half done behind.

use serde_json::{Value, json};

use super::cluster::{Backup, Cluster, NAMESPACE, Restore, terminated, wrong_password};
use crate::api::status::{FollowUpPurpose, Phase};
use crate::operator::names::UNFINISHED_FINALIZER;
use crate::plan::report::{Outcome, PREFLIGHT, Report};
use crate::plan::{Plan, Refusal};

super::scenarios!(
    a_restore_is_held_while_it_is_under_way_and_no_longer,
    a_restore_that_has_not_begun_goes_at_once,
    a_restore_under_way_is_stopped_and_cleaned_up_after_before_it_goes,
    a_backup_under_way_is_stopped_and_cleaned_up_after_before_it_goes,
    an_earlier_attempt_that_is_gone_is_cleaned_up_after,
    a_run_that_waits_for_its_secret_is_stopped_and_goes,
    a_run_whose_pod_cannot_start_goes_at_once,
    a_job_that_looks_how_a_run_ended_is_stopped_too,
    a_clean_up_that_fails_says_what_may_be_left_and_the_resource_goes,
    a_run_in_a_namespace_that_is_being_deleted_is_released_at_once,
);

const COPY: &str = "shop/pgrestores/copy";

async fn backed_up(cluster: &Cluster) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.succeed(&job, Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    cluster.restore("copy", "orders");
}

/// Begins a restore whose agent's container is in a state, and deletes its resource.
async fn deleted_with_agent(cluster: &Cluster, state: &Value) -> String {
    backed_up(cluster).await;
    let job = cluster.started::<Restore>("copy").await;
    cluster.pod(&job, "copy-1", state);
    cluster.reconcile::<Restore>("copy").await;
    cluster.server.delete(COPY);
    cluster.reconcile::<Restore>("copy").await;
    job
}

fn finalizers(cluster: &Cluster) -> Value {
    cluster.server.get(COPY).unwrap()["metadata"]["finalizers"].clone()
}

fn is_gone(cluster: &Cluster) -> bool {
    cluster.server.get(COPY).is_none()
}

fn is_suspended(cluster: &Cluster, job: &str) -> bool {
    cluster.server.get(&format!("{NAMESPACE}/jobs/{job}")).unwrap()["spec"]["suspend"] == true
}

fn agent_ended(cluster: &Cluster, pod: &str, state: &Value) {
    cluster.server.change(&format!("{NAMESPACE}/pods/{pod}"), |pod| {
        pod["status"]["containerStatuses"][0]["state"] = state.clone();
    });
}

fn stopped(step: Option<&str>) -> Value {
    terminated(&Report::failed(Refusal::interrupted(), step.map(str::to_owned), None))
}

fn killed() -> Value {
    json!({"terminated": {"exitCode": 137}})
}

fn plan(cluster: &Cluster, job: &str) -> Plan {
    let config_map = cluster.server.get(&format!("{NAMESPACE}/configmaps/{job}")).unwrap();
    serde_json::from_str(config_map["data"]["plan.json"].as_str().unwrap()).unwrap()
}

/// The Job that cleans up after the restore.
fn clean_up(cluster: &Cluster) -> String {
    let status = cluster.status::<Restore>("copy");
    assert_eq!(status.phase, Some(Phase::Deleting), "{status:?}");
    let follow_up = status.follow_up.unwrap();
    assert_eq!(follow_up.purpose, FollowUpPurpose::CleanUp);
    follow_up.job.name
}

fn notes(cluster: &Cluster, r#type: &str) -> Vec<String> {
    let names = cluster.server.names("shop/events");
    let events = names
        .iter()
        .map(|name| cluster.server.get(&format!("shop/events/{name}")).unwrap());
    events
        .filter(|event| event["type"] == r#type)
        .map(|event| event["note"].as_str().unwrap().to_owned())
        .collect()
}

async fn a_restore_is_held_while_it_is_under_way_and_no_longer(cluster: &mut Cluster) {
    backed_up(cluster).await;
    let job = cluster.started::<Restore>("copy").await;
    assert_eq!(finalizers(cluster), json!([UNFINISHED_FINALIZER]));
    cluster.succeed(&job, Outcome::Succeeded);
    cluster.reconcile::<Restore>("copy").await;
    assert_eq!(finalizers(cluster), json!([]));
}

async fn a_restore_that_has_not_begun_goes_at_once(cluster: &mut Cluster) {
    cluster.restore("copy", "orders");
    cluster.reconcile::<Restore>("copy").await;
    assert_eq!(finalizers(cluster), Value::Null);
}

async fn a_restore_under_way_is_stopped_and_cleaned_up_after_before_it_goes(cluster: &mut Cluster) {
    let job = deleted_with_agent(cluster, &json!({"running": {}})).await;
    assert!(is_suspended(cluster, &job));
    assert_eq!(
        cluster.status::<Restore>("copy").follow_up,
        None,
        "the agent still runs"
    );
    agent_ended(cluster, "copy-1", &stopped(Some("data")));
    cluster.reconcile::<Restore>("copy").await;
    let clean_up = clean_up(cluster);
    assert!(matches!(plan(cluster, &clean_up), Plan::CleanUpRestore(_)));
    let stored = cluster.server.get(&format!("{NAMESPACE}/jobs/{clean_up}")).unwrap();
    assert_eq!(
        stored["metadata"]["ownerReferences"],
        Value::Null,
        "it outlives the resource"
    );
    assert!(!is_gone(cluster));
    cluster.succeed(&clean_up, Outcome::Succeeded);
    cluster.reconcile::<Restore>("copy").await;
    assert!(is_gone(cluster));
    assert_eq!(notes(cluster, "Warning"), [""; 0]);
    // What was done is told although an Event of the same reason was.
    let told = notes(cluster, "Normal");
    for note in ["waiting for the agent to stop", "All is well."] {
        assert!(told.iter().any(|told| told == note), "{told:?}");
    }
}

async fn a_backup_under_way_is_stopped_and_cleaned_up_after_before_it_goes(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.pod(&job, "orders-1", &killed());
    cluster.server.delete("shop/pgbackups/orders");
    let status = cluster.reconcile::<Backup>("orders").await;
    assert!(is_suspended(cluster, &job));
    let clean_up = status.follow_up.unwrap().job.name;
    assert!(matches!(plan(cluster, &clean_up), Plan::CleanUpBackup(_)));
    cluster.succeed(&clean_up, Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    assert!(cluster.server.get("shop/pgbackups/orders").is_none());
}

async fn an_earlier_attempt_that_is_gone_is_cleaned_up_after(cluster: &mut Cluster) {
    backed_up(cluster).await;
    let job = cluster.started::<Restore>("copy").await;
    // Its node was lost: the pod is gone, and did not count as failed.
    cluster.server.change(COPY, |object| {
        object["status"]["steps"] = json!([{"name": "data", "state": "Running"}]);
    });
    cluster.pod(&job, "copy-2", &json!({"waiting": {}}));
    cluster.server.delete(COPY);
    cluster.reconcile::<Restore>("copy").await;
    agent_ended(cluster, "copy-2", &killed());
    cluster.reconcile::<Restore>("copy").await;
    clean_up(cluster);
}

async fn a_run_that_waits_for_its_secret_is_stopped_and_goes(cluster: &mut Cluster) {
    for step in [None, Some(PREFLIGHT)] {
        let job = deleted_with_agent(cluster, &json!({"running": {}})).await;
        assert!(is_suspended(cluster, &job));
        agent_ended(cluster, "copy-1", &stopped(step));
        cluster.reconcile::<Restore>("copy").await;
        assert!(is_gone(cluster), "{step:?}");
        assert!(
            cluster
                .server
                .names("shop/jobs")
                .iter()
                .all(|job| !job.ends_with("cleanup"))
        );
        cluster.server.delete("shop/pgbackups/orders");
    }
}

async fn a_run_whose_pod_cannot_start_goes_at_once(cluster: &mut Cluster) {
    deleted_with_agent(cluster, &json!({"waiting": {"reason": "ErrImagePull"}})).await;
    assert!(is_gone(cluster), "nobody could clean up in such a pod either");
}

async fn a_job_that_looks_how_a_run_ended_is_stopped_too(cluster: &mut Cluster) {
    backed_up(cluster).await;
    let job = cluster.started::<Restore>("copy").await;
    cluster.end_job(&job, "Complete", "CompletionsReached");
    let check = cluster.reconcile::<Restore>("copy").await.follow_up.unwrap();
    assert_eq!(check.purpose, FollowUpPurpose::Check);
    cluster.pod(&check.job.name, "check-1", &json!({"running": {}}));
    cluster.server.delete(COPY);
    let status = cluster.reconcile::<Restore>("copy").await;
    assert!(is_suspended(cluster, &check.job.name));
    assert_eq!(status.follow_up.unwrap().purpose, FollowUpPurpose::Check);
    agent_ended(cluster, "check-1", &stopped(Some("data")));
    cluster.reconcile::<Restore>("copy").await;
    let pod = cluster.server.get("shop/pods/check-1").unwrap();
    assert_eq!(pod["metadata"]["finalizers"], json!([]));
    clean_up(cluster);
}

async fn a_clean_up_that_fails_says_what_may_be_left_and_the_resource_goes(cluster: &mut Cluster) {
    deleted_with_agent(cluster, &killed()).await;
    cluster.fail(&clean_up(cluster), wrong_password());
    cluster.reconcile::<Restore>("copy").await;
    assert!(is_gone(cluster));
    assert_eq!(
        notes(cluster, "Warning"),
        [
            "What the unfinished restore had made may be left on the target: The password is wrong. Databases and \
             roles that it had made say so in their comments; drop them by hand."
        ]
    );
    assert!(
        !cluster
            .context
            .metrics
            .text()
            .unwrap()
            .contains("artifacts_kept_total 1")
    );
}

async fn a_run_in_a_namespace_that_is_being_deleted_is_released_at_once(cluster: &mut Cluster) {
    backed_up(cluster).await;
    let job = cluster.started::<Restore>("copy").await;
    cluster.pod(&job, "copy-1", &json!({"running": {}}));
    cluster.server.change("namespaces/shop", |namespace| {
        namespace["metadata"]["finalizers"] = json!(["kubernetes"]);
        namespace["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    });
    cluster.server.delete(COPY);
    cluster.reconcile::<Restore>("copy").await;
    assert!(is_gone(cluster));
    let pod = cluster.server.get("shop/pods/copy-1").unwrap();
    assert_eq!(
        pod["metadata"]["finalizers"],
        json!([]),
        "nothing may hold the namespace"
    );
    assert_eq!(
        cluster.server.names("shop/jobs").len(),
        2,
        "that of the backup and that of the restore"
    );
}
