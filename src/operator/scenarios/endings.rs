//! How Jobs end, and what that means for the run.

use serde_json::{Value, json};

use super::cluster::{Backup, Cluster, NAMESPACE, assert_is, terminated, wrong_password};
use crate::api::reasons;
use crate::api::status::{FollowUpPurpose, Phase, RunStatus};
use crate::plan::report::{Outcome, Report};
use crate::plan::{Plan, Refusal};

super::scenarios!(
    a_refusal_for_good_fails_the_run_and_needs_no_clean_up,
    an_agent_that_was_killed_for_its_memory_is_told_apart_and_cleaned_up_after,
    a_clean_up_that_fails_is_told_with_the_failure,
    a_failure_after_retries_is_cleaned_up_after,
    a_phase_does_not_go_back_between_two_attempts,
    what_an_attempt_kept_for_one_that_refused_for_good_is_cleaned_up,
    a_job_that_exceeds_its_deadline_says_so,
    a_report_of_success_stands_although_the_job_failed,
    a_job_that_is_about_to_end_has_not_ended,
    a_job_that_is_gone_is_lost_and_never_made_again,
    a_job_that_is_gone_is_not_lost_while_its_pod_runs,
    a_completed_job_without_report_is_looked_into_by_another_job,
    a_completed_job_without_report_is_never_a_success_unless_confirmed,
    a_dry_run_that_died_leaves_nothing_to_clean_up,
    an_outcome_is_final,
);

async fn begun(cluster: &Cluster) -> String {
    cluster.backup("orders", json!({}));
    cluster.started::<Backup>("orders").await
}

fn killed(reason: &str, exit_code: i32) -> Value {
    json!({"terminated": {"exitCode": exit_code, "reason": reason, "finishedAt": "2026-01-02T04:00:00Z"}})
}

fn warnings(cluster: &Cluster) -> Vec<Value> {
    let names = cluster.server.names("shop/events");
    let events = names
        .iter()
        .map(|name| cluster.server.get(&format!("shop/events/{name}")).unwrap());
    events.filter(|event| event["type"] == "Warning").collect()
}

/// The follow-up Job of the run and its plan.
fn follow_up(cluster: &Cluster, status: &RunStatus, purpose: FollowUpPurpose) -> (String, Plan) {
    let follow_up = status
        .follow_up
        .clone()
        .unwrap_or_else(|| panic!("no follow-up in {status:?}"));
    assert_eq!(follow_up.purpose, purpose);
    let config_map = cluster
        .server
        .get(&format!("{NAMESPACE}/configmaps/{}", follow_up.job.name))
        .unwrap();
    let plan = serde_json::from_str(config_map["data"]["plan.json"].as_str().unwrap()).unwrap();
    (follow_up.job.name, plan)
}

async fn a_refusal_for_good_fails_the_run_and_needs_no_clean_up(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.fail(&job, wrong_password());
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Failed, reasons::AUTHENTICATION_FAILED);
    assert_eq!(
        status.conditions[0].message,
        "The password is wrong. Correct the Secret."
    );
    assert_eq!(status.follow_up, None);
    let warnings = warnings(cluster);
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0]["reason"], reasons::AUTHENTICATION_FAILED);
}

async fn an_agent_that_was_killed_for_its_memory_is_told_apart_and_cleaned_up_after(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.pod(&job, "orders-1", &killed("OOMKilled", 137));
    let status = cluster.reconcile::<Backup>("orders").await;
    assert!(status.conditions[0].message.contains("more memory than its limit"));
    cluster.end_job(&job, "Failed", "BackoffLimitExceeded");
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Running, reasons::PROGRESSING);
    let (clean_up, plan) = follow_up(cluster, &status, FollowUpPurpose::CleanUp);
    assert!(matches!(plan, Plan::CleanUpBackup(_)));
    assert!(
        clean_up.starts_with(&format!("{job}-")),
        "the admission policy goes by the name"
    );
    cluster.succeed(&clean_up, Outcome::Succeeded);
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Failed, reasons::OUT_OF_MEMORY);
    assert!(
        status
            .failure
            .unwrap()
            .message
            .ends_with("than its limit. All is well.")
    );
}

