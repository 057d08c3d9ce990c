//! From a new resource to a running Job.

use serde_json::{Value, json};

use super::api_server::status;
use super::cluster::{Backup, Cluster, NAMESPACE, assert_is, condition, wrong_password};
use crate::api::conditions::{READY, RECONCILING, STALLED, SUCCEEDED};
use crate::api::reasons;
use crate::api::status::Phase;
use crate::operator::error::Error;
use crate::plan::Plan;
use crate::plan::report::Outcome;

super::scenarios!(
    a_backup_runs_to_its_success,
    a_new_resource_is_in_progress_for_kstatus_from_the_first_reconciliation,
    the_job_is_what_the_cluster_and_the_agent_need,
    a_dry_run_is_followed_by_the_run,
    dry_run_false_during_the_dry_run_waits_for_its_end,
    a_spec_that_cannot_be_planned_fails_without_a_job,
    a_job_that_kubernetes_does_not_take_fails_the_run,
    a_job_that_a_quota_refuses_is_tried_again,
    nothing_is_made_in_a_namespace_that_is_being_deleted,
    a_job_of_that_name_that_is_not_ours_is_not_adopted,
    a_restart_between_name_and_uid_makes_no_second_job,
    a_write_that_crosses_another_is_refused_and_tried_again,
);

async fn a_backup_runs_to_its_success(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    assert_is(
        &cluster.status::<Backup>("orders"),
        Phase::Pending,
        reasons::PROGRESSING,
    );

    cluster.pod(
        &job,
        "orders-1",
        &json!({"running": {"startedAt": "2026-01-02T03:05:00Z"}}),
    );
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Running, reasons::PROGRESSING);
    assert!(status.job.unwrap().uid.is_some() && status.start_time.is_some());

    cluster.succeed(&job, Outcome::Succeeded);
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Succeeded, reasons::SUCCEEDED);
    assert_eq!(condition(&status, READY), ("True".into(), 1));
    assert_eq!(condition(&status, SUCCEEDED), ("True".into(), 1));
    assert_eq!(status.plan_hash.as_deref(), Some("hash"));
    let object = cluster.server.get("shop/pgbackups/orders").unwrap();
    assert_eq!(object["status"]["artifact"]["snapshot"], "snapshot");
    assert_eq!(object["spec"].get("status"), None);

    // Only then the pods are let go, and the Job may remove itself.
    let job = cluster.server.get(&format!("{NAMESPACE}/jobs/{job}")).unwrap();
    assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 86_400);
    for pod in cluster.server.names("shop/pods") {
        let pod = cluster.server.get(&format!("{NAMESPACE}/pods/{pod}")).unwrap();
        assert_eq!(pod["metadata"]["finalizers"], json!([]));
    }
    let before = cluster.server.calls().len();
    cluster.reconcile::<Backup>("orders").await;
    assert_eq!(cluster.server.calls().len(), before, "nothing is left to do");
}

async fn a_new_resource_is_in_progress_for_kstatus_from_the_first_reconciliation(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    cluster.try_reconcile::<Backup>("orders").await.unwrap();
    let status = cluster.status::<Backup>("orders");
    assert_eq!(status.observed_generation, Some(1));
    for (kind, value) in [
        (READY, "False"),
        (RECONCILING, "True"),
        (STALLED, "False"),
        (SUCCEEDED, "Unknown"),
    ] {
        assert_eq!(condition(&status, kind), (value.into(), 1), "{kind}");
    }
    let events = cluster.server.names("shop/events");
    assert_eq!(events.len(), 1, "one Event for the transition: {events:?}");
}

async fn the_job_is_what_the_cluster_and_the_agent_need(cluster: &mut Cluster) {
    let more = json!({
        "connection": {"tls": {
            "rootCertificate": {"configMapKeyRef": {"name": "ca", "key": "ca.crt"}},
            "clientCertificate": {"secretKeyRef": {"name": "pg-client", "key": "tls.crt"}},
            "clientKey": {"secretKeyRef": {"name": "pg-client", "key": "tls.key"}},
        }},
        "job": {
            "labels": {"team": "shop", "argocd.argoproj.io/instance": "shop"},
            "deadlineSeconds": 600, "resources": {"limits": {"memory": "256Mi"}},
        },
        "logLevel": "Debug",
    });
    cluster.backup("orders", more);
    let job = cluster.started::<Backup>("orders").await;
    let stored = |collection: &str| cluster.server.get(&format!("{NAMESPACE}/{collection}/{job}")).unwrap();
    let config_map = stored("configmaps");
    assert_eq!(config_map["immutable"], true);
    let plan: Plan = serde_json::from_str(config_map["data"]["plan.json"].as_str().unwrap()).unwrap();
    assert_eq!(plan.run().deadline_seconds, Some(600));
    insta::assert_yaml_snapshot!("job", stored("jobs"));
    let binding = cluster.server.get("shop/rolebindings/pgrescue-agent-default").unwrap();
    assert_eq!(
        binding["subjects"],
        json!([{"kind": "ServiceAccount", "name": "default", "namespace": "shop"}])
    );
}

