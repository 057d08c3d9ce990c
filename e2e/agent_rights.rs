//! What an agent may write, asked with the token of its pod: the progress of its own run and nothing else.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use pgrescue::api::status::Phase;
use pgrescue::api::{PgBackup, PgRestore, conditions};
use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::namespace::Namespace;
use crate::operator::{Run, backup, restore};

const NOT_ITS_RUN: &str = "a pod may write the status of its own run alone";
const NOT_ITS_CONDITIONS: &str =
    "the conditions Ready, Reconciling, Stalled and Succeeded are the controller's; an agent may not change them";

/// Two backups whose agents wait for a Secret, and a restore that waits for one of them.
async fn waiting_runs(namespace: &Namespace) -> [PgBackup; 2] {
    for manifest in [
        backup("mine", "absent"),
        backup("other", "absent"),
        restore("copy", "mine", "absent", "copy"),
    ] {
        namespace.apply(&manifest.to_string()).expect("applied");
    }
    let mut runs = Vec::new();
    for name in ["mine", "other"] {
        // The agent may say what it waits for before the controller has seen its pod run.
        let waits = |run: &PgBackup| {
            run.condition(conditions::REFERENCES_RESOLVED).is_some() && run.run().phase == Some(Phase::Running)
        };
        runs.push(namespace.wait(name, "waiting for its Secret", waits).await);
    }
    namespace
        .wait::<PgRestore>("copy", "seen", |run| run.run().phase.is_some())
        .await;
    runs.try_into().expect("two of them")
}

/// A client with a token of the ServiceAccount of the agents, bound to a pod as mounted tokens are.
async fn agent(namespace: &Namespace, pod: Option<&str>) -> Client {
    let mut arguments = vec!["create", "token", "default"];
    if let Some(pod) = pod {
        arguments.extend(["--bound-object-kind=Pod", "--bound-object-name", pod]);
    }
    let token = namespace.kubectl(&arguments).expect("a token can be made");
    cluster().client_with_token(token.trim()).await
}

/// Writes fields of a status as an agent does: by server-side apply.
async fn write<R: Run>(client: &Client, namespace: &Namespace, name: &str, status: &Value) -> Result<R, String> {
    let body = json!({"apiVersion": R::api_version(&()), "kind": R::kind(&()), "status": status});
    Api::<R>::namespaced(client.clone(), &namespace.name)
        .patch_status(name, &PatchParams::apply("e2e").force(), &Patch::Apply(body))
        .await
        .map_err(|error| error.to_string())
}

fn denied<T: std::fmt::Debug, E: ToString>(answer: Result<T, E>, why: &str) {
    let refusal = answer.map_err(|error| error.to_string()).expect_err(why);
    assert!(refusal.contains(why), "{why:?} is not in {refusal:?}");
}

fn progress() -> Value {
    json!({"progress": {
        "percent": 42, "step": "e2e", "bytes": 1, "rows": 2, "tables": 3, "tablesTotal": 4, "bytesPerSecond": 5,
    }})
}

