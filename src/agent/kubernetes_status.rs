//! Writes what the agent tells into the status of its own resource, by server-side apply, at most every two seconds.
//! With the API server away the run goes on, and the next write brings the status up to date.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::progress::{AgentStatus, Reporter};
use crate::api::{GROUP, VERSION};
use crate::plan::{Run, RunKind};

/// Field manager of the agent's part of a status.
pub const FIELD_MANAGER: &str = "pgrescue-agent";
const INTERVAL: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps the status of one resource up to date.
pub struct KubernetesStatus {
    api: Api<DynamicObject>,
    run: Run,
    transitions: BTreeMap<String, (String, Timestamp)>,
    last_written: Option<Value>,
    finished: bool,
}

impl KubernetesStatus {
    /// For the resource that the run belongs to.
    #[must_use]
    pub fn new(client: Client, run: Run) -> Self {
        let (kind, plural) = match run.kind {
            RunKind::PgBackup => ("PgBackup", "pgbackups"),
            RunKind::PgRestore => ("PgRestore", "pgrestores"),
        };
        let resource = ApiResource {
            group: GROUP.into(),
            version: VERSION.into(),
            api_version: format!("{GROUP}/{VERSION}"),
            kind: kind.into(),
            plural: plural.into(),
        };
        let api = Api::namespaced_with(client, &run.namespace, &resource);
        Self {
            api,
            run,
            transitions: BTreeMap::new(),
            last_written: None,
            finished: false,
        }
    }

    /// Writes until `end` is set, and then once more.
    pub async fn follow(mut self, reporter: Reporter, end: CancellationToken) {
        let mut changes = reporter.subscribe();
        while !end.is_cancelled() && !self.finished {
            let written = Instant::now();
            self.write(&reporter.status()).await;
            tokio::select! {
                () = tokio::time::sleep_until(written + INTERVAL) => {}
                () = end.cancelled() => {}
            }
            // Counters move without a change; only a run that stands still waits for one.
            let now = self.body(&reporter.status());
            if self.last_written.as_ref() == Some(&now) {
                tokio::select! {
                    _ = changes.changed() => {}
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = end.cancelled() => {}
                }
            }
        }
        if !self.finished {
            self.write(&reporter.status()).await;
        }
    }

    async fn write(&mut self, status: &AgentStatus) {
        let body = self.body(status);
        if self.last_written.as_ref() == Some(&body) {
            return;
        }
        let parameters = PatchParams::apply(FIELD_MANAGER);
        let patch = Patch::Apply(&body);
        let request = self.api.patch_status(&self.run.name, &parameters, &patch);
        match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(object)) => {
                self.last_written = Some(body);
                // The API server accepts a write to a namesake; its UID is seen only in the answer.
                if object.metadata.uid.as_deref() != Some(self.run.uid.as_str()) {
                    tracing::warn!("the resource was replaced by another of its name; its status is left alone");
                    self.finished = true;
                }
            }
            Ok(Err(kube::Error::Api(error))) if matches!(error.code, 403 | 404) => {
                tracing::warn!(code = error.code, "the status cannot be written: {}", error.message);
            }
            Ok(Err(error)) => tracing::warn!("the status could not be written, the run goes on: {error}"),
            Err(_) => tracing::warn!("the API server did not answer in time, the run goes on"),
        }
    }

    fn body(&mut self, status: &AgentStatus) -> Value {
        let mut fields = serde_json::to_value(status).unwrap_or_default();
        let conditions: Vec<Value> = status
            .conditions
            .iter()
            .map(|condition| {
                let value = condition
                    .status
                    .map_or("Unknown", |status| if status { "True" } else { "False" });
                let transition = self
                    .transitions
                    .entry(condition.r#type.clone())
                    .and_modify(|(last, since)| {
                        if last != value {
                            value.clone_into(last);
                            *since = Timestamp::now();
                        }
                    })
                    .or_insert_with(|| (value.to_owned(), Timestamp::now()));
                json!({
                    "type": condition.r#type,
                    "status": value,
                    "reason": condition.reason,
                    "message": condition.message,
                    "lastTransitionTime": transition.1.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                    "observedGeneration": self.run.generation,
                })
            })
            .collect();
        if let Value::Object(fields) = &mut fields {
            fields.insert("conditions".into(), Value::Array(conditions));
        }
        let kind = match self.run.kind {
            RunKind::PgBackup => "PgBackup",
            RunKind::PgRestore => "PgRestore",
        };
        json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "status": fields})
    }
}
