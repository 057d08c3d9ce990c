//! The status that the controller writes. What it says is built purely; `write` needs a client.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde_json::json;

use super::context::Context;
use super::error::Error;
use super::names::{self, FIELD_MANAGER};
use super::resource::RunResource;
use crate::api::conditions::{OF_CONTROLLER, READY, RECONCILING, STALLED, SUCCEEDED};
use crate::api::reasons;
use crate::api::status::{Artifact, Failure, FollowUp, FollowUpPurpose, JobReference, Phase, RunStatus};
use crate::api::{GROUP, VERSION};

/// The fields of a status that the controller owns. All are written every time: what is left out would be removed.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ControllerStatus {
    /// See [`RunStatus`], as for all others.
    pub conditions: Vec<Condition>,
    /// Generation acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the run is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The run's Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobReference>,
    /// The Job that looks after what the run's own left open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<FollowUp>,
    /// When the Job was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the outcome was final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Why the run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Hash of the steps, from the report: the agent's own write may have been lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// The artefact of a backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
}

/// Where a run is, and why, for its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Where the run is.
    pub phase: Phase,
    /// Constant from `reasons`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Situation {
    /// Describes where a run is.
    #[must_use]
    pub fn new(phase: Phase, reason: &str, message: impl Into<String>) -> Self {
        Self {
            phase,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// The run failed.
    #[must_use]
    pub fn failed(failure: &Failure) -> Self {
        let message = match &failure.hint {
            Some(hint) => format!("{} {hint}", failure.message),
            None => failure.message.clone(),
        };
        Self::new(Phase::Failed, &failure.reason, message)
    }
}

impl ControllerStatus {
    /// What the controller wrote last.
    #[must_use]
    pub fn recorded<R: RunResource>(resource: &R) -> Self {
        let run = resource.run_status().cloned().unwrap_or_default();
        let RunStatus {
            conditions,
            observed_generation,
            phase,
            job,
            follow_up,
            start_time,
            completion_time,
            failure,
            progress: _,
            steps: _,
            resolved: _,
            plan_hash,
            warnings: _,
        } = run;
        // The agent's hash becomes the controller's with the outcome alone.
        let settled = phase.is_some_and(|phase| phase.is_terminal() || phase == Phase::Planned);
        Self {
            conditions: conditions
                .into_iter()
                .filter(|condition| OF_CONTROLLER.contains(&condition.type_.as_str()))
                .collect(),
            observed_generation,
            phase,
            job,
            follow_up,
            start_time,
            completion_time,
            failure,
            plan_hash: plan_hash.filter(|_| settled),
            artifact: resource.artifact().cloned(),
        }
    }

    /// Whether a Job was named that may change something, and the outcome is not final.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        let changes = self.job.as_ref().is_some_and(|job| !names::is_dry_run(&job.name));
        changes && self.completion_time.is_none()
    }

    /// The Job of the follow-up, where the follow-up has this purpose.
    #[must_use]
    pub fn follow_up_job(&self, purpose: FollowUpPurpose) -> Option<&JobReference> {
        let follow_up = self.follow_up.as_ref();
        follow_up
            .filter(|follow_up| follow_up.purpose == purpose)
            .map(|follow_up| &follow_up.job)
    }

    /// Says where the run is, as of this generation. Times of conditions that stay as they are stay too.
    pub fn set(&mut self, situation: &Situation, generation: i64, now: Timestamp) {
        let Situation { phase, reason, message } = situation;
        self.phase = Some(*phase);
        self.observed_generation = Some(generation);
        self.conditions = values(*phase)
            .into_iter()
            .map(|(r#type, status)| {
                let before = self.conditions.iter().find(|condition| condition.type_ == r#type);
                if let (Phase::Deleting, SUCCEEDED, Some(outcome)) = (*phase, r#type, before) {
                    return outcome.clone();
                }
                let since = before
                    .filter(|condition| condition.status == status)
                    .map_or(Time(now), |condition| condition.last_transition_time.clone());
                Condition {
                    type_: r#type.into(),
                    status: status.into(),
                    reason: reason.clone(),
                    message: message.clone(),
                    last_transition_time: since,
                    observed_generation: Some(generation),
                }
            })
            .collect();
    }
}

/// The conditions of a phase, as kstatus reads them: `Ready: False` alone means "in progress" for ever, so a failure
/// is `Stalled`.
const fn values(phase: Phase) -> [(&'static str, &'static str); 4] {
    let [ready, reconciling, stalled, succeeded] = match phase {
        Phase::Pending | Phase::Waiting | Phase::Running | Phase::Deleting => ["False", "True", "False", "Unknown"],
        Phase::Succeeded | Phase::AlreadyApplied => ["True", "False", "False", "True"],
        Phase::Planned => ["True", "False", "False", "Unknown"],
        Phase::Failed => ["False", "False", "True", "False"],
    };
    [
        (READY, ready),
        (RECONCILING, reconciling),
        (STALLED, stalled),
        (SUCCEEDED, succeeded),
    ]
}

/// Writes the controller's fields and returns the resource as it is then. Refused as a conflict where the resource
/// changed since it was read, so that neither a namesake nor a newer outcome is overwritten.
pub async fn write<R: RunResource>(
    context: &Context,
    resource: Box<R>,
    status: &ControllerStatus,
) -> Result<Box<R>, Error> {
    if *status == ControllerStatus::recorded(&*resource) {
        return Ok(resource);
    }
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let kind = names::kind(R::KIND);
    let body = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": kind,
        "metadata": {"name": name, "resourceVersion": resource.resource_version()},
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    Api::<R>::namespaced(context.client.clone(), &namespace)
        .patch_status(&name, &parameters, &Patch::Apply(body))
        .await
        .map(Box::new)
        .map_err(Error::kubernetes("write the status of", format_args!("{kind} {name}")))
}

/// A run that has been seen and has not begun.
#[must_use]
pub fn pending(message: impl Into<String>) -> Situation {
    Situation::new(Phase::Pending, reasons::PROGRESSING, message)
}

/// A run that is under way.
#[must_use]
pub fn running(message: impl Into<String>) -> Situation {
    Situation::new(Phase::Running, reasons::PROGRESSING, message)
}
