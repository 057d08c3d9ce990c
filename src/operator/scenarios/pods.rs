//! Pods that are deleted while their report is kept.

use serde_json::{Value, json};

use super::cluster::{Backup, Cluster, terminated, wrong_password};
use crate::operator::release::release_if_unneeded;
use crate::plan::report::{Outcome, Report};

super::scenarios!(
    a_deleted_pod_that_failed_is_let_go_while_the_run_goes_on,
    a_deleted_pod_that_succeeded_is_kept_until_the_outcome_is_recorded,
    a_deleted_pod_that_runs_is_kept_until_it_ended,
    a_deleted_pod_that_ended_is_kept_while_its_run_is_being_deleted,
    the_pods_of_a_run_that_is_gone_are_let_go,
);

async fn run_with_pod(cluster: &Cluster, state: &Value) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.pod(&job, "orders-1", state);
    cluster.server.delete("shop/pods/orders-1");
}

/// What the operator does when it sees that a pod is being deleted; says whether the pod is gone then.
async fn is_released(cluster: &Cluster) -> bool {
    let pod = cluster.server.get("shop/pods/orders-1").unwrap();
    let metadata = serde_json::from_value(pod["metadata"].clone()).unwrap();
    release_if_unneeded(&cluster.context.client, &metadata).await.unwrap();
    cluster.server.get("shop/pods/orders-1").is_none()
}

async fn a_deleted_pod_that_failed_is_let_go_while_the_run_goes_on(cluster: &mut Cluster) {
    run_with_pod(cluster, &terminated(&Report::failed(wrong_password(), None, None))).await;
    assert!(is_released(cluster).await, "it must not hold up a drained node");
}

async fn a_deleted_pod_that_succeeded_is_kept_until_the_outcome_is_recorded(cluster: &mut Cluster) {
    let report = Report {
        outcome: Outcome::Succeeded,
        message: "Done.".into(),
        plan_hash: None,
        artifact: None,
        failure: None,
    };
    run_with_pod(cluster, &terminated(&report)).await;
    assert!(!is_released(cluster).await);
    cluster.reconcile::<Backup>("orders").await;
    assert!(cluster.server.get("shop/pods/orders-1").is_none());
}

async fn a_deleted_pod_that_runs_is_kept_until_it_ended(cluster: &mut Cluster) {
    run_with_pod(cluster, &json!({"running": {}})).await;
    assert!(!is_released(cluster).await);
}

async fn a_deleted_pod_that_ended_is_kept_while_its_run_is_being_deleted(cluster: &mut Cluster) {
    run_with_pod(cluster, &terminated(&Report::failed(wrong_password(), None, None))).await;
    cluster.server.delete("shop/pgbackups/orders");
    assert!(
        !is_released(cluster).await,
        "its report says that nothing is left behind"
    );
    cluster.reconcile::<Backup>("orders").await;
    assert!(cluster.server.get("shop/pods/orders-1").is_none());
}

async fn the_pods_of_a_run_that_is_gone_are_let_go(cluster: &mut Cluster) {
    run_with_pod(cluster, &json!({"running": {}})).await;
    cluster.server.change("shop/pgbackups/orders", |object| {
        object["metadata"]["finalizers"] = json!([]);
    });
    cluster.server.delete("shop/pgbackups/orders");
    assert!(is_released(cluster).await, "nothing may hold the namespace");
}