async fn a_clean_up_that_fails_is_told_with_the_failure(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.pod(&job, "orders-1", &killed("Error", 101));
    cluster.end_job(&job, "Failed", "BackoffLimitExceeded");
    let status = cluster.reconcile::<Backup>("orders").await;
    let (clean_up, _) = follow_up(cluster, &status, FollowUpPurpose::CleanUp);
    cluster.fail(&clean_up, wrong_password());
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Failed, reasons::REPORT_MISSING);
    let failure = status.failure.unwrap();
    assert!(
        failure
            .message
            .contains("What it left behind could not be removed: The password is wrong.")
    );
    assert_eq!(failure.hint.as_deref(), Some("Correct the Secret."));
}

async fn a_failure_after_retries_is_cleaned_up_after(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.fail(
        &job,
        Refusal::temporary(reasons::CONNECTION_LOST, "The connection was cut."),
    );
    let status = cluster.reconcile::<Backup>("orders").await;
    let (clean_up, _) = follow_up(cluster, &status, FollowUpPurpose::CleanUp);
    cluster.succeed(&clean_up, Outcome::Succeeded);
    assert_is(
        &cluster.reconcile::<Backup>("orders").await,
        Phase::Failed,
        reasons::CONNECTION_LOST,
    );
}

async fn a_phase_does_not_go_back_between_two_attempts(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.pod(&job, "orders-1", &json!({"running": {}}));
    cluster.reconcile::<Backup>("orders").await;
    let cut = Refusal::temporary(reasons::CONNECTION_LOST, "The connection was cut.");
    cluster.server.change("shop/pods/orders-1", |pod| {
        pod["status"]["containerStatuses"][0]["state"] = terminated(&Report::failed(cut, None, None));
    });
    for _ in 0..2 {
        let status = cluster.reconcile::<Backup>("orders").await;
        assert_is(&status, Phase::Running, reasons::PROGRESSING);
        assert!(
            status.conditions[0].message.contains("The connection was cut."),
            "{status:?}"
        );
        let told = warnings(cluster);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["note"], status.conditions[0].message);
    }
    cluster.pod(&job, "orders-2", &json!({"running": {}}));
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Running, reasons::PROGRESSING);
    assert!(
        status.conditions[0].message.starts_with("attempt 2: the agent runs"),
        "{status:?}"
    );
    assert_eq!(warnings(cluster).len(), 1);
}

async fn what_an_attempt_kept_for_one_that_refused_for_good_is_cleaned_up(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    let cut = Refusal::temporary(reasons::CONNECTION_LOST, "The connection was cut.");
    let mut first = terminated(&Report::failed(cut, None, None));
    first["terminated"]["finishedAt"] = json!("2026-01-02T03:30:00Z");
    cluster.pod(&job, "orders-1", &first);
    cluster.fail(&job, wrong_password());
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Running, reasons::PROGRESSING);
    let (clean_up, _) = follow_up(cluster, &status, FollowUpPurpose::CleanUp);
    cluster.succeed(&clean_up, Outcome::Succeeded);
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Failed, reasons::AUTHENTICATION_FAILED);
}

async fn a_job_that_exceeds_its_deadline_says_so(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    let mut stopped = Refusal::temporary(reasons::INTERRUPTED, "The run was told to stop.");
    stopped.class = crate::api::status::FailureClass::Interrupted;
    cluster.fail(&job, stopped);
    cluster.end_job(&job, "Failed", "DeadlineExceeded");
    let status = cluster.reconcile::<Backup>("orders").await;
    let (clean_up, _) = follow_up(cluster, &status, FollowUpPurpose::CleanUp);
    cluster.succeed(&clean_up, Outcome::Succeeded);
    assert_is(
        &cluster.reconcile::<Backup>("orders").await,
        Phase::Failed,
        reasons::DEADLINE_EXCEEDED,
    );
}

async fn a_report_of_success_stands_although_the_job_failed(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.succeed(&job, Outcome::Succeeded);
    cluster.end_job(&job, "Failed", "DeadlineExceeded");
    assert_is(
        &cluster.reconcile::<Backup>("orders").await,
        Phase::Succeeded,
        reasons::SUCCEEDED,
    );
}

async fn a_job_that_is_about_to_end_has_not_ended(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    for condition in ["SuccessCriteriaMet", "FailureTarget"] {
        cluster.end_job(&job, condition, "Soon");
        assert_is(
            &cluster.reconcile::<Backup>("orders").await,
            Phase::Pending,
            reasons::PROGRESSING,
        );
    }
}

