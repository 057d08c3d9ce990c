//! A namespace for one test, with Pod Security `restricted` enforced, and what tests do in it.

use std::fmt::{Debug, Write};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace as KubernetesNamespace, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cluster::{cluster, output};
use crate::operator::operator_story;

/// How long a test waits for something that takes seconds on an idle machine, or a minute where an agent is tried again.
pub const DEADLINE: Duration = Duration::from_mins(4);

/// A namespace that is deleted when the test ends.
pub struct Namespace {
    /// Its name in the cluster.
    pub name: String,
    client: Client,
}

impl Namespace {
    /// Makes a namespace whose name begins with `test`, and waits until pods can start in it.
    pub async fn new(test: &str) -> Self {
        let client = cluster().client().await;
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is past 1970");
        // A kept cluster may still hold the namespaces of earlier runs.
        let name = format!("{test}-{:x}", since.as_micros());
        let manifest = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }))
        .expect("a namespace");
        Api::<KubernetesNamespace>::all(client.clone())
            .create(&PostParams::default(), &manifest)
            .await
            .expect("the namespace can be made");
        let namespace = Self { name, client };
        namespace.wait::<ServiceAccount>("default", "to exist", |_| true).await;
        namespace
    }

    /// The objects of one kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Runs `kubectl` in this namespace.
    ///
    /// # Errors
    /// What kubectl wrote to standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.kubectl_with_input(arguments, None)
    }

    /// Applies YAML as a user does.
    ///
    /// # Errors
    /// What the API server answered.
    pub fn apply(&self, yaml: &str) -> Result<String, String> {
        self.kubectl_with_input(&["apply", "--filename", "-"], Some(yaml))
    }

    /// The same with this on standard input.
    ///
    /// # Errors
    /// What kubectl wrote to standard error.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: Option<&str>) -> Result<String, String> {
        output(
            cluster().kubectl().args(["--namespace", &self.name]).args(arguments),
            input,
        )
    }

    /// Waits until the object `name` is as `condition` says and returns it; after [`DEADLINE`]
    /// the test fails with all that explains why.
    pub async fn wait<K>(&self, name: &str, until: &str, condition: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let api = self.api::<K>();
        let end = Instant::now() + DEADLINE;
        loop {
            let object = api.get_opt(name).await.expect("the API server answers");
            if let Some(object) = object.as_ref().filter(|object| condition(object)) {
                return object.clone();
            }
            if Instant::now() > end {
                let object = serde_json::to_string_pretty(&object).expect("an object is JSON");
                panic!(
                    "{} {name} was not {until} in time: {object}\n{}",
                    K::kind(&()),
                    self.story()
                );
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Deletes an object as a user does, and does not wait.
    pub fn delete<K: Resource<DynamicType = ()>>(&self, name: &str) {
        let kind = K::plural(&());
        let deleted = self.kubectl(&["delete", &kind, name, "--wait=false"]);
        deleted.unwrap_or_else(|error| panic!("{error}\n{}", self.story()));
    }

    /// Waits until the object `name` is gone.
    pub async fn gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let api = self.api::<K>();
        let end = Instant::now() + DEADLINE;
        while let Some(object) = api.get_opt(name).await.expect("the API server answers") {
            if Instant::now() > end {
                let object = serde_json::to_string_pretty(&object).expect("an object is JSON");
                panic!("{} {name} did not go in time: {object}\n{}", K::kind(&()), self.story());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Deletes the namespace and waits until it is gone.
    pub async fn delete_all(&self) {
        let namespaces = Api::<KubernetesNamespace>::all(self.client.clone());
        let deleted = namespaces.delete(&self.name, &DeleteParams::default()).await;
        deleted.expect("a namespace can be deleted");
        let end = Instant::now() + DEADLINE;
        while let Some(namespace) = namespaces.get_opt(&self.name).await.expect("the API server answers") {
            assert!(
                Instant::now() < end,
                "the namespace did not go in time: {:#?}\n{}",
                namespace.status,
                self.story()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What a pod's container wrote, of the pod or the `kind/name` given.
    pub fn logs(&self, of: &str) -> String {
        self.kubectl(&["logs", of])
            .unwrap_or_else(|error| panic!("{error}\n{}", self.story()))
    }

    /// Reason and message of each Event about the object `name`, in no order.
    pub fn events(&self, name: &str) -> Vec<(String, String)> {
        let selector = format!("--field-selector=involvedObject.name={name}");
        let events = self
            .kubectl(&[
                "get",
                "events",
                &selector,
                "--output=jsonpath={range .items[*]}{.reason}{\"\\t\"}{.message}{\"\\n\"}{end}",
            ])
            .expect("events can be listed");
        let pair = |line: &str| {
            line.split_once('\t')
                .map(|(reason, message)| (reason.to_owned(), message.to_owned()))
        };
        events.lines().filter_map(pair).collect()
    }

    /// Makes a `PersistentVolumeClaim`: from our own node's disk, else from the default storage class.
    pub fn volume_claim(&self, name: &str) {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        });
        let Some(volumes) = cluster().node_volumes() else {
            self.apply(&claim.to_string()).expect("a claim can be made");
            return;
        };
        let volume_name = format!("{}-{name}", self.name);
        let folder = volumes.join(&volume_name);
        fs::create_dir(&folder).expect("the node's volumes can be written");
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).expect("the folder is ours");
        let mut claim = claim;
        claim["spec"]["storageClassName"] = "".into();
        claim["spec"]["volumeName"] = volume_name.clone().into();
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume_name},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
                "claimRef": {"namespace": self.name, "name": name},
                "local": {"path": folder},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "Exists"},
                ]}]}},
            },
        });
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [volume, claim]}).to_string())
            .expect("a volume and a claim can be made");
    }

    /// What happened in this namespace, for a test that failed.
    pub fn story(&self) -> String {
        let mut story = operator_story(&self.name);
        for arguments in [
            &["get", "all,configmaps", "--output=wide"][..],
            &["get", "pgbackups,pgrestores", "--output=yaml"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &[
                "logs",
                "--selector=batch.kubernetes.io/job-name",
                "--all-containers",
                "--prefix",
                "--tail=50",
            ],
        ] {
            let part = self.kubectl(arguments).unwrap_or_else(|error| error);
            let _ = write!(story, "--- kubectl {}\n{part}\n", arguments.join(" "));
        }
        story
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not waited for: the next test has another name, and the cluster ends with the tests.
        let _ = output(
            cluster()
                .kubectl()
                .args(["delete", "namespace", &self.name, "--wait=false"]),
            None,
        );
    }
}
