//! Two replicas of the operator, of which one works.

use std::process::Command;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pgrescue::api::{PgBackup, PgRestore, reasons};
use tokio::time::{Instant, sleep};

use crate::cluster::{cluster, output};
use crate::namespace::{DEADLINE, Namespace};
use crate::operator::{OPERATOR_NAMESPACE, REPLICAS, backup, operator_pods, operator_story, restore};
use crate::servers::{Postgres, S3};

/// Bytes of the table, as COPY moves them, and where they stop moving.
const TABLE: u64 = 32 << 20;
const MIDDLE: u64 = TABLE / 2;

#[tokio::test]
async fn when_the_leader_is_killed_in_the_middle_of_a_run_the_other_replica_ends_it() {
    let _replicas = REPLICAS.lock().await;
    let namespace = Namespace::with_operator("replicas").await;
    let server = Postgres::start(&namespace, "production", 17, "shop").await;
    let _s3 = S3::start(&namespace, "backups").await;
    server.psql(
        "shop",
        &format!(
            "CREATE TABLE photo (id int PRIMARY KEY, pixels text NOT NULL);
             INSERT INTO photo SELECT n, (SELECT string_agg(md5(n || '/' || m), '')
                 FROM generate_series(1, {TABLE} / 1000 / 32) m) FROM generate_series(1, 1000) n;"
        ),
    );
    let (leader, other) = replicas().await;
    let before = reconciliations(&other);
    namespace
        .apply(&backup("shop", "production-db").to_string())
        .expect("applied");
    let stalled = server.stall_copy("shop", MIDDLE);
    assert!(reconciliations(&leader) > 0, "{}", metrics(&leader));
    assert_eq!(reconciliations(&other), before, "{}", metrics(&other));
    assert!(metrics(&leader).contains("pgrescue_leader 1"), "{}", metrics(&leader));
    assert!(metrics(&other).contains("pgrescue_leader 0"), "{}", metrics(&other));

    kill(&leader).await;
    // Nobody leads now: the one that is next begins this.
    namespace
        .apply(&restore("copy", "shop", "production-db", "copy").to_string())
        .expect("applied");
    stalled.go_on();
    let backup = namespace.succeeded::<PgBackup>("shop").await;
    namespace.succeeded::<PgRestore>("copy").await;
    let next = holder().await.expect("somebody leads");
    assert_ne!(next, leader);

    let rows = backup.status.as_ref().and_then(|status| status.artifact.as_ref());
    assert_eq!(rows.expect("an artefact").rows, 1000);
    assert_eq!(server.contents("copy"), server.contents("shop"));
    assert_eq!(namespace.pods_of(&backup).await.len(), 1, "{}", namespace.story());
    for run in ["shop", "copy"] {
        assert_eq!(successes(&namespace, run).await, [next.as_str()], "{run}");
    }
    replicas().await;
}

/// Waits for two replicas, both ready, of which one leads. Returns their pods, the leader first.
async fn replicas() -> (String, String) {
    let mut status = cluster().kubectl();
    status
        .args(["--namespace", OPERATOR_NAMESPACE, "rollout", "status"])
        .args(["deployment/pgrescue-operator", "--timeout=3m"]);
    output(&mut status, None).expect("the replicas become ready");
    let end = Instant::now() + DEADLINE;
    loop {
        let pods = operator_pods();
        if let Some(leader) = holder().await.filter(|holder| pods.contains(holder))
            && let [one, two] = pods.as_slice()
        {
            let other = if *one == leader { two } else { one };
            return (leader, other.clone());
        }
        assert!(
            Instant::now() < end,
            "no leader of two in time\n{}",
            operator_story("lead")
        );
        sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// The replica that holds the Lease.
async fn holder() -> Option<String> {
    let leases = Api::<Lease>::namespaced(cluster().client().await, OPERATOR_NAMESPACE);
    let lease = leases
        .get("pgrescue-operator")
        .await
        .expect("the chart names the Lease");
    lease.spec?.holder_identity
}

/// Takes a pod away at once. Where the node is ours its process is stopped before, so that it cannot give the Lease
/// back: the other replica has to see it expire.
async fn kill(name: &str) {
    if let Some(node) = cluster().own_node() {
        let pods = Api::<Pod>::namespaced(cluster().client().await, OPERATOR_NAMESPACE);
        node.freeze(&pods.get(name).await.expect("the pod is there"), "pgrescue");
    }
    let mut delete: Command = cluster().kubectl();
    delete
        .args(["--namespace", OPERATOR_NAMESPACE, "delete", "pod", name])
        .args(["--grace-period=0", "--force"]);
    output(&mut delete, None).expect("the pod can be deleted");
}

/// What a replica counted.
fn metrics(pod: &str) -> String {
    let path = format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{pod}:8080/proxy/metrics");
    output(cluster().kubectl().args(["get", "--raw", &path]), None).expect("a replica shows its metrics")
}

/// How often a replica has looked at a resource.
fn reconciliations(pod: &str) -> u64 {
    let counts = metrics(pod);
    let lines = counts
        .lines()
        .filter(|line| line.starts_with("pgrescue_reconciliation_seconds_count"));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// The replicas that told of the success of a run, one for each Event.
async fn successes(namespace: &Namespace, run: &str) -> Vec<String> {
    let about = ListParams::default().fields(&format!("regarding.name={run},reason={}", reasons::SUCCEEDED));
    let events = namespace
        .api::<Event>()
        .list(&about)
        .await
        .expect("Events can be listed");
    let tellers = events.items.into_iter().map(|event| {
        assert!(event.series.is_none(), "{}: {:?}", event.name_any(), event.series);
        event.reporting_instance.unwrap_or_default()
    });
    tellers.collect()
}