async fn a_job_that_is_gone_is_lost_and_never_made_again(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.server.delete(&format!("{NAMESPACE}/jobs/{job}"));
    let status = cluster.reconcile::<Backup>("orders").await;
    let (clean_up, _) = follow_up(cluster, &status, FollowUpPurpose::CleanUp);
    cluster.succeed(&clean_up, Outcome::Succeeded);
    assert_is(
        &cluster.reconcile::<Backup>("orders").await,
        Phase::Failed,
        reasons::JOB_LOST,
    );
    assert_eq!(cluster.server.names("shop/jobs"), [clean_up]);
}

async fn a_job_that_is_gone_is_not_lost_while_its_pod_runs(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.pod(&job, "orders-1", &json!({"running": {}}));
    // The garbage collector deletes the pod with its Job; it is held until its report is read.
    cluster.server.delete(&format!("{NAMESPACE}/jobs/{job}"));
    cluster.server.delete("shop/pods/orders-1");
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_eq!(status.follow_up, None, "nothing else may touch what the agent works on");
    let report = Report {
        outcome: Outcome::Succeeded,
        message: "Done.".into(),
        plan_hash: None,
        artifact: None,
        failure: None,
    };
    cluster.server.change("shop/pods/orders-1", |pod| {
        pod["status"]["containerStatuses"][0]["state"] = terminated(&report);
    });
    assert_is(
        &cluster.reconcile::<Backup>("orders").await,
        Phase::Succeeded,
        reasons::SUCCEEDED,
    );
    assert!(cluster.server.get("shop/pods/orders-1").is_none(), "the pod is let go");
}

async fn a_completed_job_without_report_is_looked_into_by_another_job(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.end_job(&job, "Complete", "CompletionsReached");
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Running, reasons::PROGRESSING);
    let (check, plan) = follow_up(cluster, &status, FollowUpPurpose::Check);
    assert!(matches!(plan, Plan::Backup(_)), "the same plan finds what was done");
    cluster.succeed(&check, Outcome::AlreadyApplied);
    assert_is(
        &cluster.reconcile::<Backup>("orders").await,
        Phase::Succeeded,
        reasons::SUCCEEDED,
    );
}

async fn a_completed_job_without_report_is_never_a_success_unless_confirmed(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.pod(&job, "orders-1", &killed("Completed", 0));
    cluster.end_job(&job, "Complete", "CompletionsReached");
    let status = cluster.reconcile::<Backup>("orders").await;
    let (check, _) = follow_up(cluster, &status, FollowUpPurpose::Check);
    cluster.end_job(&check, "Complete", "CompletionsReached");
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Failed, reasons::REPORT_MISSING);
}

async fn a_dry_run_that_died_leaves_nothing_to_clean_up(cluster: &mut Cluster) {
    cluster.backup("orders", json!({"dryRun": true}));
    let job = cluster.started::<Backup>("orders").await;
    cluster.pod(&job, "orders-1", &killed("Error", 1));
    cluster.end_job(&job, "Failed", "BackoffLimitExceeded");
    let status = cluster.reconcile::<Backup>("orders").await;
    assert_is(&status, Phase::Failed, reasons::REPORT_MISSING);
    assert_eq!(status.follow_up, None);
}

async fn an_outcome_is_final(cluster: &mut Cluster) {
    let job = begun(cluster).await;
    cluster.succeed(&job, Outcome::Succeeded);
    let before = cluster.reconcile::<Backup>("orders").await;
    cluster.end_job(&job, "Failed", "DeadlineExceeded");
    cluster.server.delete(&format!("{NAMESPACE}/jobs/{job}"));
    assert_eq!(cluster.reconcile::<Backup>("orders").await, before);
    // Only the generation follows a change that does not touch the outcome.
    cluster.change_spec::<Backup>("orders", "deletionPolicy", json!("Retain"));
    let after = cluster.reconcile::<Backup>("orders").await;
    assert_eq!(after.observed_generation, Some(2));
    assert!(
        after
            .conditions
            .iter()
            .all(|condition| condition.observed_generation == Some(2))
    );
    assert_is(&after, Phase::Succeeded, reasons::SUCCEEDED);
}
