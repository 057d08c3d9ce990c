//! The operator, installed by its chart once for all tests, and what tests ask of its runs.

use std::fmt::Debug;
use std::path::Path;
use std::sync::OnceLock;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use pgrescue::api::status::{Failure, Phase, RunStatus};
use pgrescue::api::{PgBackup, PgRestore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::cluster::{cluster, output};
use crate::namespace::Namespace;
use crate::servers::S3;

/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "pgrescue-system";

/// Held by a test while it takes pods of the operator away: the next one finds two replicas again.
pub static REPLICAS: Mutex<()> = Mutex::const_new(());

/// The operator of this test program; the first caller installs it with two replicas and waits until they are ready.
pub fn install_operator() {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    if let Err(error) = INSTALLED.get_or_init(install) {
        panic!("no operator to test: {error}");
    }
}

fn install() -> Result<(), String> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": OPERATOR_NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    output(
        cluster().kubectl().args(["apply", "--filename", "-"]),
        Some(&namespace.to_string()),
    )?;
    let mut helm = cluster().helm();
    helm.args(["upgrade", "--install", "pgrescue"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/pgrescue"))
        .args(["--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "3m"])
        .args(["--set", &format!("image.operator={}", cluster().image("OPERATOR"))])
        .args(["--set", &format!("image.agent={}", cluster().image("AGENT"))]);
    output(&mut helm, None)
        .map(drop)
        .map_err(|error| format!("{error}\n{}", operator_story("")))
}

/// Names of the operator's pods.
pub fn operator_pods() -> Vec<String> {
    let mut kubectl = cluster().kubectl();
    kubectl
        .args(["--namespace", OPERATOR_NAMESPACE, "get", "pods"])
        .args(["--selector=app.kubernetes.io/name=pgrescue", "--output=name"]);
    let pods = output(&mut kubectl, None).expect("pods can be listed");
    pods.lines()
        .map(|pod| pod.trim_start_matches("pod/").to_owned())
        .collect()
}

/// What the operator logged, all replicas, restarted containers too.
pub fn operator_logs() -> String {
    let mut logs = String::new();
    for pod in operator_pods() {
        for previous in ["--previous=true", "--previous=false"] {
            let mut kubectl = cluster().kubectl();
            kubectl.args(["--namespace", OPERATOR_NAMESPACE, "logs", &pod, previous]);
            // There is no previous container, or the pod is gone by now.
            logs += &output(&mut kubectl, None).unwrap_or_default();
        }
    }
    logs
}

/// The operator's pods, and the lines of its log in which `text` stands.
pub fn operator_story(text: &str) -> String {
    let mut kubectl = cluster().kubectl();
    kubectl.args(["--namespace", OPERATOR_NAMESPACE, "get", "pods", "--output=wide"]);
    let pods = output(&mut kubectl, None).unwrap_or_else(|error| error);
    let logs = operator_logs();
    let lines: Vec<&str> = logs.lines().filter(|line| line.contains(text)).collect();
    format!("--- the operator\n{pods}\n{}", lines.join("\n"))
}

/// A kind whose every resource is one run.
pub trait Run:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
    /// What every run reports; empty before the operator saw it.
    fn run(&self) -> RunStatus;

    /// The condition of a type.
    fn condition(&self, r#type: &str) -> Option<Condition> {
        self.run()
            .conditions
            .into_iter()
            .find(|condition| condition.type_ == r#type)
    }
}

impl Run for PgBackup {
    fn run(&self) -> RunStatus {
        self.status.clone().map(|status| status.run).unwrap_or_default()
    }
}

impl Run for PgRestore {
    fn run(&self) -> RunStatus {
        self.status.clone().map(|status| status.run).unwrap_or_default()
    }
}

impl Namespace {
    /// Makes a namespace in which the operator works.
    pub async fn with_operator(test: &str) -> Self {
        install_operator();
        Self::new(test).await
    }

    /// Waits until a run has an outcome: its phase is terminal, or `Planned`.
    pub async fn ended<R: Run>(&self, name: &str) -> R {
        self.wait::<R>(name, "ended", |run| {
            run.run()
                .phase
                .is_some_and(|phase| phase.is_terminal() || phase == Phase::Planned)
        })
        .await
    }

    /// Waits for the outcome, which has to be `phase`.
    pub async fn ended_as<R: Run>(&self, name: &str, phase: Phase) -> R {
        let run = self.ended::<R>(name).await;
        assert_eq!(
            run.run().phase,
            Some(phase),
            "{} {name}: {:#?}\n{}",
            R::kind(&()),
            run.run(),
            self.story()
        );
        run
    }

    /// Waits for the outcome, which has to be a success.
    pub async fn succeeded<R: Run>(&self, name: &str) -> R {
        self.ended_as(name, Phase::Succeeded).await
    }

    /// Waits for the outcome, which has to be a failure, and returns it.
    pub async fn failed<R: Run>(&self, name: &str) -> Failure {
        let run = self.ended_as::<R>(name, Phase::Failed).await;
        run.run().failure.expect("a failed run says why")
    }

    /// The pods of a run's Jobs, its follow-ups too, the oldest first.
    pub async fn pods_of<R: Run>(&self, run: &R) -> Vec<Pod> {
        let of_run = ListParams::default().labels(&format!("pgrescue.dev/run-uid={}", run.uid().expect("it was made")));
        let mut pods = self.api::<Pod>().list(&of_run).await.expect("pods can be listed").items;
        pods.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.name_any()));
        pods
    }
}

/// A `PgBackup` of the database that the Secret `secret` names, into the bucket `backups` of the namespace's [`S3`].
pub fn backup(name: &str, secret: &str) -> Value {
    json!({
        "apiVersion": "pgrescue.dev/v1alpha1", "kind": "PgBackup", "metadata": {"name": name},
        "spec": {
            "connection": {"secretRef": {"name": secret}},
            "storage": {"s3": {
                "bucket": "backups", "prefix": "e2e", "region": "us-east-1",
                "endpoint": format!("http://s3:{}", S3::PORT),
                "forcePathStyle": true, "credentialsSecretRef": {"name": "s3"},
            }},
        },
    })
}

/// A `PgRestore` of the `PgBackup` `backup` into a database of the server that the Secret `secret` names.
pub fn restore(name: &str, backup: &str, secret: &str, database: &str) -> Value {
    json!({
        "apiVersion": "pgrescue.dev/v1alpha1", "kind": "PgRestore", "metadata": {"name": name},
        "spec": {
            "source": {"backup": {"name": backup}},
            "target": {"connection": {"secretRef": {"name": secret}}, "database": database},
        },
    })
}
