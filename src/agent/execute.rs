//! One plan from its references to its report, in a pod and in `pgrescue run` alike.

use std::time::Duration;

use tokio::time::Instant;

use super::{Context, backup, restore};
use crate::api::status::FailureClass;
use crate::api::{conditions, reasons};
use crate::plan::report::{Done, Failed, Report};
use crate::plan::{Plan, ReferencedNames, Refusal};
use crate::references::{ReferenceError, References};

/// How often a missing Secret or ConfigMap is looked for. The kubelet brings it after about a minute.
const REFERENCE_POLL: Duration = Duration::from_secs(2);

/// What to do while a Secret or ConfigMap is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingReferences {
    /// Wait until it is there, or the run is told to stop.
    Wait,
    /// End at once.
    Fail,
}

/// Runs the plan to its end. Every way out is a report.
pub async fn execute(plan: &Plan, context: &Context, missing: MissingReferences) -> Report {
    let deadline = plan
        .run()
        .deadline_seconds
        .map(|seconds| Duration::from_secs(u64::from(seconds)));
    let started = Instant::now();
    let result = {
        let mut work = Box::pin(run(plan, context, missing));
        match deadline {
            None => work.await,
            Some(deadline) => tokio::select! {
                result = &mut work => result,
                () = tokio::time::sleep(deadline) => {
                    context.stop.cancel();
                    match (work.await, plan) {
                        // No attempt follows that could go on.
                        (Err(failed), Plan::Restore(plan)) => {
                            Err(Box::pin(restore::keep_nothing(plan, context, failed)).await)
                        }
                        (result, _) => result,
                    }
                }
            },
        }
    };
    let overdue = deadline.is_some_and(|deadline| started.elapsed() >= deadline);
    Report::from(result.map_err(|failed| {
        if overdue {
            past_deadline(failed, deadline)
        } else {
            failed
        }
    }))
}

async fn run(plan: &Plan, context: &Context, missing: MissingReferences) -> Result<Done, Failed> {
    await_references(&ReferencedNames::of(plan), context, missing).await?;
    match plan {
        Plan::Backup(plan) => Box::pin(backup::run(plan, context)).await,
        Plan::Restore(plan) => Box::pin(restore::run(plan, context)).await,
        Plan::DeleteArtifact(plan) => Box::pin(backup::delete_artifact(plan, context)).await,
        Plan::CleanUpBackup(plan) => Box::pin(backup::clean_up(plan, context)).await,
        Plan::CleanUpRestore(plan) => Box::pin(restore::clean_up(plan, context)).await,
    }
}

/// An interruption by the run's own deadline is final: the next attempt would meet the same one.
fn past_deadline(mut failed: Failed, deadline: Option<Duration>) -> Failed {
    if failed.refusal.class == FailureClass::Interrupted {
        let seconds = deadline.map_or(0, |deadline| deadline.as_secs());
        failed.refusal = Refusal::permanent(
            reasons::DEADLINE_EXCEEDED,
            format!(
                "The run did not end within its deadline of {seconds} seconds and was stopped. {}",
                failed.refusal
            ),
        )
        .hint("Raise job.deadlineSeconds in a new resource, or leave tables out.");
    }
    failed
}

async fn await_references(
    names: &ReferencedNames,
    context: &Context,
    missing: MissingReferences,
) -> Result<(), Refusal> {
    let mut waited = false;
    loop {
        match check_references(names, context.references.as_ref()).await {
            Ok(()) => {
                if waited {
                    tracing::info!("every Secret and ConfigMap is there");
                }
                context.reporter.condition(
                    conditions::REFERENCES_RESOLVED,
                    Some(true),
                    reasons::SUCCEEDED,
                    "Every Secret and ConfigMap that the resource names is there.",
                );
                return Ok(());
            }
            Err(error) if error.is_missing() && missing == MissingReferences::Wait => {
                if !waited {
                    tracing::warn!("waiting: {error}");
                }
                waited = true;
                let message = format!("Waiting: {error}.");
                context.reporter.condition(
                    conditions::REFERENCES_RESOLVED,
                    Some(false),
                    reasons::REFERENCE_MISSING,
                    message,
                );
                tokio::select! {
                    () = tokio::time::sleep(REFERENCE_POLL) => {}
                    () = context.stop.cancelled() => {
                        let mut refusal = Refusal::from(error);
                        refusal.class = FailureClass::Interrupted;
                        return Err(refusal);
                    }
                }
            }
            Err(error) => return Err(Refusal::from(error)),
        }
    }
}

