//! What a user must be allowed to `get` to name it in a resource.

use kube::api::PostParams;
use kube::{Api, Client};
use pgrescue::api::{PgBackup, PgRestore};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cluster::cluster;
use crate::namespace::{DEADLINE, Namespace};
use crate::operator::Run;

/// A manifest that names one object, which its author has to be allowed to get.
struct Case {
    /// The object, as the refusal has it.
    kind: &'static str,
    name: &'static str,
    manifest: Value,
}

/// A `PgBackup` that names no object, with fields of `spec` changed.
fn backup_with(changes: &Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "pgrescue.dev/v1alpha1", "kind": "PgBackup", "metadata": {"name": "named"},
        "spec": {
            "connection": {"host": "production", "user": "postgres", "database": "shop"},
            "storage": {"s3": {"bucket": "backups", "region": "us-east-1"}},
        },
    });
    merge(&mut manifest["spec"], changes);
    manifest
}

/// A `PgRestore` that names no object but the `PgBackup` `shop`, with fields of `spec` changed.
fn restore_with(changes: &Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "pgrescue.dev/v1alpha1", "kind": "PgRestore", "metadata": {"name": "named"},
        "spec": {
            "source": {"backup": {"name": "shop"}},
            "target": {"connection": {"host": "staging", "user": "postgres"}, "database": "copy"},
        },
    });
    merge(&mut manifest["spec"], changes);
    manifest
}

fn merge(into: &mut Value, changes: &Value) {
    json_patch::merge(into, changes);
}

fn key(name: &str) -> Value {
    json!({"name": name, "key": "key"})
}

fn rule(changes: &Value) -> Value {
    let mut rule = json!({"match": {"name": "billing"}});
    merge(&mut rule, changes);
    json!({"foreignServers": [rule]})
}

fn of_backups() -> Vec<Case> {
    let tls = |tls: Value| json!({"connection": {"tls": tls}});
    let s3 = |s3: Value| json!({"storage": {"s3": s3}});
    let secrets = [
        ("server", json!({"connection": {"secretRef": {"name": "server"}}})),
        (
            "password",
            json!({"connection": {"passwordSecretRef": key("password")}}),
        ),
        ("root", tls(json!({"rootCertificate": {"secretKeyRef": key("root")}}))),
        (
            "certificate",
            tls(json!({"clientCertificate": {"secretKeyRef": key("certificate")}})),
        ),
        (
            "client-key",
            tls(json!({"clientKey": {"secretKeyRef": key("client-key")}})),
        ),
        ("bucket", s3(json!({"credentialsSecretRef": {"name": "bucket"}}))),
        ("ca", s3(json!({"caBundle": {"secretKeyRef": key("ca")}}))),
    ];
    let others = [
        (
            "ConfigMap",
            "root",
            tls(json!({"rootCertificate": {"configMapKeyRef": key("root")}})),
        ),
        (
            "ServiceAccount",
            "privileged",
            json!({"job": {"serviceAccountName": "privileged"}}),
        ),
        (
            "PersistentVolumeClaim",
            "archive",
            json!({"storage": {"s3": null, "volume": {"claimName": "archive"}}}),
        ),
    ];
    let secrets = secrets.map(|(name, changes)| ("Secret", name, changes));
    let all = secrets.into_iter().chain(others);
    all.map(|(kind, name, changes)| Case {
        kind,
        name,
        manifest: backup_with(&changes),
    })
    .collect()
}

fn of_restores() -> Vec<Case> {
    let secret = |name: &str| json!({"secretRef": {"name": name}});
    let mapping = json!([{"localUser": "app", "secretRef": {"name": "mapping"}}]);
    let tables = json!([{"options": secret("table")}]);
    let cases = [
        ("Secret", "target", json!({"target": {"connection": secret("target")}})),
        ("Secret", "mapping", rule(&json!({"userMappings": mapping}))),
        ("Secret", "options", rule(&json!({"options": secret("options")}))),
        ("Secret", "table", rule(&json!({"foreignTables": tables}))),
        ("Secret", "wrapper", rule(&json!({"wrapperOptions": secret("wrapper")}))),
        (
            "Secret",
            "publisher",
            json!({"subscriptions": {"connections": {"orders": {"name": "publisher"}}}}),
        ),
        (
            "ServiceAccount",
            "privileged",
            json!({"job": {"serviceAccountName": "privileged"}}),
        ),
        ("PgBackup", "shop", json!({})),
    ];
    cases
        .into_iter()
        .map(|(kind, name, changes)| Case {
            kind,
            name,
            manifest: restore_with(&changes),
        })
        .collect()
}