fn condition(r#type: &str) -> Value {
    json!({"conditions": [{
        "type": r#type, "status": "True", "reason": "E2e", "message": "written by a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]})
}

#[tokio::test]
async fn an_agent_writes_the_progress_of_its_own_run_and_no_outcome() {
    let namespace = Namespace::with_operator("agent-status").await;
    let [mine, other] = waiting_runs(&namespace).await;
    let pods = namespace.pods_of(&mine).await;
    let pod = pods.first().expect("the run has a pod").name_any();
    let agent_of_mine = agent(&namespace, Some(&pod)).await;
    let write_mine = async |status: Value| write::<PgBackup>(&agent_of_mine, &namespace, "mine", &status).await;

    let written = write_mine(progress()).await.expect("its own progress is its own");
    assert_eq!(written.run().progress.map(|progress| progress.percent), Some(42));
    let written = write_mine(condition(conditions::PREFLIGHT_PASSED)).await;
    let written = written.expect("its own condition is its own");
    assert!(written.condition(conditions::PREFLIGHT_PASSED).is_some());

    let failure = json!({"class": "Permanent", "reason": "E2e", "message": "written by a test"});
    let artifact = json!({
        "snapshot": "e2e", "location": "nowhere", "bytes": 0, "rows": 0, "databases": [], "manifestSha256": "",
    });
    for (field, value) in [
        ("phase", json!("Succeeded")),
        ("observedGeneration", json!(99)),
        ("job", json!({"name": other.run().job.expect("it has a Job").name})),
        ("followUp", json!({"purpose": "Check", "name": "e2e"})),
        ("startTime", json!("2026-01-01T00:00:00Z")),
        ("completionTime", json!("2026-01-01T00:00:00Z")),
        ("failure", failure),
        ("artifact", artifact),
    ] {
        let why = format!("status.{field} is the controller's; an agent may not change it");
        denied(write_mine(json!({field: value})).await, &why);
    }
    for r#type in conditions::OF_CONTROLLER {
        denied(write_mine(condition(r#type)).await, NOT_ITS_CONDITIONS);
    }
    let own = Api::<PgBackup>::namespaced(agent_of_mine.clone(), &namespace.name);
    let none = Patch::Merge(json!({"status": {"conditions": []}}));
    denied(
        own.patch_status("mine", &PatchParams::default(), &none).await,
        NOT_ITS_CONDITIONS,
    );
    assert_eq!(
        namespace
            .api::<PgBackup>()
            .get("mine")
            .await
            .expect("it is there")
            .run()
            .phase,
        mine.run().phase
    );
}

#[tokio::test]
async fn an_agent_reaches_no_other_run_no_spec_and_no_secret() {
    let namespace = Namespace::with_operator("agent-reach").await;
    let [mine, _other] = waiting_runs(&namespace).await;
    let pods = namespace.pods_of(&mine).await;
    let pod = pods.first().expect("the run has a pod").name_any();
    let agent_of_mine = agent(&namespace, Some(&pod)).await;
    denied(
        write::<PgBackup>(&agent_of_mine, &namespace, "other", &progress()).await,
        NOT_ITS_RUN,
    );
    denied(
        write::<PgRestore>(&agent_of_mine, &namespace, "copy", &progress()).await,
        NOT_ITS_RUN,
    );
    let no_pod = agent(&namespace, None).await;
    denied(
        write::<PgBackup>(&no_pod, &namespace, "mine", &progress()).await,
        NOT_ITS_RUN,
    );

    let own = Api::<PgBackup>::namespaced(agent_of_mine.clone(), &namespace.name);
    let others = json!({"spec": {"databases": {"include": ["another"]}}, "metadata": {"labels": {"by": "an-agent"}}});
    denied(
        own.patch("mine", &PatchParams::default(), &Patch::Merge(&others)).await,
        "cannot patch resource \"pgbackups\"",
    );
    let answer = own
        .patch_status("mine", &PatchParams::default(), &Patch::Merge(&others))
        .await
        .expect("what is no status is passed over");
    assert_eq!(
        (answer.spec, answer.metadata.generation, answer.metadata.labels),
        (mine.spec, mine.metadata.generation, mine.metadata.labels)
    );
    let secrets = Api::<Secret>::namespaced(agent_of_mine.clone(), &namespace.name);
    denied(secrets.get("absent").await, "cannot get resource \"secrets\"");
    denied(
        secrets.list(&ListParams::default()).await,
        "cannot list resource \"secrets\"",
    );
    assert_eq!(
        rights(agent_of_mine, &namespace).await,
        ["pgbackups/status", "pgrestores/status"]
            .map(|resource| ("patch".to_owned(), resource.to_owned()))
            .into()
    );
}

/// All that a user may do in a namespace, but for asking what it may do.
async fn rights(client: Client, namespace: &Namespace) -> BTreeSet<(String, String)> {
    let review = serde_json::from_value(json!({"metadata": {}, "spec": {"namespace": namespace.name}}));
    let review: SelfSubjectRulesReview = review.expect("a review");
    let answer = Api::<SelfSubjectRulesReview>::all(client)
        .create(&PostParams::default(), &review)
        .await
        .expect("everybody may ask");
    let rules = answer.status.expect("it was answered").resource_rules;
    let asking = ["authorization.k8s.io", "authentication.k8s.io"];
    rules
        .into_iter()
        .filter(|rule| {
            let groups = rule.api_groups.iter().flatten();
            !groups.into_iter().all(|group| asking.contains(&group.as_str()))
        })
        .flat_map(|rule| {
            let resources = rule.resources.unwrap_or_default();
            let pairs = rule.verbs.into_iter().flat_map(move |verb| {
                resources
                    .clone()
                    .into_iter()
                    .map(move |resource| (verb.clone(), resource))
            });
            pairs.collect::<Vec<_>>()
        })
        .collect()
}