async fn check_references(names: &ReferencedNames, references: &dyn References) -> Result<(), ReferenceError> {
    let ReferencedNames {
        secrets,
        config_maps: _,
        secret_keys,
        secret_key_choices,
        config_map_keys,
    } = names;
    for name in secrets {
        references.secret(name).await?;
    }
    for key in secret_keys {
        references.secret_key(key).await?;
    }
    for (name, choices) in secret_key_choices {
        let keys = references.secret(name).await?;
        if !choices.iter().any(|choice| keys.contains_key(*choice)) {
            return Err(ReferenceError::KeyMissing {
                kind: "Secret",
                name: name.clone(),
                key: choices[0].to_owned(),
            });
        }
    }
    for key in config_map_keys {
        references.config_map_key(key).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::agent::progress::{AgentCondition, Reporter};
    use crate::plan::restore::CleanUpRestorePlan;
    use crate::plan::storage::Place;
    use crate::plan::{Run, RunKind};
    use crate::postgres::client_tools::ClientTools;
    use crate::references::mounted::MountedReferences;

    fn run_of(deadline_seconds: Option<u32>) -> Run {
        Run {
            deadline_seconds,
            ..Run::sample(RunKind::PgBackup)
        }
    }

    /// A backup that names a Secret for everything.
    fn plan(deadline_seconds: Option<u32>) -> Plan {
        let spec = serde_saphyr::from_str(
            "{connection: {secretRef: {name: db}, passwordSecretRef: {name: login, key: password},
              tls: {rootCertificate: {configMapKeyRef: {name: ca, key: ca.crt}}}},
              storage: {s3: {bucket: b, credentialsSecretRef: {name: s3}}}}",
        )
        .unwrap();
        Plan::Backup(crate::plan::backup::plan(&spec, run_of(deadline_seconds), Place::Cluster).unwrap())
    }

    fn context(folder: &Path) -> Context {
        Context {
            references: Arc::new(MountedReferences::new(
                folder.join("secrets"),
                folder.join("configmaps"),
            )),
            reporter: Reporter::default(),
            client_tools: Arc::new(ClientTools::default()),
            stop: CancellationToken::new(),
        }
    }

    fn put(folder: &Path, path: &str) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "value").unwrap();
    }

    /// Waits until the condition says this, and returns it.
    async fn told(reporter: &Reporter, text: &str) -> AgentCondition {
        let mut changes = reporter.subscribe();
        let said = async {
            loop {
                let conditions = reporter.status().conditions;
                if let Some(condition) = conditions.into_iter().find(|it| it.message.contains(text)) {
                    return condition;
                }
                changes.changed().await.unwrap();
            }
        };
        timeout(Duration::from_secs(20), said)
            .await
            .unwrap_or_else(|_| panic!("nobody said {text:?}"))
    }

    #[tokio::test]
    async fn what_is_missing_is_named_and_waited_for_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        let names = ReferencedNames::of(&plan(None));
        let waiting = await_references(&names, &context, MissingReferences::Wait);
        let user = async {
            for (missing, path) in [
                (r#"Waiting: Secret "db" does not exist."#, "secrets/db/host"),
                (r#"Waiting: Secret "login" does not exist."#, "secrets/login/username"),
                (r#"Waiting: Secret "s3" does not exist."#, "secrets/s3/region"),
                (
                    r#"Waiting: Secret "login" has no key "password"."#,
                    "secrets/login/password",
                ),
                (
                    r#"Waiting: Secret "s3" has no key "AWS_ACCESS_KEY_ID"."#,
                    "secrets/s3/ACCESS_KEY_ID",
                ),
                (
                    r#"Waiting: Secret "s3" has no key "AWS_SECRET_ACCESS_KEY"."#,
                    "secrets/s3/AWS_SECRET_ACCESS_KEY",
                ),
                (r#"Waiting: ConfigMap "ca" does not exist."#, "configmaps/ca/other"),
                (
                    r#"Waiting: ConfigMap "ca" has no key "ca.crt"."#,
                    "configmaps/ca/ca.crt",
                ),
            ] {
                let condition = told(&context.reporter, missing).await;
                assert_eq!(condition.r#type, conditions::REFERENCES_RESOLVED);
                assert_eq!(
                    (condition.status, condition.reason.as_str()),
                    (Some(false), reasons::REFERENCE_MISSING)
                );
                put(folder.path(), path);
            }
        };
        let (result, ()) = tokio::join!(waiting, user);
        result.unwrap();
        assert_eq!(told(&context.reporter, "is there").await.status, Some(true));
    }

    #[tokio::test]
    async fn outside_a_cluster_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let report = execute(&plan(None), &context(folder.path()), MissingReferences::Fail).await;
        let failure = report.failure.unwrap();
        assert_eq!(
            (failure.class, failure.reason.as_str()),
            (FailureClass::Temporary, reasons::REFERENCE_MISSING)
        );
        assert_eq!(failure.object.as_deref(), Some("Secret/db"));
    }

    #[tokio::test]
    async fn a_run_that_is_told_to_stop_while_it_waits_ends_as_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        let stop = async {
            told(&context.reporter, "Waiting").await;
            context.stop.cancel();
        };
        let plan = plan(None);
        let (report, ()) = tokio::join!(execute(&plan, &context, MissingReferences::Wait), stop);
        assert_eq!(report.failure.as_ref().unwrap().class, FailureClass::Interrupted);
        assert_eq!(report.exit_code(), crate::plan::report::EXIT_INTERRUPTED);
    }

    #[tokio::test]
    async fn the_agent_holds_its_own_deadline_and_then_no_retry_helps() {
        let folder = tempfile::tempdir().unwrap();
        let report = execute(&plan(Some(1)), &context(folder.path()), MissingReferences::Wait).await;
        let failure = report.failure.unwrap();
        assert_eq!(
            (failure.class, failure.reason.as_str()),
            (FailureClass::Permanent, reasons::DEADLINE_EXCEEDED)
        );
        assert!(failure.message.contains("deadline of 1 seconds"), "{}", failure.message);
    }

    #[test]
    fn each_kind_of_plan_names_what_its_agent_needs() {
        let clean_up = Plan::CleanUpRestore(CleanUpRestorePlan {
            run: run_of(None),
            target: match plan(None) {
                Plan::Backup(plan) => plan.connection,
                other => panic!("{other:?}"),
            },
            database: None,
        });
        let names = ReferencedNames::of(&clean_up);
        assert_eq!(names.secrets.iter().collect::<Vec<_>>(), ["db", "login"]);
        assert!(names.secret_key_choices.is_empty());
    }
}
