//! Restores, which wait for their backups.

use serde_json::{Value, json};

use super::cluster::{Backup, Cluster, NAMESPACE, Restore, assert_is, condition, wrong_password};
use crate::api::conditions::STALLED;
use crate::api::reasons;
use crate::api::status::{FollowUpPurpose, Phase};
use crate::plan::report::Outcome;
use crate::plan::{Plan, Refusal};

super::scenarios!(
    a_restore_waits_for_a_backup_that_is_not_there,
    a_restore_waits_for_its_backup_and_is_woken_by_its_end,
    a_failed_backup_fails_its_restores,
    a_request_that_the_target_remembers_is_already_applied,
    a_restore_whose_job_was_made_goes_on_although_its_backup_is_gone,
    a_restore_that_failed_is_cleaned_up_after_on_its_target,
    the_identity_is_mounted_into_the_pods_of_restores_alone,
);

async fn a_restore_waits_for_a_backup_that_is_not_there(cluster: &mut Cluster) {
    cluster.restore("copy", "orders");
    let status = cluster.reconcile::<Restore>("copy").await;
    assert_is(&status, Phase::Waiting, reasons::BACKUP_NOT_FOUND);
    assert_eq!(condition(&status, STALLED), ("False".into(), 1));
    assert!(status.conditions[0].message.contains("There is no PgBackup \"orders\""));
    assert_eq!(cluster.server.names("shop/jobs"), [""; 0]);
    cluster.reconcile::<Restore>("copy").await;
    assert_eq!(cluster.server.names("shop/events").len(), 1, "waiting is told once");
}

