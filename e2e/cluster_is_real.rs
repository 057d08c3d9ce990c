//! What the other tests take for granted of the cluster.

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams};
use serde_json::{Value, json};

use crate::cluster::{Request, cluster};
use crate::namespace::Namespace;
use crate::servers::{POSTGRES_PASSWORD, PortForward, Postgres, S3, S3_ACCESS_KEY, S3_SECRET_KEY, restricted};

/// A Job that runs one shell command in the agent's image, as a hardened pod.
fn job(name: &str, command: &str) -> Value {
    let mut security = restricted();
    security["readOnlyRootFilesystem"] = true.into();
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "shell", "image": cluster().image("AGENT"), "command": ["sh", "-c", command],
                "securityContext": security,
                "resources": {"limits": {"memory": "32Mi"}},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
        }}},
    })
}

/// Waits until the Job ended and returns how its container did.
async fn ended(namespace: &Namespace, name: &str) -> ContainerStateTerminated {
    namespace
        .wait::<Job>(name, "complete or failed", |job| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| {
                all.iter()
                    .any(|one| matches!(one.type_.as_str(), "Complete" | "Failed"))
            })
        })
        .await;
    let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
    let pods = namespace.api::<Pod>().list(&of_job).await.expect("pods can be listed");
    let pod = pods.items.into_iter().next().expect("the Job has a pod");
    pod.status
        .and_then(|status| status.container_statuses)
        .and_then(|statuses| statuses.into_iter().next())
        .and_then(|container| container.state)
        .and_then(|state| state.terminated)
        .expect("the container ended")
}

#[tokio::test]
async fn a_hardened_pod_runs_as_the_images_user_and_a_lax_one_is_refused() {
    let namespace = Namespace::new("restricted").await;
    namespace
        .apply(&job("hardened", "id -u; touch /x 2>/dev/null || echo read-only").to_string())
        .expect("admitted");
    let end = ended(&namespace, "hardened").await;
    assert_eq!(
        (end.exit_code, namespace.logs("job/hardened").as_str()),
        (0, "65532\nread-only\n")
    );

    let lax = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lax"},
        "spec": {"containers": [{"name": "shell", "image": cluster().image("AGENT")}]},
    });
    let refusal = namespace.apply(&lax.to_string()).expect_err("Pod Security refuses it");
    assert!(
        refusal.contains("violates PodSecurity \"restricted:latest\""),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_pod_reaches_a_postgresql_server_by_the_name_of_its_service() {
    let namespace = Namespace::new("dns").await;
    let production = Postgres::start(&namespace, "production", 18, "shop").await;
    assert_eq!(
        production.psql("shop", "SELECT 'it''s', current_database()"),
        "it's|shop"
    );

    let host = format!("production.{}.svc.cluster.local", namespace.name);
    let psql = format!(
        "PGPASSWORD={POSTGRES_PASSWORD} /usr/lib/postgresql/14/bin/psql -AtX -h {host} -U postgres -d shop \
         -c 'SHOW server_version_num' && ! getent hosts nobody.{}.svc.cluster.local",
        namespace.name
    );
    namespace.apply(&job("client", &psql).to_string()).expect("admitted");
    let end = ended(&namespace, "client").await;
    assert_eq!(end.exit_code, 0, "{}", namespace.story());
    assert!(
        namespace.logs("job/client").starts_with("18"),
        "{}",
        namespace.logs("job/client")
    );
}

#[tokio::test]
async fn a_container_over_its_memory_limit_ends_as_oom_killed() {
    let namespace = Namespace::new("oom").await;
    namespace
        .apply(&job("greedy", "exec tail /dev/zero").to_string())
        .expect("admitted");
    let end = ended(&namespace, "greedy").await;
    assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("OOMKilled")));
}

#[tokio::test]
async fn a_termination_message_is_read_from_a_pod_that_failed() {
    let namespace = Namespace::new("message").await;
    let command = r#"echo '{"outcome":"failed"}' >/dev/termination-log; exit 3"#;
    namespace
        .apply(&job("reporter", command).to_string())
        .expect("admitted");
    let end = ended(&namespace, "reporter").await;
    assert_eq!(
        (end.exit_code, end.message.as_deref()),
        (3, Some("{\"outcome\":\"failed\"}\n"))
    );
    let reasons: Vec<String> = namespace
        .events("reporter")
        .into_iter()
        .map(|(reason, _)| reason)
        .collect();
    assert!(reasons.contains(&"BackoffLimitExceeded".to_owned()), "{reasons:?}");
}

#[tokio::test]
async fn the_s3_server_keeps_an_object_that_came_over_a_forwarded_port() {
    let namespace = Namespace::new("s3").await;
    let s3 = S3::start(&namespace, "backups").await;
    let forward = PortForward::open(&namespace, "s3", S3::PORT);
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://127.0.0.1:{}", forward.port))
        .force_path_style(true)
        .credentials_provider(Credentials::new(S3_ACCESS_KEY, S3_SECRET_KEY, None, None, "e2e"))
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);
    let put = client
        .put_object()
        .bucket("backups")
        .key("shop/a b.txt")
        .body(b"canary".to_vec().into());
    put.send().await.expect("the server takes an object");
    assert_eq!(s3.keys(), ["shop/a b.txt"]);
    assert!(s3.contains("canary") && s3.contains("a b.txt") && !s3.contains("no such text"));
}

#[tokio::test]
async fn a_volume_keeps_what_a_pod_wrote_for_the_next_pod() {
    let namespace = Namespace::new("volume").await;
    namespace.volume_claim("backups");
    for (name, command) in [("writer", "echo kept >/volume/file"), ("reader", "cat /volume/file")] {
        let mut job = job(name, command);
        let pod = &mut job["spec"]["template"]["spec"];
        pod["containers"][0]["volumeMounts"] = json!([{"name": "volume", "mountPath": "/volume"}]);
        pod["volumes"] = json!([{"name": "volume", "persistentVolumeClaim": {"claimName": "backups"}}]);
        pod["securityContext"] = json!({"fsGroup": 65532});
        namespace.apply(&job.to_string()).expect("admitted");
        assert_eq!(ended(&namespace, name).await.exit_code, 0, "{}", namespace.story());
    }
    assert_eq!(namespace.logs("job/reader"), "kept\n");
    namespace
        .wait::<PersistentVolumeClaim>("backups", "bound", |claim| {
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
        })
        .await;
}

#[tokio::test]
async fn the_requests_of_a_service_account_are_recorded() {
    let namespace = Namespace::new("audit").await;
    let token = namespace.kubectl(&["create", "token", "default"]).expect("a token");
    let pods = Api::<Pod>::namespaced(cluster().client_with_token(token.trim()).await, &namespace.name);
    let refusal = pods
        .logs("nobody", &LogParams::default())
        .await
        .expect_err("the account has no rights");
    assert!(
        refusal.to_string().contains("cannot get resource \"pods/log\""),
        "{refusal}"
    );
    let Some(requests) = cluster().requests_of(&namespace.name, "default") else {
        return;
    };
    let denied = Request {
        verb: "get".to_owned(),
        resource: "pods/log".to_owned(),
        allowed: false,
        pod: None,
    };
    assert!(requests.contains(&denied), "{requests:?}");
}
