//! What happens to agents, pods, the operator and the API server in the middle of a run, and what becomes of the run.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams};
use pgrescue::api::status::FailureClass;
use pgrescue::api::{PgBackup, PgRestore, reasons};
use pgrescue::plan::report::Report;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cluster::{cluster, output};
use crate::namespace::{DEADLINE, Namespace};
use crate::operator::{OPERATOR_NAMESPACE, Run, backup, operator_pods, restore};
use crate::servers::{Postgres, S3, StalledCopy};

/// Bytes of the table, as COPY moves them: stored they are several parts of an upload.
const TABLE: u64 = 64 << 20;
/// Where the rows stop moving: more than one part of the upload was sent by then, and much is left to do.
const MIDDLE: u64 = TABLE * 3 / 4;

/// A database with a large table, an S3 server, and a namespace for them.
struct Shop<'namespace> {
    namespace: &'namespace Namespace,
    server: Postgres<'namespace>,
    s3: S3<'namespace>,
}

impl<'namespace> Shop<'namespace> {
    async fn open(namespace: &'namespace Namespace, major: u32) -> Self {
        let server = Postgres::start(namespace, "production", major, "shop").await;
        let s3 = S3::start(namespace, "backups").await;
        server.psql(
            "shop",
            &format!(
                "CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
                 INSERT INTO item (name) SELECT md5(n::text) FROM generate_series(1, 1000) n;
                 CREATE TABLE photo (id int PRIMARY KEY REFERENCES item, pixels text NOT NULL);
                 INSERT INTO photo SELECT id, (SELECT string_agg(md5(item.id || '/' || n), '')
                     FROM generate_series(1, {TABLE} / 1000 / 32) n) FROM item;"
            ),
        );
        Self { namespace, server, s3 }
    }

    /// Begins a backup and stops it in the middle of an upload. Returns the pod of its agent.
    async fn backup_in_the_middle(&self) -> (StalledCopy<'_>, Pod) {
        self.apply(&backup("shop", "production-db"));
        let stalled = self.server.stall_copy("shop", MIDDLE);
        self.eventually("the bucket has a part of the upload", || self.s3.unfinished_parts() > 0)
            .await;
        (stalled, self.agent::<PgBackup>("shop").await)
    }

    /// Makes a backup, begins a restore into `copy` and stops it in the middle of the rows.
    async fn restore_in_the_middle(&self) -> (StalledCopy<'_>, Pod) {
        self.apply(&backup("shop", "production-db"));
        self.namespace.succeeded::<PgBackup>("shop").await;
        self.apply(&restore("copy", "shop", "production-db", "copy"));
        let stalled = self.server.stall_copy("copy", MIDDLE);
        (stalled, self.agent::<PgRestore>("copy").await)
    }

    fn apply(&self, manifest: &serde_json::Value) {
        self.namespace.apply(&manifest.to_string()).expect("applied");
    }

    /// The pod whose agent works for a run now.
    async fn agent<R: Run>(&self, name: &str) -> Pod {
        let run = self.namespace.api::<R>().get(name).await.expect("the run is there");
        let pods = self.namespace.pods_of(&run).await;
        pods.into_iter().next_back().expect("the run has a pod")
    }

    /// Waits until the agent of a pod has ended, and returns how.
    async fn agent_ended(&self, pod: &Pod) -> ContainerStateTerminated {
        let ended = |pod: &Pod| terminated(pod).is_some();
        let pod = self.namespace.wait::<Pod>(&pod.name_any(), "ended", ended).await;
        terminated(&pod).expect("it ended")
    }

