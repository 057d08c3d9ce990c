//! The controllers as a whole, the election, and readiness.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::cluster::{Backup, Cluster, context, settings};
use crate::operator::leader::Leadership;
use crate::operator::{controllers, health};

super::scenarios!(
    progress_alone_calls_for_no_reconciliation,
    a_replica_is_elected_and_gives_the_lease_back,
    readiness_names_a_crd_that_is_missing,
);

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn progress_alone_calls_for_no_reconciliation(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    cluster.reconcile::<Backup>("orders").await;
    let server = cluster.server.clone();
    let before = server.count("get", "pgbackups");
    let object = server.get("shop/pgbackups/orders").unwrap();
    let modified = |version: u64, generation: i64| {
        let mut metadata = object["metadata"].clone();
        metadata["resourceVersion"] = json!(version.to_string());
        metadata["generation"] = json!(generation);
        json!({"type": "MODIFIED", "object": {
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        }})
    };
    let progress = (1000..1030).map(|version| modified(version, 1));
    server.watch_events("pgbackups", progress.chain([modified(2000, 2)]).collect());

    let stop = CancellationToken::new();
    let (task_stop, task_server) = (stop.clone(), server.clone());
    let task = tokio::spawn(async move {
        controllers::run(&[None], |waiting| context(&task_server, waiting), &task_stop).await;
    });
    // Once for the list, once for the new generation; thirty reports of progress came between.
    until("two reconciliations", || server.count("get", "pgbackups") == before + 2).await;
    for resource in ["pgbackups", "pgrestores", "jobs", "pods"] {
        until("every watch", || server.count("watch", resource) > 0).await;
    }
    stop.cancel();
    task.await.unwrap();
    assert_eq!(server.count("get", "pgbackups"), before + 2);
}

async fn a_replica_is_elected_and_gives_the_lease_back(cluster: &mut Cluster) {
    let stop = CancellationToken::new();
    let mut leadership = Leadership::stand(&cluster.context.client, &settings(), &stop)
        .await
        .unwrap();
    assert!(leadership.until(true).await);
    let lease = cluster.server.get("default/leases/pgrescue-operator").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], settings().identity);
    leadership.resign().await;
    let lease = cluster.server.get("default/leases/pgrescue-operator").unwrap();
    assert!(lease["spec"]["holderIdentity"].is_null());
}

async fn readiness_names_a_crd_that_is_missing(cluster: &mut Cluster) {
    let client = &cluster.context.client;
    let crd = |name: &str| {
        cluster
            .server
            .put("customresourcedefinitions", json!({"metadata": {"name": name}}))
    };
    assert!(
        health::unready(client)
            .await
            .unwrap()
            .contains("pgbackups.pgrescue.dev")
    );
    crd("pgbackups");
    let why = health::unready(client).await.unwrap();
    assert!(
        why.contains("pgrestores.pgrescue.dev") && !why.contains("pgbackups"),
        "{why}"
    );
    crd("pgrestores");
    assert_eq!(health::unready(client).await, None);
}
