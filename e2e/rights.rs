//! What runs need of a cluster: pods of Pod Security `restricted`, and the operator's few rights.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace as KubernetesNamespace, Pod};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use pgrescue::api::{PgBackup, PgRestore, conditions};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::cluster::{cluster, output};
use crate::namespace::{DEADLINE, Namespace};
use crate::operator::{OPERATOR_NAMESPACE, Run, backup, operator_pods, restore};
use crate::servers::{Postgres, S3};

/// What was seen of a backup and a restore, from their beginning to the deletion of the artefact.
struct Lives {
    /// Label of the namespace by which Pod Security is enforced.
    enforced: Option<String>,
    /// What the API server said of a pod that does not meet it.
    refusal: String,
    /// Names of the pods of the backup, the restore and the deletion.
    pods: [Vec<String>; 3],
}

/// The runs are made once for the tests of this file.
async fn lives() -> &'static Lives {
    static LIVES: OnceCell<Lives> = OnceCell::const_new();
    LIVES.get_or_init(live).await
}

async fn live() -> Lives {
    let namespace = Namespace::with_operator("rights").await;
    let mut manifest = backup("shop", "production-db");
    manifest["spec"]["deletionPolicy"] = "Delete".into();
    namespace.apply(&manifest.to_string()).expect("applied");
    delete_waiting_agent(&namespace).await;
    let production = Postgres::start(&namespace, "production", 18, "shop").await;
    production.psql("shop", "CREATE TABLE item AS SELECT n FROM generate_series(1, 1000) n");
    // The backup waits for it: what is stored must be there before.
    let s3 = S3::start(&namespace, "backups").await;
    let backup = namespace.succeeded::<PgBackup>("shop").await;
    namespace
        .apply(&restore("copy", "shop", "production-db", "copy").to_string())
        .expect("applied");
    let restore = namespace.succeeded::<PgRestore>("copy").await;
    assert_eq!(production.contents("copy"), production.contents("shop"));
    let of_backup = names(&namespace.pods_of(&backup).await);
    let of_restore = names(&namespace.pods_of(&restore).await);

    assert!(!s3.objects().is_empty());
    namespace
        .kubectl(&["delete", "pgbackup", "shop", "--timeout=2m"])
        .unwrap_or_else(|error| panic!("{error}\n{}", namespace.story()));
    // What backups share goes with a prune.
    assert!(
        !s3.objects().iter().any(|key| key.contains("/snapshots/")),
        "{:?}",
        s3.objects()
    );
    let mut of_deletion = names(&namespace.pods_of(&backup).await);
    of_deletion.retain(|pod| !of_backup.contains(pod));

    let lax = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lax"},
        "spec": {"containers": [{"name": "shell", "image": cluster().image("AGENT")}]},
    });
    let labels = Api::<KubernetesNamespace>::all(cluster().client().await)
        .get(&namespace.name)
        .await
        .expect("the namespace is there")
        .metadata
        .labels;
    Lives {
        enforced: labels.and_then(|labels| labels.get("pod-security.kubernetes.io/enforce").cloned()),
        refusal: namespace.apply(&lax.to_string()).expect_err("Pod Security refuses it"),
        pods: [of_backup, of_restore, of_deletion],
    }
}

fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}

/// Deletes the pod of an agent that waits for its Secrets: the operator looks at it before it lets it go.
async fn delete_waiting_agent(namespace: &Namespace) {
    let waits = |run: &PgBackup| run.condition(conditions::REFERENCES_RESOLVED).is_some();
    let run = namespace
        .wait::<PgBackup>("shop", "waiting for its Secrets", waits)
        .await;
    let pods = namespace.pods_of(&run).await;
    let pod = pods.first().expect("the run has a pod").name_any();
    let deleted = namespace.api::<Pod>().delete(&pod, &DeleteParams::default()).await;
    deleted.expect("a pod can be deleted");
}

#[tokio::test]
async fn runs_and_deletions_work_under_pod_security_restricted() {
    let Lives {
        enforced,
        refusal,
        pods,
    } = lives().await;
    assert_eq!(enforced.as_deref(), Some("restricted"));
    assert!(
        refusal.contains("violates PodSecurity \"restricted:latest\""),
        "{refusal}"
    );
    for pods in pods {
        assert!(!pods.is_empty(), "a Job without a pod");
    }
    let mut operator = cluster().kubectl();
    operator.args([
        "get",
        "namespace",
        OPERATOR_NAMESPACE,
        "--output=jsonpath={.metadata.labels}",
    ]);
    let labels = output(&mut operator, None).expect("the operator has a namespace");
    assert!(
        labels.contains(r#""pod-security.kubernetes.io/enforce":"restricted""#),
        "{labels}"
    );
    assert!(!operator_pods().is_empty());
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// The verbs of the operator's roles that show in requests, with the resource of each.
fn granted() -> BTreeSet<(String, String)> {
    let mut granted = BTreeSet::new();
    for rules in [
        include_str!("../charts/pgrescue/files/operator-rules.yaml"),
        include_str!("../charts/pgrescue/files/operator-own-namespace-rules.yaml"),
    ] {
        let rules: Vec<Rule> = serde_saphyr::from_str(rules).expect("the chart's rules");
        for Rule { resources, verbs } in rules {
            for resource in &resources {
                granted.extend(verbs.iter().map(|verb| (verb.clone(), resource.clone())));
            }
        }
    }
    // Asked by the API server, when a binding is made.
    granted.remove(&("bind".to_owned(), "clusterroles".to_owned()));
    granted
}

#[tokio::test]
async fn the_operator_uses_every_right_that_it_has_and_asks_for_no_other() {
    lives().await;
    let granted = granted();
    let end = Instant::now() + DEADLINE;
    loop {
        let Some(requests) = cluster().requests_of(OPERATOR_NAMESPACE, "pgrescue-operator") else {
            return;
        };
        let made: BTreeSet<_> = requests
            .iter()
            .map(|request| (request.verb.clone(), request.resource.clone()))
            .collect();
        let of_secrets: Vec<_> = requests
            .iter()
            .filter(|one| one.resource.starts_with("secrets"))
            .collect();
        let refused: Vec<_> = requests.iter().filter(|request| !request.allowed).collect();
        let other: Vec<_> = made.difference(&granted).collect();
        assert!(
            of_secrets.is_empty() && refused.is_empty() && other.is_empty(),
            "of Secrets: {of_secrets:?}\nrefused: {refused:?}\nnot granted: {other:?}"
        );
        let unused: Vec<_> = granted.difference(&made).collect();
        if unused.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "not used: {unused:?}");
        sleep(std::time::Duration::from_secs(1)).await;
    }
}