    async fn eventually(&self, what: &str, condition: impl Fn() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !condition() {
            assert!(Instant::now() < end, "not in time: {what}\n{}", self.namespace.story());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The backup ended well after `attempts` pods, the bucket holds it and nothing else, and what it holds is what
    /// the database holds.
    async fn backup_is_whole(&self, attempts: usize) {
        let run = self.namespace.succeeded::<PgBackup>("shop").await;
        self.made_attempts(&run, attempts).await;
        assert_eq!(self.s3.unfinished_parts(), 0, "{:?}", self.s3.keys());
        let snapshot = run
            .status
            .and_then(|status| status.artifact)
            .expect("an artefact")
            .snapshot;
        let expected = ["globals.sql", "manifest.json", "shop/archive.dump", "shop/pre-data.sql"]
            .map(|object| format!("e2e/snapshots/{snapshot}/{object}"));
        assert_eq!(self.s3.objects(), expected);
        self.apply(&restore("copy", "shop", "production-db", "copy"));
        self.namespace.succeeded::<PgRestore>("copy").await;
        self.copy_is_whole();
    }

    fn copy_is_whole(&self) {
        assert_eq!(self.server.contents("copy"), self.server.contents("shop"));
    }

    /// A run had so many pods, not counted those that were deleted.
    async fn made_attempts<R: Run>(&self, run: &R, attempts: usize) {
        let mut pods = self.namespace.pods_of(run).await;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        assert_eq!(pods.len(), attempts, "{}", self.namespace.story());
    }
}

fn terminated(pod: &Pod) -> Option<ContainerStateTerminated> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    container.state.as_ref()?.terminated.clone()
}

fn report(end: &ContainerStateTerminated) -> Report {
    let message = end.message.as_deref().expect("the agent left a report");
    serde_json::from_str(message).expect("a report is JSON")
}

#[tokio::test]
async fn a_backup_whose_agent_is_killed_is_made_by_the_next_attempt() {
    let Some(node) = cluster().own_node() else { return };
    let namespace = Namespace::with_operator("killed").await;
    let shop = Shop::open(&namespace, 17).await;
    let (stalled, pod) = shop.backup_in_the_middle().await;
    node.kill(&pod, "pgrescue");
    let end = shop.agent_ended(&pod).await;
    assert_eq!((end.exit_code, end.message), (137, None));
    assert!(shop.s3.unfinished_parts() > 0, "a killed agent cleans nothing up");
    stalled.go_on();
    shop.backup_is_whole(2).await;
}

#[tokio::test]
async fn an_agent_that_is_told_to_stop_aborts_its_upload_and_the_next_attempt_makes_the_backup() {
    let namespace = Namespace::with_operator("stopped").await;
    let shop = Shop::open(&namespace, 18).await;
    let (stalled, pod) = shop.backup_in_the_middle().await;
    let pods = namespace.api::<Pod>();
    pods.delete(&pod.name_any(), &DeleteParams::default())
        .await
        .expect("a pod can be deleted");
    let end = shop.agent_ended(&pod).await;
    // The next attempt begins no sooner than 10 s later.
    assert_eq!(shop.s3.keys(), Vec::<String>::new());
    let failure = report(&end).failure.expect("it did not succeed");
    assert_eq!((end.exit_code, failure.class), (12, FailureClass::Interrupted));
    stalled.go_on();
    shop.backup_is_whole(1).await;
}

#[tokio::test]
async fn a_backup_whose_pod_is_evicted_is_made_by_the_next_pod() {
    let namespace = Namespace::with_operator("evicted").await;
    let shop = Shop::open(&namespace, 17).await;
    let (stalled, pod) = shop.backup_in_the_middle().await;
    let evicted = namespace
        .api::<Pod>()
        .evict(&pod.name_any(), &EvictParams::default())
        .await;
    evicted.expect("a pod can be evicted");
    shop.agent_ended(&pod).await;
    stalled.go_on();
    shop.backup_is_whole(1).await;
}

#[tokio::test]
async fn a_restore_whose_agent_is_killed_doubles_no_row() {
    let Some(node) = cluster().own_node() else { return };
    let namespace = Namespace::with_operator("killed-restore").await;
    let shop = Shop::open(&namespace, 18).await;
    let (stalled, pod) = shop.restore_in_the_middle().await;
    node.kill(&pod, "pgrescue");
    shop.agent_ended(&pod).await;
    stalled.go_on();
    let run = namespace.succeeded::<PgRestore>("copy").await;
    shop.made_attempts(&run, 2).await;
    shop.copy_is_whole();
}

#[tokio::test]
async fn a_backup_whose_agent_runs_out_of_memory_is_made_by_the_next_attempt() {
    let namespace = Namespace::with_operator("memory").await;
    let shop = Shop::open(&namespace, 17).await;
    let mut manifest = backup("shop", "production-db");
    manifest["spec"]["job"] = json!({"resources": {"limits": {"memory": "128Mi"}}});
    shop.apply(&manifest);
    let stalled = shop.server.stall_copy("shop", MIDDLE);
    let pod = shop.agent::<PgBackup>("shop").await;
    // Files in memory count as the container's, and stay while it runs. What comes on top of them is taken by many
    // processes, none of which is as large as the agent: it is killed first.
    let hog = "head -c 60M /dev/zero >/tmp/hog; \
               for n in $(seq 24); do (hold=$(head -c 4M /dev/zero | tr '\\0' x); sleep 600) & done; wait";
    let _ = namespace.kubectl(&["exec", &pod.name_any(), "--", "sh", "-c", hog]);
    let end = shop.agent_ended(&pod).await;
    assert_eq!(end.reason.as_deref(), Some("OOMKilled"), "{end:?}");
    stalled.go_on();
    shop.backup_is_whole(2).await;
}

#[tokio::test]
async fn a_run_ends_as_it_did_although_the_operator_was_killed_meanwhile() {
    let namespace = Namespace::with_operator("operator").await;
    let shop = Shop::open(&namespace, 18).await;
    let (stalled, pod) = shop.backup_in_the_middle().await;
    let mut kill = cluster().kubectl();
    kill.args([
        "--namespace",
        OPERATOR_NAMESPACE,
        "delete",
        "pod",
        "--grace-period=0",
        "--force",
    ]);
    output(kill.args(operator_pods()), None).expect("the operator's pods can be deleted");
    stalled.go_on();
    shop.agent_ended(&pod).await;
    shop.backup_is_whole(1).await;
    let ends: Vec<_> = namespace
        .events("shop")
        .into_iter()
        .filter(|(reason, _)| reason == reasons::SUCCEEDED)
        .collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
}

#[tokio::test]
async fn an_agent_works_on_while_the_api_server_is_away() {
    let Some(node) = cluster().own_node() else { return };
    let namespace = Namespace::with_operator("away").await;
    let shop = Shop::open(&namespace, 17).await;
    let (stalled, pod) = shop.backup_in_the_middle().await;
    let cut_off = node.cut_off_api_server(&pod);
    let name = pod.name_any();
    shop.eventually("the agent misses the API server", || {
        namespace.logs(&name).contains("the API server did not answer in time")
    })
    .await;
    stalled.go_on();
    let end = shop.agent_ended(&pod).await;
    assert_eq!(end.exit_code, 0, "{end:?}");
    drop(cut_off);
    shop.backup_is_whole(1).await;
}
