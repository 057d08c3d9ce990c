//! The node that `up.sh` made on this machine: faults that need its processes and its network.

use std::fs;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::output;

/// The node, as the tests reach it from outside.
pub struct OwnNode {
    /// Name of its cgroup.
    pub cgroup: String,
    /// A process in its namespaces.
    pub pid: String,
}

impl OwnNode {
    /// Kills the processes of a pod that have this name. Nothing can catch it.
    pub fn kill(&self, pod: &Pod, name: &str) {
        self.signal("-KILL", pod, name);
    }

    /// Stops the processes of a pod that have this name, so that they do nothing at their end either.
    pub fn freeze(&self, pod: &Pod, name: &str) {
        self.signal("-STOP", pod, name);
    }

    fn signal(&self, signal: &str, pod: &Pod, name: &str) {
        let uid = pod.metadata.uid.as_deref().expect("a pod has a UID");
        let hierarchies = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(|folder| Path::new(folder).join(&self.cgroup));
        let hierarchy = hierarchies.iter().find(|folder| folder.exists());
        let mut processes = Vec::new();
        collect(hierarchy.expect("the node has a cgroup"), false, uid, &mut processes);
        processes.retain(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name));
        assert!(!processes.is_empty(), "the pod has no process {name}");
        output(Command::new("kill").arg(signal).args(processes), None).expect("it can get a signal");
    }

    /// Cuts a pod off from the API server while the returned value lives. Packets are dropped, so nobody answers.
    pub fn cut_off_api_server(&self, pod: &Pod) -> CutOff {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let cut_off = CutOff {
            node: self.pid.clone(),
            address: address.expect("a pod that runs has an address"),
        };
        cut_off.iptables("--insert");
        cut_off
    }
}

/// Collects the processes in the cgroups of a pod: a folder has the pod's UID in its name, with dashes or underscores.
fn collect(folder: &Path, within: bool, uid: &str, processes: &mut Vec<String>) {
    if within {
        let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        processes.extend(listed.lines().map(str::to_owned));
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name().to_string_lossy().replace('_', "-");
            collect(&entry.path(), within || name.contains(uid), uid, processes);
        }
    }
}

/// See [`OwnNode::cut_off_api_server`].
pub struct CutOff {
    node: String,
    address: String,
}

impl CutOff {
    fn iptables(&self, change: &str) {
        let mut command = Command::new("nsenter");
        command
            .args(["--net", "--target", &self.node, "iptables", "--wait", change, "INPUT"])
            .args([
                "--source",
                &self.address,
                "--protocol",
                "tcp",
                "--dport",
                "6443",
                "--jump",
                "DROP",
            ]);
        output(&mut command, None).expect("the node's packets can be dropped");
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        self.iptables("--delete");
    }
}
