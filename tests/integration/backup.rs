//! Backups of real servers into real stores: what is stored restores with stock tools, and nothing else is called a
//! backup.

pub mod choices;
pub mod chunks;
mod definitions;
mod faults;
mod object_lock;
mod refusals;
mod retries;
mod round_trip;
mod secrets;
mod slow_store;

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use pgrescue::agent::Context;
use pgrescue::agent::progress::{AgentStatus, Reporter};
use pgrescue::api::reasons;
use pgrescue::api::status::{Artifact, FailureClass};
use pgrescue::plan::backup::{BackupPlan, DeleteArtifactPlan};
use pgrescue::plan::report::{Done, Failed, Outcome};
use pgrescue::plan::storage::Place;
use pgrescue::plan::{Refusal, Run, RunKind};
use pgrescue::postgres::client_tools::ClientTools;
use pgrescue::references::manifests::ManifestReferences;
use pgrescue::store::manifest::Manifest;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::parts::{Database, PASSWORD, PostgresServer, S3Server, SUPERUSER, cache, client_folder};

/// One S3 server for all backups; each test has a bucket.
pub fn s3() -> &'static S3Server {
    static SHARED: OnceLock<S3Server> = OnceLock::new();
    SHARED.get_or_init(S3Server::start)
}

/// An empty bucket of its own.
pub fn new_bucket() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let bucket = format!("backups-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    s3().create_bucket(&bucket);
    bucket
}

pub fn in_bucket(bucket: &str) -> Value {
    in_bucket_of(&s3().endpoint, bucket)
}

pub fn in_bucket_of(endpoint: &str, bucket: &str) -> Value {
    json!({"s3": {
        "bucket": bucket, "prefix": "team/a", "region": S3Server::REGION, "endpoint": endpoint,
        "forcePathStyle": true, "credentialsSecretRef": {"name": "s3"},
    }})
}

pub fn in_folder(folder: &Path) -> Value {
    json!({"folder": {"path": folder.display().to_string()}})
}

/// Keys of the Secret that `in_bucket` names.
pub fn s3_keys() -> Value {
    json!({"AWS_ACCESS_KEY_ID": S3Server::ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": S3Server::SECRET_KEY})
}

/// All client programs that a release image has.
fn client_tools() -> Arc<ClientTools> {
    static FOUND: OnceLock<Arc<ClientTools>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        for major in 14..=18 {
            client_folder(major);
        }
        Arc::new(ClientTools::find(Some(&cache().join("pg"))).expect("the clients are installed"))
    });
    Arc::clone(found)
}

/// One backup request, before it runs.
pub struct Request {
    pub plan: BackupPlan,
    pub context: Context,
}

/// How it ended.
pub struct Ended {
    pub result: Result<Done, Failed>,
    pub status: AgentStatus,
}

/// A backup of one database as the superuser; `more` is the rest of the spec.
pub fn request(database: &Database<'_>, storage: Value, more: Value) -> Request {
    request_as(SUPERUSER, PASSWORD, database.server.port, &database.name, storage, more)
}

/// With the rows in the archive, where `more` does not say otherwise.
#[allow(clippy::needless_pass_by_value, reason = "callers make the storage for the call")]
pub fn request_as(user: &str, password: &str, port: u16, database: &str, storage: Value, more: Value) -> Request {
    let mut spec = json!({"connection": {"secretRef": {"name": "db"}}, "storage": storage, "dataFormat": "Custom"});
    merge(&mut spec, more);
    let run = Run {
        kind: RunKind::PgBackup,
        namespace: "tests".into(),
        name: "backup".into(),
        uid: format!("uid of {database} {}", rand_suffix()),
        generation: 1,
        created: "2026-01-02T03:04:05Z".parse().expect("a time"),
        deadline_seconds: None,
    };
    let spec = serde_json::from_value(spec).expect("a spec");
    let plan = pgrescue::plan::backup::plan(&spec, run, Place::Local).expect("a valid spec");
    let mut references = ManifestReferences::default();
    let secrets = [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {
            "host": "127.0.0.1", "port": port.to_string(), "user": user, "password": password, "dbname": database}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": s3_keys()}),
    ];
    for secret in secrets {
        references.add(&secret).expect("a Secret");
    }
    let context = Context {
        references: Arc::new(references),
        reporter: Reporter::default(),
        client_tools: client_tools(),
        stop: CancellationToken::new(),
    };
    Request { plan, context }
}