/// What the API server says of a manifest of this user; nothing is made.
async fn answer<R: Run>(client: &Client, namespace: &Namespace, manifest: &Value) -> Result<(), String> {
    let object: R = serde_json::from_value(manifest.clone()).expect("the manifest is valid");
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    Api::<R>::namespaced(client.clone(), &namespace.name)
        .create(&dry_run, &object)
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Waits until the API server knows new rights: it hears of them a moment later.
async fn admitted<R: Run>(client: &Client, namespace: &Namespace, Case { kind, name, manifest }: &Case) {
    let end = Instant::now() + DEADLINE;
    while let Err(refusal) = answer::<R>(client, namespace, manifest).await {
        assert!(Instant::now() < end, "{kind} {name} is still refused: {refusal}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The rules of a role that lets a user make runs and `get` objects by name.
fn role(name: &str, named: &[(&str, &str, Vec<&str>)]) -> Value {
    let mut rules = vec![json!({
        "apiGroups": ["pgrescue.dev"], "resources": ["pgbackups", "pgrestores"], "verbs": ["create"],
    })];
    rules.extend(named.iter().map(|(group, resource, names)| {
        json!({"apiGroups": [group], "resources": [resource], "verbs": ["get"], "resourceNames": names})
    }));
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules,
    })
}

/// A user who has a role of the namespace.
async fn user(namespace: &Namespace, name: &str, role: &str) -> Client {
    for arguments in [
        vec!["create", "serviceaccount", name],
        vec![
            "create",
            "rolebinding",
            name,
            role,
            &format!("--serviceaccount={}:{name}", namespace.name),
        ],
    ] {
        namespace.kubectl(&arguments).expect("a user can be made");
    }
    let token = namespace
        .kubectl(&["create", "token", name])
        .expect("a token can be made");
    cluster().client_with_token(token.trim()).await
}

fn names_of<'case>(cases: &[&'case [Case]], kind: &str) -> Vec<&'case str> {
    let cases = cases.iter().flat_map(|cases| cases.iter());
    cases.filter(|case| case.kind == kind).map(|case| case.name).collect()
}

#[tokio::test]
async fn a_user_names_only_what_the_user_may_get() {
    let namespace = Namespace::with_operator("users").await;
    let (backups, restores) = (of_backups(), of_restores());
    let all = [backups.as_slice(), restores.as_slice()];
    namespace.apply(&role("backups", &[]).to_string()).expect("applied");
    let jane = user(&namespace, "jane", "--role=backups").await;
    let nothing = Case {
        kind: "nothing",
        name: "",
        manifest: backup_with(&json!({})),
    };
    admitted::<PgBackup>(&jane, &namespace, &nothing).await;
    // What is asked for besides, so that a restore fails by one object alone.
    let source = [("pgrescue.dev", "pgbackups", vec!["shop"])];

    for case in &backups {
        refused(
            answer::<PgBackup>(&jane, &namespace, &case.manifest).await,
            &namespace,
            case,
        );
    }
    for case in restores.iter().filter(|case| case.kind == "PgBackup") {
        refused(
            answer::<PgRestore>(&jane, &namespace, &case.manifest).await,
            &namespace,
            case,
        );
        namespace.apply(&role("backups", &source).to_string()).expect("applied");
        admitted::<PgRestore>(&jane, &namespace, case).await;
    }
    for case in restores.iter().filter(|case| case.kind != "PgBackup") {
        refused(
            answer::<PgRestore>(&jane, &namespace, &case.manifest).await,
            &namespace,
            case,
        );
    }

    let [source] = source;
    let named = [
        source,
        ("", "secrets", names_of(&all, "Secret")),
        ("", "configmaps", names_of(&all, "ConfigMap")),
        ("", "serviceaccounts", names_of(&all, "ServiceAccount")),
        ("", "persistentvolumeclaims", names_of(&all, "PersistentVolumeClaim")),
    ];
    namespace.apply(&role("backups", &named).to_string()).expect("applied");
    for case in &backups {
        admitted::<PgBackup>(&jane, &namespace, case).await;
    }
    for case in &restores {
        admitted::<PgRestore>(&jane, &namespace, case).await;
    }
    let unnamed = backup_with(&json!({"connection": {"secretRef": {"name": "server-of-others"}}}));
    let refusal = answer::<PgBackup>(&jane, &namespace, &unnamed)
        .await
        .expect_err("no right covers it");
    assert!(refusal.contains("the Secret server-of-others"), "{refusal}");
}

#[tokio::test]
async fn who_has_the_role_edit_names_every_secret_of_the_namespace() {
    let namespace = Namespace::with_operator("editors").await;
    let editor = user(&namespace, "editor", "--clusterrole=edit").await;
    for case in &of_backups() {
        admitted::<PgBackup>(&editor, &namespace, case).await;
    }
    for case in &of_restores() {
        admitted::<PgRestore>(&editor, &namespace, case).await;
    }
}

fn refused(answer: Result<(), String>, namespace: &Namespace, Case { kind, name, .. }: &Case) {
    let sentence = format!(
        "the resource names the {kind} {name}, which the user system:serviceaccount:{}:jane may not get",
        namespace.name
    );
    let refusal = answer.expect_err(&sentence);
    assert!(refusal.contains(&sentence), "{sentence:?} is not in {refusal:?}");
}
