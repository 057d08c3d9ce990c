//! What happens to agents, pods, the operator and the API server in the middle of a run, and what becomes of the run.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams};
use pgrescue::api::status::FailureClass;
use pgrescue::api::{PgBackup, PgRestore, reasons};
use pgrescue::plan::report::Report;
use serde_json::json;

use crate::cluster::{cluster, output};
use crate::namespace::Namespace;
use crate::operator::{OPERATOR_NAMESPACE, REPLICAS, operator_pods};
use crate::shop::{MIDDLE, Shop};

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
    shop.back_up().await;
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
    let mut manifest = shop.backup("shop");
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
    let _replicas = REPLICAS.lock().await;
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
