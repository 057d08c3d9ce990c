//! A cluster as the operator sees it: resources that users make, Jobs that end, pods that report.

use std::sync::Arc;

use kube::api::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::Reporter;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::api_server::ApiServer;
use crate::api::status::{Phase, RunStatus};
use crate::api::{PgBackup, PgRestore, reasons};
use crate::operator::context::{Context, NamespacedName, WaitingRestores};
use crate::operator::error::Error;
use crate::operator::metrics::Metrics;
use crate::operator::reconcile::reconcile;
use crate::operator::resource::RunResource;
use crate::operator::settings::Settings;
use crate::plan::Refusal;
use crate::plan::report::{Outcome, Report};

/// The namespace of every scenario.
pub const NAMESPACE: &str = "shop";

/// A cluster with an operator that does one reconciliation at a time.
pub struct Cluster {
    /// The API server.
    pub server: ApiServer,
    /// What reconciliations get.
    pub context: Arc<Context>,
    /// Restores that were woken.
    pub woken: UnboundedReceiver<NamespacedName>,
}

impl Cluster {
    /// An empty cluster.
    pub fn new() -> Self {
        let server = ApiServer::default();
        server.put("namespaces", json!({"metadata": {"name": NAMESPACE}}));
        Self::of(server)
    }

    /// An operator that knows nothing yet of what is in the cluster.
    pub fn of(server: ApiServer) -> Self {
        let (wake, woken) = unbounded_channel();
        let context = Arc::new(context(&server, WaitingRestores::new(wake)));
        Self { server, context, woken }
    }

    /// Applies a `PgBackup` whose further fields of the spec are given.
    pub fn backup(&self, name: &str, more: Value) {
        let mut spec = json!({
            "connection": {"secretRef": {"name": "production-db"}},
            "storage": {"s3": {"bucket": "backups", "credentialsSecretRef": {"name": "s3"}}},
        });
        json_patch::merge(&mut spec, &more);
        self.make("PgBackup", "pgbackups", name, &spec);
    }

    /// Applies a `PgRestore` of a backup.
    pub fn restore(&self, name: &str, backup: &str) {
        let spec = json!({
            "source": {"backup": {"name": backup}},
            "target": {"connection": {"secretRef": {"name": "staging-db"}}, "database": "orders_copy"},
        });
        self.make("PgRestore", "pgrestores", name, &spec);
    }

