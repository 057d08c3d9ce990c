//! The cluster that all tests share: brought up once, with the images of this build in it.
//! The scripts in `e2e/cluster` do the work; `e2e/run.sh` takes it down.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::own_node::OwnNode;

/// Name that `up.sh` and `images.sh` know the cluster by: of `E2E_CLUSTER`, as in `run.sh`.
fn name() -> String {
    env::var("E2E_CLUSTER").unwrap_or_else(|_| "e2e".to_owned())
}

/// A running cluster and the images that its nodes can start.
pub struct Cluster {
    kubeconfig: PathBuf,
    images: BTreeMap<String, String>,
}

/// The cluster of this test program; the first caller brings it up.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    match CLUSTER.get_or_init(Cluster::bring_up) {
        Ok(cluster) => cluster,
        Err(error) => panic!("no cluster to test on: {error}"),
    }
}

impl Cluster {
    fn bring_up() -> Result<Self, String> {
        // The images are built while the cluster starts; they are brought into it when it is up.
        let (kubeconfig, images) = thread::scope(|scope| {
            let up = scope.spawn(|| output(Command::new(script("up.sh")).arg(name()), None));
            let images = output(
                Command::new(script("images.sh"))
                    .arg(name())
                    .env("PGRESCUE_BINARY", env!("CARGO_BIN_EXE_pgrescue")),
                None,
            );
            (up.join().expect("up.sh has no panic"), images)
        });
        let images = images?
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(variable, image)| (variable.to_owned(), image.to_owned()))
            .collect();
        Ok(Self {
            kubeconfig: PathBuf::from(kubeconfig?.trim()),
            images,
        })
    }

    /// The image that `images.sh` prints as `<variable>_IMAGE`.
    pub fn image(&self, variable: &str) -> &str {
        let variable = format!("{variable}_IMAGE");
        self.images
            .get(&variable)
            .unwrap_or_else(|| panic!("images.sh prints no {variable}"))
    }

    /// A client with all rights. Each test makes its own: a client lives in one runtime.
    pub async fn client(&self) -> Client {
        Client::try_from(self.config().await).expect("a client from the kubeconfig")
    }

    /// A client that is whom a token says, as pods are.
    pub async fn client_with_token(&self, token: &str) -> Client {
        let mut config = self.config().await;
        config.auth_info = AuthInfo {
            token: Some(token.to_owned().into()),
            ..AuthInfo::default()
        };
        Client::try_from(config).expect("a client with a token")
    }

    async fn config(&self) -> Config {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).expect("up.sh wrote a kubeconfig");
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("the kubeconfig names a cluster and a user")
    }

    /// `kubectl` for this cluster.
    pub fn kubectl(&self) -> Command {
        let mut command = installed("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// `helm` for this cluster.
    pub fn helm(&self) -> Command {
        let mut command = installed("helm");
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// What a service account asked of the API server so far; none where the cluster is not our own and keeps no audit
    /// log.
    pub fn requests_of(&self, namespace: &str, service_account: &str) -> Option<BTreeSet<Request>> {
        let log = fs::read_to_string(self.kubeconfig.parent()?.join("logs/audit.log")).ok()?;
        let user = format!("system:serviceaccount:{namespace}:{service_account}");
        let events = log
            .lines()
            .filter(|line| line.contains(&user))
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let requests = events
            .filter(|event| event["user"]["username"] == user.as_str())
            .filter_map(|event| Request::of(&event));
        Some(requests.collect())
    }

    /// Our own node; none where the cluster is a caller's, or kind's.
    pub fn own_node(&self) -> Option<OwnNode> {
        let state = self.kubeconfig.parent()?;
        let slot = fs::read_to_string(state.join("slot")).ok()?;
        let pid = fs::read_to_string(state.join("node.pid")).ok()?;
        Some(OwnNode {
            cgroup: format!("pgrescue{}", slot.trim()),
            pid: pid.trim().to_owned(),
        })
    }

    /// The folder for volumes on our own node; none where the cluster makes volumes itself.
    pub fn node_volumes(&self) -> Option<PathBuf> {
        let state = self.kubeconfig.parent()?;
        state.join("slot").exists().then(|| state.join("volumes"))
    }
}

/// A request to the API server, as the audit log has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// The verb, as in a rule of a role.
    pub verb: String,
    /// The resource, with a subresource after a slash.
    pub resource: String,
    /// Whether the user's roles allowed it.
    pub allowed: bool,
    /// The pod that asked; none where the token is bound to no pod.
    pub pod: Option<String>,
}

impl Request {
    fn of(event: &Value) -> Option<Self> {
        let object = &event["objectRef"];
        let resource = [
            object["resource"].as_str()?,
            object["subresource"].as_str().unwrap_or_default(),
        ]
        .join("/");
        Some(Self {
            verb: event["verb"].as_str()?.to_owned(),
            resource: resource.trim_end_matches('/').to_owned(),
            allowed: event["annotations"]["authorization.k8s.io/decision"] == "allow",
            pod: event["user"]["extra"]["authentication.kubernetes.io/pod-name"][0]
                .as_str()
                .map(str::to_owned),
        })
    }
}

/// Runs a command to its end.
///
/// # Errors
/// Where it cannot start or exits other than 0: what it wrote to standard error.
pub fn output(command: &mut Command, input: Option<&str>) -> Result<String, String> {
    let shown = format!("{command:?}");
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let pipe = child.stdin.take();
    let done = thread::scope(|scope| {
        // Beside the reading: a command may answer before it has read everything.
        scope.spawn(move || {
            if let (Some(mut pipe), Some(text)) = (pipe, input) {
                // A command that ends before it has read everything says why itself.
                let _ = pipe.write_all(text.as_bytes());
            }
        });
        child.wait_with_output()
    })
    .map_err(|error| format!("{shown}: {error}"))?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    } else {
        Err(format!(
            "{shown} ended with {}: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        ))
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/cluster").join(name)
}

/// Where the scripts keep what they install, and the state of clusters.
pub fn cache() -> PathBuf {
    env::var_os("PGRESCUE_CACHE").map_or_else(
        || PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cache/pgrescue"),
        PathBuf::from,
    )
}

/// A program that `install.sh` built, else the one on the `PATH`.
fn installed(program: &str) -> Command {
    let built = cache().join("bin").join(program);
    if built.exists() {
        Command::new(built)
    } else {
        Command::new(program)
    }
}