/// Databases of shared servers have distinct names, so a counter is enough.
fn rand_suffix() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

impl Request {
    pub async fn run(&self) -> Ended {
        let result = pgrescue::agent::backup::run(&self.plan, &self.context).await;
        Ended {
            result,
            status: self.context.reporter.status(),
        }
    }

    fn delete_plan(&self) -> DeleteArtifactPlan {
        DeleteArtifactPlan {
            run: self.plan.run.clone(),
            storage: self.plan.storage.clone(),
            snapshot: self.plan.run.snapshot_id(),
        }
    }

    /// A second attempt: the same run in a new process.
    pub fn again(&self) -> Self {
        let context = Context {
            reporter: Reporter::default(),
            stop: CancellationToken::new(),
            ..self.context.clone()
        };
        Self {
            plan: self.plan.clone(),
            context,
        }
    }

    pub fn snapshot(&self) -> String {
        self.plan.run.snapshot_id()
    }
}

impl Ended {
    /// It failed because a connection to the server was lost, and another attempt may help.
    pub fn assert_connection_lost(&self) {
        let refusal = self.refusal();
        assert_eq!(
            (refusal.reason.as_str(), refusal.class),
            (reasons::CONNECTION_LOST, FailureClass::Temporary),
            "{refusal:?}"
        );
    }

    /// The server went away, and another attempt may help. A session that was still to be opened is refused.
    #[track_caller]
    pub fn assert_server_gone(&self) {
        let refusal = self.refusal();
        assert_eq!(refusal.class, FailureClass::Temporary, "{refusal:?}");
        let reasons = [reasons::CONNECTION_LOST, reasons::CONNECTION_REFUSED];
        assert!(reasons.contains(&refusal.reason.as_str()), "{refusal:?}");
    }

    #[track_caller]
    pub fn artifact(&self) -> &Artifact {
        match &self.result {
            Ok(done) => {
                assert_eq!(done.outcome, Outcome::Succeeded);
                done.artifact.as_ref().expect("a backup that succeeded has an artefact")
            }
            Err(failed) => panic!("the backup failed: {failed:?}"),
        }
    }

    #[track_caller]
    pub fn refusal(&self) -> &Refusal {
        &self.result.as_ref().expect_err("the backup fails").refusal
    }
}

/// Where the objects of a test are, as files.
#[derive(Clone)]
pub struct Objects(pub std::path::PathBuf);

impl Objects {
    pub fn of_bucket(bucket: &str) -> Self {
        Self(s3().bucket_folder(bucket).join("team/a"))
    }

    pub fn read(&self, key: &str) -> Vec<u8> {
        std::fs::read(self.0.join(key)).unwrap_or_else(|error| panic!("object {key}: {error}"))
    }

    pub fn manifest(&self, snapshot: &str) -> Manifest {
        Manifest::read(&self.read(&format!("snapshots/{snapshot}/manifest.json"))).expect("a manifest")
    }

    pub fn exists(&self, key: &str) -> bool {
        self.0.join(key).exists()
    }

    /// Restores a database's archive with the stock program of this major version.
    pub fn restore(&self, snapshot: &str, name: &str, target: &Database<'_>, client: u32, options: &[&str]) {
        let key = pgrescue::store::layout::archive(snapshot, name);
        let mut file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
        file.write_all(&self.read(&key)).expect("the temporary folder has room");
        let output = target
            .server
            .client(client, "pg_restore", &target.name)
            .args(["--exit-on-error", "-d", &target.name])
            .args(options)
            .arg(file.path())
            .output()
            .expect("pg_restore is installed");
        assert!(
            output.status.success(),
            "pg_restore: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A role that may log in and nothing else, dropped with the server.
fn create_role(server: &PostgresServer, name: &str, attributes: &str) {
    server.psql(
        "postgres",
        &format!("CREATE ROLE {name} LOGIN PASSWORD '{ROLE_PASSWORD}' {attributes}"),
    );
}

const ROLE_PASSWORD: &str = "canary:role of a test";
