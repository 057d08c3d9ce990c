//! `make demo` from nothing, the commands of the docs on it, `make demo` again, and `make demo-down`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::blocks::{Home, blocks, repository};
use crate::cluster::{cache, output};

/// A cluster of its own: the demo installs its operator in it.
const CLUSTER: &str = "demo-test";

/// Takes the demo down, also when the test fails.
struct Demo;

impl Demo {
    fn make(target: &str) -> Result<String, String> {
        let mut make = Command::new("make");
        make.current_dir(repository())
            .args(["--no-print-directory", target])
            .env("DEMO_CLUSTER", CLUSTER)
            .env("PGRESCUE_BINARY", env!("CARGO_BIN_EXE_pgrescue"))
            .env_remove("E2E_KUBECONFIG");
        output(&mut make, None)
    }

    fn state() -> PathBuf {
        cache().join("clusters").join(CLUSTER)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if Self::state().exists() {
            let _ = Self::make("demo-down");
        }
    }
}

#[test]
fn the_demo_shows_a_rewritten_foreign_server_twice_and_the_docs_commands_run_on_it() {
    let demo = Demo;
    for run in ["first", "second"] {
        let shown = Demo::make("demo").unwrap_or_else(|error| panic!("the {run} run: {error}"));
        for line in [
            "production: remote.invoice has 1000 rows of production",
            "staging:    remote.invoice has 1000 rows of staging",
        ] {
            assert!(shown.contains(line), "the {run} run does not show {line:?}:\n{shown}");
        }
        assert!(
            shown.contains("manifest.json"),
            "the {run} run shows no objects:\n{shown}"
        );
    }
    run_the_commands_of_the_docs();
    let slot = fs::read_to_string(Demo::state().join("slot")).ok();
    Demo::make("demo-down").expect("the demo can be taken down");
    assert!(!Demo::state().exists(), "the demo left {}", Demo::state().display());
    assert!(!logs().exists(), "the demo left {}", logs().display());
    if let Some(slot) = slot {
        assert_no_trace_of_node(slot.trim());
    }
    drop(demo);
}

fn logs() -> PathBuf {
    cache().join("logs").join(CLUSTER)
}

/// What a node on this machine has outside its namespaces: an interface, cgroups, processes and mounts.
fn assert_no_trace_of_node(slot: &str) {
    let interface = format!("pgrescue{slot}");
    assert!(
        !Path::new("/sys/class/net").join(&interface).exists(),
        "the interface {interface} is left"
    );
    let find = format!("find /sys/fs/cgroup -maxdepth 2 -type d -name {interface}");
    assert_eq!(shell(&find), "", "cgroups are left");
    let state = Demo::state().display().to_string();
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    assert!(!mounts.contains(&state), "mounts are left: {mounts}");
    // Not the process that looks, whose command line has the path too.
    let processes = shell(&format!(
        "grep --text --files-with-matches --fixed-strings '{state}' /proc/[0-9]*/cmdline || true"
    ));
    let others: Vec<_> = processes.lines().filter(|path| Path::new(path).exists()).collect();
    assert!(others.is_empty(), "processes are left: {others:?}");
}

fn shell(command: &str) -> String {
    output(Command::new("bash").args(["-c", command]), None).unwrap_or_else(|error| panic!("{command}: {error}"))
}

fn run_the_commands_of_the_docs() {
    let folder = tempfile::tempdir().expect("a folder");
    // As the demo says at its end: its cluster and its namespace are the current ones.
    let kubeconfig = folder.path().join("kubeconfig");
    fs::copy(Demo::state().join("kubeconfig"), &kubeconfig).expect("the demo wrote a kubeconfig");
    let context = "kubectl config set-context --current --namespace pgrescue-demo";
    run("the demo's own hint", context, &kubeconfig);
    run(
        "the namespace of the examples",
        "kubectl create namespace shop",
        &kubeconfig,
    );
    for block in blocks() {
        match &block.home {
            Home::Manifests | Home::SameAs(_) => {
                let manifest = folder.path().join("manifest.yaml");
                fs::write(&manifest, &block.text).expect("the folder is ours");
                let apply = format!("kubectl apply --dry-run=server --filename {}", manifest.display());
                run(&block.place, &apply, &kubeconfig);
            }
            Home::RunOnDemo => run(&block.place, &block.text, &kubeconfig),
            Home::HelmValues => {
                let values = folder.path().join("values.yaml");
                fs::write(&values, &block.text).expect("the folder is ours");
                let render = format!("helm template pgrescue charts/pgrescue --values {}", values.display());
                run(&block.place, &render, &kubeconfig);
            }
            _ => {}
        }
    }
}

/// Runs a block in the repository's folder, where the README's reader is.
fn run(place: &str, commands: &str, kubeconfig: &Path) {
    let path = env::var_os("PATH").expect("PATH is set");
    let path = env::join_paths([cache().join("bin")].into_iter().chain(env::split_paths(&path)));
    // The names of the images, as the scripts print them.
    let images = logs().join("images.env");
    let mut bash = Command::new("bash");
    bash.args([
        "-euo",
        "pipefail",
        "-c",
        &format!("source {}\n{commands}", images.display()),
    ])
    .current_dir(repository())
    .env("PATH", path.expect("folders without a colon"))
    .env("KUBECONFIG", kubeconfig);
    output(&mut bash, None).unwrap_or_else(|error| panic!("{place}: {error}"));
}
