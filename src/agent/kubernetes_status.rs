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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response, StatusCode};
    use kube::client::Body;

    use super::*;
    use crate::api::reasons;

    /// When each write came, and its status.
    type Writes = Arc<Mutex<Vec<(Instant, Value)>>>;

    /// A status writer whose writes get the answers of `answer` by their number.
    fn writer(answer: impl Fn(usize) -> (StatusCode, Value) + Send + 'static) -> (KubernetesStatus, Writes) {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let writes = Writes::default();
        let noted = Arc::clone(&writes);
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let body = request.into_body().collect_bytes().await.unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap();
                let number = {
                    let mut writes = noted.lock().unwrap();
                    writes.push((Instant::now(), body["status"].clone()));
                    writes.len()
                };
                let (code, answer) = answer(number);
                let response = Response::builder().status(code);
                send.send_response(response.body(Body::from(answer.to_string().into_bytes())).unwrap());
            }
        });
        let run = Run {
            kind: RunKind::PgBackup,
            namespace: "shop".into(),
            name: "orders".into(),
            uid: "uid".into(),
            generation: 3,
            created: "2026-01-02T03:04:05Z".parse().unwrap(),
            deadline_seconds: None,
        };
        (KubernetesStatus::new(Client::new(service, "default"), run), writes)
    }

    fn resource(uid: &str) -> (StatusCode, Value) {
        let object = json!({
            "apiVersion": "pgrescue.dev/v1alpha1", "kind": "PgBackup", "metadata": {"name": "orders", "uid": uid},
        });
        (StatusCode::OK, object)
    }

    /// Follows a run whose rows move all the time, for that long; returns the rows that it had at its end.
    async fn follow(status: KubernetesStatus, time: Duration) -> u64 {
        let reporter = Reporter::default();
        reporter.condition(
            "PreflightPassed",
            Some(true),
            reasons::SUCCEEDED,
            "Nothing forbids the run.",
        );
        let end = CancellationToken::new();
        let following = tokio::spawn(status.follow(reporter.clone(), end.clone()));
        let stop = Instant::now() + time;
        let mut rows = 0;
        while Instant::now() < stop {
            rows += 1;
            reporter.add_rows(1);
            reporter.step_started("dump");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        end.cancel();
        following.await.unwrap();
        rows
    }

    #[tokio::test]
    async fn progress_is_written_every_two_seconds_and_once_more_at_the_end() {
        let (status, writes) = writer(|_| resource("uid"));
        let rows = follow(status, Duration::from_millis(4500)).await;
        let writes = writes.lock().unwrap();
        assert_eq!(writes.len(), 4, "{writes:?}");
        for pair in writes[..3].windows(2) {
            let pause = pair[1].0 - pair[0].0;
            assert!(pause >= Duration::from_millis(1950), "{pause:?}");
        }
        let (_, last) = &writes[3];
        assert_eq!(last["progress"]["rows"], rows);
        let condition = &last["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["observedGeneration"]),
            (&json!("True"), &json!(3))
        );
        assert_eq!(last.get("phase"), None, "the phase is the controller's");
    }

    #[tokio::test]
    async fn a_write_that_fails_is_made_again() {
        let (status, writes) = writer(|number| match number {
            1 => (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({"kind": "Status", "code": 503, "message": "away"}),
            ),
            _ => resource("uid"),
        });
        let rows = follow(status, Duration::from_millis(2500)).await;
        let writes = writes.lock().unwrap();
        assert_eq!(writes.last().unwrap().1["progress"]["rows"], rows, "{writes:?}");
    }

    #[tokio::test]
    async fn the_status_of_a_namesake_is_left_alone() {
        let (status, writes) = writer(|_| resource("another"));
        follow(status, Duration::from_millis(2500)).await;
        assert_eq!(writes.lock().unwrap().len(), 1);
    }
}