async fn a_dry_run_is_followed_by_the_run(cluster: &mut Cluster) {
    cluster.backup("orders", json!({"dryRun": true}));
    let dry = cluster.started::<Backup>("orders").await;
    cluster.succeed(&dry, Outcome::Planned);
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Planned, reasons::PLANNED);
    assert_eq!(condition(&status, READY), ("True".into(), 1));
    assert_eq!(condition(&status, SUCCEEDED), ("Unknown".into(), 1));

    cluster.change_spec::<Backup>("orders", "dryRun", json!(false));
    let job = cluster.started::<Backup>("orders").await;
    assert_ne!(job, dry);
    assert_is(
        &cluster.status::<Backup>("orders"),
        Phase::Pending,
        reasons::PROGRESSING,
    );
    cluster.succeed(&job, Outcome::Succeeded);
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_eq!(condition(&status, SUCCEEDED), ("True".into(), 2));
}

async fn dry_run_false_during_the_dry_run_waits_for_its_end(cluster: &mut Cluster) {
    cluster.backup("orders", json!({"dryRun": true}));
    let dry = cluster.started::<Backup>("orders").await;
    cluster.change_spec::<Backup>("orders", "dryRun", json!(false));
    assert_eq!(cluster.started::<Backup>("orders").await, dry);
    cluster.succeed(&dry, Outcome::Planned);
    let job = cluster.started::<Backup>("orders").await;
    assert_ne!(job, dry);
    assert_eq!(cluster.server.names("shop/jobs").len(), 2);
}

async fn a_spec_that_cannot_be_planned_fails_without_a_job(cluster: &mut Cluster) {
    cluster.backup(
        "orders",
        json!({"storage": {"s3": null, "folder": {"path": "/backups"}}}),
    );
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Failed, reasons::INVALID_SPEC);
    assert_eq!(condition(&status, STALLED), ("True".into(), 1));
    assert_eq!(cluster.server.names("shop/jobs"), [""; 0]);
}

async fn a_job_that_kubernetes_does_not_take_fails_the_run(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    cluster.server.refuse(
        "create",
        "jobs",
        Some(status(422, "Invalid", "spec.template: a bad label")),
    );
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Failed, reasons::INVALID_SPEC);
    assert!(status.failure.unwrap().message.contains("a bad label"));
}

async fn a_job_that_a_quota_refuses_is_tried_again(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    cluster
        .server
        .refuse("create", "jobs", Some(status(403, "Forbidden", "exceeded quota: jobs")));
    cluster.try_reconcile::<Backup>("orders").await.unwrap_err();
    let status = cluster.status::<Backup>("orders");
    assert_is(&status, Phase::Pending, reasons::PROGRESSING);
    assert!(status.conditions[0].message.contains("exceeded quota"));
    cluster.server.refuse("create", "jobs", None);
    cluster.started::<Backup>("orders").await;
    assert_eq!(cluster.server.names("shop/jobs").len(), 1);
}

async fn nothing_is_made_in_a_namespace_that_is_being_deleted(cluster: &mut Cluster) {
    let mut refusal = status(403, "Forbidden", "namespace shop is being terminated");
    refusal["details"] = json!({"causes": [{"reason": "NamespaceTerminating"}]});
    for resource in ["jobs", "configmaps", "rolebindings", "events"] {
        cluster.server.refuse("create", resource, Some(refusal.clone()));
    }
    cluster.backup("orders", json!({}));
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_eq!(status.phase, Some(Phase::Pending));
}

async fn a_job_of_that_name_that_is_not_ours_is_not_adopted(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    let uid = cluster.server.get("shop/pgbackups/orders").unwrap()["metadata"]["uid"].clone();
    let job = crate::operator::names::job("orders", uid.as_str().unwrap(), false);
    cluster.server.put(
        "shop/jobs",
        json!({"metadata": {"name": job}, "spec": {"template": {}}}),
    );
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Failed, reasons::INTERNAL);
}

async fn a_restart_between_name_and_uid_makes_no_second_job(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    let uid = cluster.status::<Backup>("orders").job.unwrap().uid;
    cluster.server.change("shop/pgbackups/orders", |object| {
        object["status"]["job"]["uid"] = Value::Null;
    });
    let after = Cluster::of(cluster.server.clone());
    assert_eq!(after.started::<Backup>("orders").await, job);
    assert_eq!(after.status::<Backup>("orders").job.unwrap().uid, uid);
    assert_eq!(after.server.names("shop/jobs").len(), 1);
}

async fn a_write_that_crosses_another_is_refused_and_tried_again(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.fail(&job, wrong_password());
    cluster
        .server
        .refuse("patch", "pgbackups/status", Some(status(409, "Conflict", "modified")));
    let error = cluster.try_reconcile::<Backup>("orders").await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    let kept = cluster.server.get(&format!("{NAMESPACE}/pods/{job}-aaaaa")).unwrap();
    assert_ne!(
        kept["metadata"]["finalizers"],
        json!([]),
        "the report is kept until the outcome is recorded"
    );
    cluster.server.refuse("patch", "pgbackups/status", None);
    assert_is(
        &cluster.reconcile::<Backup>("orders").await,
        Phase::Failed,
        reasons::AUTHENTICATION_FAILED,
    );
}
