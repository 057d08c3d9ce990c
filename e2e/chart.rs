//! What is installed: the chart's values, and the kustomize base that is made from the chart.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::blocks::{Home, blocks, repository};
use crate::cluster::{cluster, output};
use crate::operator::install_operator;

fn template(arguments: &[&str]) -> Result<String, String> {
    let mut helm = cluster().helm();
    helm.args(["template", "pgrescue"])
        .arg(repository().join("charts/pgrescue"))
        .args(arguments);
    output(&mut helm, None)
}

#[test]
fn a_value_that_the_chart_does_not_know_is_refused_by_its_name() {
    template(&[]).expect("the defaults are good");
    for (value, name) in [
        ("operator.replica=3", "replica"),
        ("replicas=3", "replicas"),
        ("agent.deadlineSeconds=0", "deadlineSeconds"),
        ("agent.deadlineSeconds=soon", "deadlineSeconds"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("admissionPolicies.references=perhaps", "references"),
        ("agent.serviceAccountName=", "serviceAccountName"),
        ("operator.namespaces[0]=", "namespaces"),
    ] {
        let refused = template(&["--set", value]).expect_err(value);
        assert!(refused.contains(name), "{value}: {refused}");
    }
}

#[test]
fn the_kustomize_base_is_what_the_chart_makes() {
    cluster();
    let rendered =
        output(&mut Command::new(repository().join("config/render.sh")), None).expect("Helm renders the chart");
    let stored = fs::read_to_string(repository().join("config/base/operator.yaml")).expect("it is stored");
    assert_eq!(stored.trim_end(), rendered.trim_end(), "run `make generate`");
}

/// What `kubectl kustomize` makes of a folder.
fn kustomize(folder: &Path) -> String {
    output(cluster().kubectl().arg("kustomize").arg(folder), None).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_api_server_takes_the_kustomize_base() {
    // Its namespace must be there even for a trial.
    install_operator();
    let base = kustomize(&repository().join("config/base"));
    let mut apply = cluster().kubectl();
    apply.args([
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--filename",
        "-",
    ]);
    let applied = output(&mut apply, Some(&base)).unwrap_or_else(|error| panic!("{error}"));
    for object in [
        "namespace/pgrescue-system",
        "customresourcedefinition.apiextensions.k8s.io/pgbackups.pgrescue.dev",
        "customresourcedefinition.apiextensions.k8s.io/pgrestores.pgrescue.dev",
        "deployment.apps/pgrescue-operator",
        "clusterrole.rbac.authorization.k8s.io/pgrescue-agent",
        "validatingadmissionpolicy.admissionregistration.k8s.io/pgrescue-agent-status",
        "validatingadmissionpolicybinding.admissionregistration.k8s.io/pgrescue-references",
    ] {
        assert!(applied.contains(object), "{object} is not in {applied}");
    }
}

#[test]
fn the_overlay_of_the_docs_names_both_images() {
    let blocks = blocks();
    let overlays: Vec<_> = blocks
        .iter()
        .filter(|block| block.home == Home::Kustomization)
        .collect();
    assert!(!overlays.is_empty());
    for block in overlays {
        let folder = tempfile::tempdir().expect("a folder");
        let (base, overlay) = (folder.path().join("config/base"), folder.path().join("overlay"));
        fs::create_dir_all(&base).expect("the folder is ours");
        fs::create_dir_all(&overlay).expect("the folder is ours");
        for file in fs::read_dir(repository().join("config/base")).expect("the base is there") {
            let file = file.expect("the base can be read");
            fs::copy(file.path(), base.join(file.file_name())).expect("the folder is ours");
        }
        fs::write(overlay.join("kustomization.yaml"), &block.text).expect("the folder is ours");
        let made = kustomize(&overlay);
        for image in [
            "image: registry.example.com/pgrescue-operator:0.1.0",
            "value: registry.example.com/pgrescue-agent:0.1.0",
        ] {
            assert!(made.contains(image), "{}: no {image:?}", block.place);
        }
        assert!(
            !made.contains("pgrescue.dev/agent:") && !made.contains("pgrescue.dev/operator:"),
            "{}",
            block.place
        );
    }
}
