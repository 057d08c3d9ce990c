//! The Job of a run and the ConfigMap with its plan. Pure.

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::names::RunReference;
use super::pod;
use super::settings::Settings;
use crate::api::backup::LogLevel;
use crate::api::job::JobSettings;
use crate::plan::Plan;
use crate::plan::report::EXIT_PERMANENT;

/// Attempts after the first. Kubernetes waits 10 s before the second, and twice as long before each that follows.
pub const RETRIES: i32 = 3;
/// What the Job's deadline leaves the agent, whose own deadline comes first, to stop and to report. Seconds.
const DEADLINE_MARGIN_SECONDS: i64 = 120;
/// Key of the plan in its ConfigMap, and its file name in the pod.
pub const PLAN_KEY: &str = "plan.json";

/// What a Job is made from.
#[derive(Clone, Debug)]
pub struct JobRequest<'a> {
    /// The run that it works for.
    pub run: &'a RunReference,
    /// Its name, also that of its ConfigMap.
    pub name: &'a str,
    /// What it does.
    pub plan: &'a Plan,
    /// How it is made.
    pub job: &'a JobSettings,
    /// Verbosity of its log.
    pub log_level: LogLevel,
    /// What the operator was told.
    pub settings: &'a Settings,
}

impl JobRequest<'_> {
    /// The plan, immutable. `owner` goes and takes it along.
    pub fn config_map(&self, owner: OwnerReference) -> Result<ConfigMap, serde_json::Error> {
        let plan = serde_json::to_string_pretty(self.plan)?;
        let mut metadata = self.run.metadata(self.name);
        metadata.owner_references = Some(vec![owner]);
        Ok(ConfigMap {
            metadata,
            immutable: Some(true),
            data: Some([(PLAN_KEY.to_owned(), plan)].into()),
            ..ConfigMap::default()
        })
    }

    /// The Job. Without an owner it survives the resource that it works for. It gets no TTL: a Job that removes itself
    /// may be gone before its outcome is recorded.
    #[must_use]
    pub fn job(&self, owner: Option<OwnerReference>) -> Job {
        let mut metadata = self.run.metadata(self.name);
        metadata.owner_references = owner.map(|owner| vec![owner]);
        pod::add_labels(&mut metadata, &self.job.labels);
        Job {
            metadata,
            spec: Some(JobSpec {
                active_deadline_seconds: self
                    .plan
                    .run()
                    .deadline_seconds
                    .map(|seconds| i64::from(seconds) + DEADLINE_MARGIN_SECONDS),
                backoff_limit: Some(RETRIES),
                pod_failure_policy: Some(pod_failure_policy()),
                template: pod::template(self),
                ..JobSpec::default()
            }),
            status: None,
        }
    }
}

/// A pod that the cluster took away does not count as an attempt. A failure that no retry can help ends the Job at
/// once. An interrupted agent is tried again: `kubectl delete pod` leaves no condition on the pod, only that exit code.
fn pod_failure_policy() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "Ignore".into(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".into(),
                    status: "True".into(),
                }]),
                on_exit_codes: None,
            },
            PodFailurePolicyRule {
                action: "FailJob".into(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(pod::CONTAINER.into()),
                    operator: "In".into(),
                    values: vec![EXIT_PERMANENT],
                }),
                on_pod_conditions: None,
            },
        ],
    }
}
