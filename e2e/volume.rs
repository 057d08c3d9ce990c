//! What stands in a volume.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::cluster::cluster;
use crate::namespace::Namespace;
use crate::servers::{is_ready, restricted};

/// Name of the pod that looks into the volume.
const POD: &str = "volume";

/// A volume that a pod has mounted.
pub struct Volume<'namespace> {
    namespace: &'namespace Namespace,
}

impl Namespace {
    /// Mounts the volume of a claim in a pod of its own.
    pub async fn open_volume(&self, claim: &str) -> Volume<'_> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "shell", "image": cluster().image("AGENT"), "command": ["sleep", "infinity"],
                    "securityContext": restricted(),
                    "volumeMounts": [{"name": "volume", "mountPath": "/volume", "readOnly": true}],
                }],
                "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
            },
        });
        self.apply(&pod.to_string()).expect("a pod can be made");
        self.wait::<Pod>(POD, "ready", is_ready).await;
        Volume { namespace: self }
    }
}

impl Volume<'_> {
    /// The files, sorted.
    pub fn files(&self) -> Vec<String> {
        let find = ["exec", POD, "--", "sh", "-c", "cd /volume && find . -type f"];
        let found = self.namespace.kubectl(&find).expect("the volume can be listed");
        let mut files: Vec<String> = found
            .lines()
            .map(|line| line.trim_start_matches("./").to_owned())
            .collect();
        files.sort();
        files
    }
}