async fn a_restore_waits_for_its_backup_and_is_woken_by_its_end(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    cluster.restore("copy", "orders");
    let job = cluster.started::<Backup>("orders").await;
    let status = cluster.reconcile::<Restore>("copy").await;
    assert_is(&status, Phase::Waiting, reasons::BACKUP_NOT_FINISHED);
    cluster.succeed(&job, Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    assert_eq!(cluster.woken.try_recv().unwrap(), (NAMESPACE.into(), "copy".into()));
    let job = cluster.started::<Restore>("copy").await;
    let config_map = cluster.server.get(&format!("{NAMESPACE}/configmaps/{job}")).unwrap();
    let plan = serde_json::from_str(config_map["data"]["plan.json"].as_str().unwrap()).unwrap();
    let Plan::Restore(plan) = plan else { panic!("{plan:?}") };
    assert_eq!(plan.source.snapshot.as_deref(), Some("snapshot"));
    assert_eq!(plan.source.manifest_sha256.as_deref(), Some("abc"));
    cluster.succeed(&job, Outcome::Succeeded);
    assert_is(
        &cluster.reconcile::<Restore>("copy").await,
        Phase::Succeeded,
        reasons::SUCCEEDED,
    );
}

async fn a_failed_backup_fails_its_restores(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.fail(&job, wrong_password());
    cluster.reconcile::<Backup>("orders").await;
    cluster.restore("copy", "orders");
    assert_is(
        &cluster.reconcile::<Restore>("copy").await,
        Phase::Failed,
        reasons::BACKUP_FAILED,
    );
    assert_eq!(cluster.server.names("shop/jobs"), [job]);
}

async fn a_request_that_the_target_remembers_is_already_applied(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.succeed(&job, Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    cluster.restore("copy", "orders");
    let job = cluster.started::<Restore>("copy").await;
    cluster.succeed(&job, Outcome::AlreadyApplied);
    assert_is(
        &cluster.reconcile::<Restore>("copy").await,
        Phase::AlreadyApplied,
        reasons::ALREADY_APPLIED,
    );
}

async fn a_restore_whose_job_was_made_goes_on_although_its_backup_is_gone(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.succeed(&job, Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    cluster.restore("copy", "orders");
    let job = cluster.started::<Restore>("copy").await;
    // The operator stopped before it recorded the Job's UID, and meanwhile the backup was deleted.
    cluster.server.change("shop/pgrestores/copy", |object| {
        object["status"]["job"]["uid"] = Value::Null;
    });
    cluster.server.delete("shop/pgbackups/orders");
    let after = Cluster::of(cluster.server.clone());
    let status = after.reconcile::<Restore>("copy").await;
    assert_is(&status, Phase::Pending, reasons::PROGRESSING);
    after.succeed(&job, Outcome::Succeeded);
    assert_is(
        &after.reconcile::<Restore>("copy").await,
        Phase::Succeeded,
        reasons::SUCCEEDED,
    );
}

async fn a_restore_that_failed_is_cleaned_up_after_on_its_target(cluster: &mut Cluster) {
    cluster.backup("orders", json!({}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.succeed(&job, Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    cluster.restore("copy", "orders");
    let job = cluster.started::<Restore>("copy").await;
    cluster.fail(
        &job,
        Refusal::temporary(reasons::CONNECTION_LOST, "The connection was cut."),
    );
    let status = cluster.reconcile::<Restore>("copy").await;
    let follow_up = status.follow_up.unwrap();
    assert_eq!(follow_up.purpose, FollowUpPurpose::CleanUp);
    let job = follow_up.job.name;
    let config_map = cluster.server.get(&format!("{NAMESPACE}/configmaps/{job}")).unwrap();
    let plan = serde_json::from_str(config_map["data"]["plan.json"].as_str().unwrap()).unwrap();
    let Plan::CleanUpRestore(plan) = plan else {
        panic!("{plan:?}")
    };
    assert_eq!(plan.database.as_deref(), Some("orders_copy"));
    assert_eq!(plan.target.secret.as_deref(), Some("staging-db"));
    cluster.succeed(&job, Outcome::Succeeded);
    let status = cluster.reconcile::<Restore>("copy").await;
    assert_is(&status, Phase::Failed, reasons::CONNECTION_LOST);
    assert_eq!(status.failure.unwrap().message, "The connection was cut. All is well.");
}

/// Names of the Secrets that the pods of a Job mount.
fn mounted_secrets(cluster: &Cluster, job: &str) -> Vec<String> {
    let job = cluster.server.get(&format!("{NAMESPACE}/jobs/{job}")).unwrap();
    let pod = &job["spec"]["template"]["spec"];
    assert!(pod["initContainers"].is_null() && pod["containers"][0]["envFrom"].is_null());
    let volumes = pod["volumes"].as_array().unwrap().iter();
    volumes
        .filter_map(|volume| volume["secret"]["secretName"].as_str())
        .map(str::to_owned)
        .collect()
}

async fn the_identity_is_mounted_into_the_pods_of_restores_alone(cluster: &mut Cluster) {
    let recipients = ["age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"];
    let encryption =
        json!({"storage": {"encryption": {"age": {"recipients": recipients}}}, "deletionPolicy": "Delete"});
    cluster.backup("orders", encryption);
    let job = cluster.started::<Backup>("orders").await;
    assert_eq!(mounted_secrets(cluster, &job), ["production-db", "s3"]);
    cluster.succeed(&job, Outcome::Succeeded);
    cluster.reconcile::<Backup>("orders").await;
    cluster.restore("copy", "orders");
    cluster.server.change("shop/pgrestores/copy", |object| {
        object["spec"]["source"]["decryption"] =
            json!({"age": {"identitySecretRef": {"name": "backup-identity", "key": "identity.txt"}}});
    });
    let job = cluster.started::<Restore>("copy").await;
    assert_eq!(mounted_secrets(cluster, &job), ["backup-identity", "s3", "staging-db"]);
    cluster.fail(
        &job,
        Refusal::temporary(reasons::CONNECTION_LOST, "The connection was cut."),
    );
    let clean_up = cluster.reconcile::<Restore>("copy").await.follow_up.unwrap().job.name;
    assert_eq!(mounted_secrets(cluster, &clean_up), ["staging-db"]);
    cluster.server.delete("shop/pgbackups/orders");
    let deletion = cluster.reconcile::<Backup>("orders").await.follow_up.unwrap().job.name;
    assert_eq!(mounted_secrets(cluster, &deletion), ["s3"]);
}