    fn make(&self, kind: &str, plural: &str, name: &str, spec: &Value) {
        let labels = json!({"argocd.argoproj.io/instance": "shop", "app.kubernetes.io/instance": "shop"});
        let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
        let object = json!({
            "apiVersion": "pgrescue.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": annotations},
            "spec": spec, "status": {"observedGeneration": -1},
        });
        self.server.put(&format!("{NAMESPACE}/{plural}"), object);
    }

    /// Changes the spec, as a user does.
    pub fn change_spec<R: RunResource>(&self, name: &str, field: &str, value: Value) {
        self.server.change(&path::<R>(name), |object| {
            object["spec"][field] = value;
            object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
        });
    }

    /// One reconciliation.
    pub async fn try_reconcile<R: RunResource>(&self, name: &str) -> Result<Action, Error> {
        let seen = json!({"metadata": {"name": name, "namespace": NAMESPACE}});
        let seen: PartialObjectMeta<R> = serde_json::from_value(seen).unwrap();
        reconcile::<R>(Arc::new(seen), Arc::clone(&self.context)).await
    }

    /// Reconciliations that succeed, until nothing changes any more.
    pub async fn reconcile<R: RunResource>(&self, name: &str) -> RunStatus {
        for _ in 0..10 {
            let before = self.server.get(&path::<R>(name));
            self.try_reconcile::<R>(name).await.unwrap();
            if self.server.get(&path::<R>(name)) == before {
                break;
            }
        }
        self.status::<R>(name)
    }

    /// The status of a resource; an empty one where it is gone.
    pub fn status<R: RunResource>(&self, name: &str) -> RunStatus {
        let object = self.server.get(&path::<R>(name)).unwrap_or_default();
        serde_json::from_value(object["status"].clone()).unwrap_or_default()
    }

    /// The Job of a run, made by reconciling.
    pub async fn started<R: RunResource>(&self, name: &str) -> String {
        self.reconcile::<R>(name).await.job.unwrap().name
    }

    /// Sets a condition of a Job, as the Job controller does.
    pub fn end_job(&self, job: &str, condition: &str, reason: &str) {
        self.server.change(&format!("{NAMESPACE}/jobs/{job}"), |object| {
            let condition =
                json!({"type": condition, "status": "True", "reason": reason, "message": "the Job says why"});
            object["status"]["conditions"] = json!([condition]);
        });
    }

    /// Makes a pod of a Job as the Job controller and the kubelet do; `state` is that of the agent's container.
    pub fn pod(&self, job: &str, name: &str, state: &Value) {
        let template = self.server.get(&format!("{NAMESPACE}/jobs/{job}")).unwrap()["spec"]["template"].clone();
        let mut metadata = template["metadata"].clone();
        metadata["name"] = json!(name);
        metadata["namespace"] = json!(NAMESPACE);
        metadata["labels"]["batch.kubernetes.io/job-name"] = json!(job);
        let phase = if state["terminated"].is_null() {
            "Running"
        } else {
            "Failed"
        };
        let status = json!({"phase": phase, "containerStatuses": [{
            "name": "agent", "state": state, "image": "", "imageID": "", "ready": false, "restartCount": 0,
        }]});
        let pod = json!({"metadata": metadata, "spec": {"containers": []}, "status": status});
        self.server.put(&format!("{NAMESPACE}/pods"), pod);
    }

    /// Ends a run's Job well, with a report.
    pub fn succeed(&self, job: &str, outcome: Outcome) {
        let plan = self.server.get(&format!("{NAMESPACE}/configmaps/{job}")).unwrap();
        let artifact = plan["data"]["plan.json"]
            .as_str()
            .unwrap()
            .contains(r#""kind": "backup""#);
        let artifact = artifact.then(|| crate::api::status::Artifact {
            snapshot: "snapshot".into(),
            location: "s3://backups".into(),
            bytes: 10,
            new_bytes: Some(4),
            reused_percent: Some(0),
            rows: 2,
            databases: vec!["orders".into()],
            manifest_sha256: "abc".into(),
        });
        let report = Report {
            outcome,
            message: "All is well.".into(),
            plan_hash: Some("hash".into()),
            artifact,
            failure: None,
        };
        self.pod(job, &format!("{job}-aaaaa"), &terminated(&report));
        self.end_job(job, "Complete", "CompletionsReached");
    }

    /// Ends a run's Job with the report of a failure.
    pub fn fail(&self, job: &str, refusal: Refusal) {
        let report = Report::failed(refusal, None, None);
        self.pod(job, &format!("{job}-aaaaa"), &terminated(&report));
        self.end_job(job, "Failed", "BackoffLimitExceeded");
    }
}

/// A context for a fake API server.
pub fn context(server: &ApiServer, waiting: WaitingRestores) -> Context {
    let client = server.client();
    Context {
        reporter: Reporter::from("pgrescue".to_owned()),
        client,
        settings: settings(),
        metrics: Arc::new(Metrics::default()),
        waiting,
    }
}

/// Settings as the chart gives them.
pub fn settings() -> Settings {
    #[derive(clap::Parser)]
    struct Operator {
        #[command(flatten)]
        settings: Settings,
    }
    let arguments = [
        "operator",
        "--agent-image=pgrescue.dev/agent:1",
        "--agent-fs-group=65532",
    ];
    <Operator as clap::Parser>::parse_from(arguments).settings
}

/// Where a resource is kept.
pub fn path<R: RunResource>(name: &str) -> String {
    format!("{NAMESPACE}/{}/{name}", R::plural(&()))
}

/// The state of an agent's container that ended with a report.
pub fn terminated(report: &Report) -> Value {
    json!({"terminated": {
        "exitCode": report.exit_code(), "message": report.to_termination_message(), "finishedAt": "2026-01-02T04:00:00Z",
    }})
}

/// A failure that no retry helps.
pub fn wrong_password() -> Refusal {
    Refusal::permanent(reasons::AUTHENTICATION_FAILED, "The password is wrong.").hint("Correct the Secret.")
}

/// Value of a condition, with the generation that it is about.
pub fn condition(status: &RunStatus, kind: &str) -> (String, i64) {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind);
    let found = found.unwrap_or_else(|| panic!("no condition {kind} in {status:?}"));
    (found.status.clone(), found.observed_generation.unwrap())
}

/// Asserts where a run is and why.
#[track_caller]
pub fn assert_is(status: &RunStatus, phase: Phase, reason: &str) {
    let reasons: Vec<&str> = status
        .conditions
        .iter()
        .map(|condition| condition.reason.as_str())
        .collect();
    assert_eq!((status.phase, reasons), (Some(phase), vec![reason; 4]), "{status:?}");
}

/// The kinds by short names, for the turbofish.
pub type Backup = PgBackup;
/// See [`Backup`].
pub type Restore = PgRestore;
