//! No secret comes where somebody may read it: a canary for each one in play, and a search in every place.

use std::process::{Child, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::ResourceExt;
use pgrescue::api::{PgBackup, PgRestore, conditions};
use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::cluster::cluster;
use crate::namespace::Namespace;
use crate::operator::{Run, backup, operator_logs, restore};
use crate::servers::{POSTGRES_PASSWORD, Postgres, S3, S3_SECRET_KEY};

/// Of the user mapping in the database that is backed up.
const MAPPING_PASSWORD: &str = r#"it's; "Zu9-mapping-canary" \ $1"#;
/// Of the user mapping that the restore puts in its place.
const NEW_MAPPING_PASSWORD: &str = r#"it's; "Zu9-new-mapping-canary" \ $1"#;
/// Of the subscription in the database that is backed up.
const SUBSCRIPTION_PASSWORD: &str = "Zu9-subscription-canary";
/// Of the subscription that the restore makes.
const NEW_SUBSCRIPTION_PASSWORD: &str = "Zu9-new-subscription-canary";
/// In a row, which is stored as it is.
const ROW: &str = "Zu9-decoy-row";

/// Bytes of the table, as COPY moves them, and where they stop moving.
const TABLE: u64 = 32 << 20;
const MIDDLE: u64 = TABLE / 2;

/// Texts that stand nowhere.
struct Canaries(Vec<(&'static str, String)>);

impl Canaries {
    fn new(client_key: &str) -> Self {
        let mut canaries = Self(Vec::new());
        // The quotes and backslashes around it may be written in another way; this part may not.
        for (what, secret, part) in [
            ("the superuser's password", POSTGRES_PASSWORD, POSTGRES_PASSWORD),
            ("the S3 server's secret key", S3_SECRET_KEY, S3_SECRET_KEY),
            ("the mapping's password", MAPPING_PASSWORD, "Zu9-mapping-canary"),
            (
                "the mapping's new password",
                NEW_MAPPING_PASSWORD,
                "Zu9-new-mapping-canary",
            ),
            (
                "the subscription's password",
                SUBSCRIPTION_PASSWORD,
                SUBSCRIPTION_PASSWORD,
            ),
            (
                "the subscription's new password",
                NEW_SUBSCRIPTION_PASSWORD,
                NEW_SUBSCRIPTION_PASSWORD,
            ),
            (
                "the client's key",
                client_key,
                client_key.lines().nth(2).expect("lines"),
            ),
        ] {
            canaries.add(what, secret, part);
        }
        canaries
    }

    /// Adds a secret, by a part of it that has no special character, and as Secrets are written in YAML.
    fn add(&mut self, what: &'static str, secret: &str, part: &str) {
        self.0.push((what, part.to_owned()));
        self.0.push((what, BASE64.encode(secret)));
    }

    /// Searches a place: what is known to be there is found, and none of the canaries.
    fn are_not_in(&self, place: &str, known: &[&str], contains: impl Fn(&str) -> bool) {
        for text in known {
            assert!(
                contains(text),
                "{text:?} is in {place}, and the search does not find it"
            );
        }
        for (what, canary) in &self.0 {
            assert!(!contains(canary), "{what} is in {place}");
        }
    }

    fn are_not_in_text(&self, place: &str, known: &[&str], text: &str) {
        self.are_not_in(place, known, |canary| text.contains(canary));
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A database with a foreign server and a subscription, and enough rows to stop in the middle of them.
fn fill(server: &Postgres<'_>) {
    let (password, new_password) = (literal(MAPPING_PASSWORD), literal(NEW_MAPPING_PASSWORD));
    server.psql(
        "shop",
        &format!(
            "CREATE TABLE photo (id int PRIMARY KEY, pixels text NOT NULL);
             INSERT INTO photo SELECT n, '{ROW}' || (SELECT string_agg(md5(n || '/' || m), '')
                 FROM generate_series(1, {TABLE} / 1000 / 32) m) FROM generate_series(1, 1000) n;
             CREATE ROLE reports LOGIN PASSWORD 'anything';
             GRANT SELECT ON photo TO reports;
             CREATE ROLE billing LOGIN PASSWORD {new_password};
             CREATE EXTENSION postgres_fdw;
             CREATE SERVER billing_remote FOREIGN DATA WRAPPER postgres_fdw
                 OPTIONS (host 'production-billing', dbname 'shop');
             CREATE USER MAPPING FOR postgres SERVER billing_remote OPTIONS (user 'billing', password {password});
             CREATE SUBSCRIPTION feed CONNECTION 'host=nowhere.invalid password={SUBSCRIPTION_PASSWORD}'
                 PUBLICATION items WITH (connect = false);"
        ),
    );
}

/// The Secrets and the ConfigMap that the runs name, besides those of the servers.
fn references(certificates: &Certificates) -> Value {
    let secret = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    let [certificate, key] = &certificates.client;
    let conninfo = format!("host=nowhere.invalid password={NEW_SUBSCRIPTION_PASSWORD}");
    let items = [
        secret("pg-client", json!({"tls.crt": certificate, "tls.key": key})),
        secret(
            "staging-billing",
            json!({"user": "billing", "password": NEW_MAPPING_PASSWORD}),
        ),
        secret("staging-feed", json!({"conninfo": conninfo})),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"},
            "data": {"ca.crt": certificates.root},
        }),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn manifests(host: &str) -> [Value; 2] {
    let tls = json!({
        "mode": "verify-full",
        "rootCertificate": {"configMapKeyRef": {"name": "ca", "key": "ca.crt"}},
        "clientCertificate": {"secretKeyRef": {"name": "pg-client", "key": "tls.crt"}},
        "clientKey": {"secretKeyRef": {"name": "pg-client", "key": "tls.key"}},
    });
    let mut backup = backup("shop", "production-db");
    backup["spec"]["connection"]["tls"] = tls.clone();
    // So that the search sees the rows in the bucket as they are.
    backup["spec"]["dataFormat"] = "Custom".into();
    backup["spec"]["compression"] = json!({"method": "None"});
    backup["spec"]["logLevel"] = "Trace".into();
    let mut restore = restore("copy", "shop", "production-db", "copy");
    restore["spec"]["target"]["connection"]["tls"] = tls;
    restore["spec"]["foreignServers"] = json!([{
        "match": {"name": "billing_remote"}, "options": {"set": {"host": host}},
        "userMappings": [{"localUser": "postgres", "secretRef": {"name": "staging-billing"}}],
    }]);
    restore["spec"]["subscriptions"] = json!({"connections": {"feed": {"name": "staging-feed"}}});
    restore["spec"]["globals"] = "Missing".into();
    restore["spec"]["logLevel"] = "Trace".into();
    [backup, restore]
}

/// Takes a role away that the restore then has to make, and returns the verifier of its password.
fn drop_role(server: &Postgres<'_>) -> String {
    let verifier = server.psql("shop", "SELECT rolpassword FROM pg_authid WHERE rolname = 'reports'");
    server.psql("shop", "DROP OWNED BY reports; DROP ROLE reports;");
    verifier
}

/// The arguments and the environment of all processes of an agent's pod, read again and again to its end.
struct Processes(Child);

impl Processes {
    fn watch(namespace: &Namespace, pod: &str) -> Self {
        let read = "while cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null || true; do sleep 0.05; done";
        let mut kubectl = cluster().kubectl();
        kubectl
            .args(["--namespace", &namespace.name, "exec", pod, "--", "sh", "-c", read])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Self(kubectl.spawn().expect("kubectl starts"))
    }

    /// What was read, once the pod has ended.
    fn seen(self) -> String {
        let seen = self.0.wait_with_output().expect("kubectl ends with the pod");
        String::from_utf8_lossy(&seen.stdout).into_owned()
    }
}

/// Watches the one pod of a run, which stands still in the middle of its rows.
async fn watch<R: Run>(namespace: &Namespace, name: &str, canaries: &mut Canaries) -> Processes {
    let run = namespace.api::<R>().get(name).await.expect("the run is there");
    let pods = namespace.pods_of(&run).await;
    let pod = pods.first().expect("the run has a pod").name_any();
    let token = [
        "exec",
        &pod,
        "--",
        "cat",
        "/run/secrets/kubernetes.io/serviceaccount/token",
    ];
    let token = namespace.kubectl(&token).expect("every pod has a token");
    canaries.add("the agent's token", &token, &token);
    Processes::watch(namespace, &pod)
}

#[tokio::test]
async fn no_secret_comes_where_somebody_may_read_it() {
    let namespace = Namespace::with_operator("canary").await;
    let server = Postgres::start(&namespace, "production", 17, "shop").await;
    let s3 = S3::start(&namespace, "backups").await;
    let host = format!("production.{}.svc", namespace.name);
    let certificates = Certificates::make(&host);
    let [_, client_key] = &certificates.client;
    let mut canaries = Canaries::new(client_key);
    fill(&server);
    certificates.demand(&server);
    namespace
        .apply(&references(&certificates).to_string())
        .expect("applied");

    let [backup, restore] = manifests(&host);
    namespace.apply(&backup.to_string()).expect("applied");
    let stalled = server.stall_copy("shop", MIDDLE);
    let dumping = watch::<PgBackup>(&namespace, "shop", &mut canaries).await;
    stalled.go_on();
    namespace.succeeded::<PgBackup>("shop").await;
    let verifier = drop_role(&server);
    namespace.apply(&restore.to_string()).expect("applied");
    let stalled = server.stall_copy("copy", MIDDLE);
    let loading = watch::<PgRestore>(&namespace, "copy", &mut canaries).await;
    stalled.go_on();
    let run = namespace.succeeded::<PgRestore>("copy").await;

    every_secret_was_used(&server, &run, &verifier);
    canaries.are_not_in("the bucket", &[ROW, "billing_remote", "feed"], |text| s3.contains(text));
    // `globals.sql` holds it, as `rolePasswords: Keep` says.
    canaries.add("the verifier of a role's password", &verifier, &verifier);
    for (seen, program) in [(dumping.seen(), "/pg_dump"), (loading.seen(), "/pg_restore")] {
        canaries.are_not_in_text(
            &format!("arguments and environment beside {program}"),
            &[program, "--dbname=", "PGPASSFILE=", "PGRESCUE_LOG=trace"],
            &seen,
        );
    }
    canaries.are_not_in_text("the operator's log", &[&namespace.name], &operator_logs());
    let of_runs = "--selector=pgrescue.dev/run-uid";
    for (place, arguments, known) in [
        (
            "the agents' logs",
            &["logs", of_runs, "--all-containers", "--tail=-1"][..],
            &["Stored 1000 rows", "Restored 1000 rows", "\"level\":\"TRACE\""][..],
        ),
        ("the Events", &["get", "events", "--output=yaml"], &["Succeeded"]),
        (
            "the resources",
            &["get", "pgbackups,pgrestores", "--output=yaml", "--show-managed-fields"],
            &["staging-billing", "billing_remote", "Succeeded"],
        ),
        (
            "what the operator made",
            &["get", "jobs,configmaps,pods,rolebindings", of_runs, "--output=yaml"],
            &["plan.json", "production-db", "exitCode: 0"],
        ),
    ] {
        let text = namespace.kubectl(arguments).expect("it can be read");
        canaries.are_not_in_text(place, known, &text);
    }
}

/// The new passwords are where they belong, so the runs had them; and the client's key was asked for.
fn every_secret_was_used(server: &Postgres<'_>, restore: &PgRestore, verifier: &str) {
    let made = server.psql("copy", "SELECT rolpassword FROM pg_authid WHERE rolname = 'reports'");
    assert_eq!(made, verifier);
    let mappings = server.psql("copy", "SELECT umoptions FROM pg_user_mappings");
    assert!(mappings.contains("Zu9-new-mapping-canary"), "{mappings}");
    let subscriptions = server.psql(
        "copy",
        "SELECT subconninfo FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = 'copy'",
    );
    assert!(subscriptions.contains(NEW_SUBSCRIPTION_PASSWORD), "{subscriptions}");
    let ready = restore
        .condition(conditions::FOREIGN_SERVERS_READY)
        .expect("it was checked");
    assert_eq!(ready.status, "True", "{ready:?}");
    let rules = server.psql(
        "postgres",
        "SELECT string_agg(type || options::text, ' ') FROM pg_hba_file_rules",
    );
    assert!(rules.contains("hostssl{clientcert=verify-ca}"), "{rules}");
}
