//! Restores: content and definitions compared, every refusal, faults, retries. The snapshots are made by stock
//! `pg_dump` and a manifest written here, so that a fault of the backup does not hide one of the restore.

mod chunks;
mod credentials;
mod exactly_once;
mod faults;
mod index_builds;
mod refusals;
mod roles;
mod round_trip;
mod snapshot;

use std::sync::Arc;

use pgrescue::agent::Context;
use pgrescue::agent::progress::{AgentStatus, Reporter};
use pgrescue::agent::restore;
use pgrescue::api::restore::PgRestoreSpec;
use pgrescue::api::status::StepStatus;
use pgrescue::plan::report::{Done, Failed};
use pgrescue::plan::restore::{RestorePlan, SnapshotSource};
use pgrescue::plan::storage::StoragePlan;
use pgrescue::plan::{Run, RunKind};
use pgrescue::postgres::client_tools::ClientTools;
use pgrescue::references::manifests::ManifestReferences;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::parts::{Database, PASSWORD, PostgresServer, SUPERUSER, cache, client_folder};
use snapshot::Snapshot;

/// A restore as a user asks for it, and what it runs with.
pub struct Request {
    pub spec: Value,
    pub name: String,
    pub uid: String,
    pub source: SnapshotSource,
    pub references: ManifestReferences,
    pub stop: CancellationToken,
    pub reporter: Reporter,
    _files: Option<Arc<tempfile::TempDir>>,
}

impl Request {
    /// Into this database as a superuser; the database may not exist yet.
    pub fn into(snapshot: &Snapshot, target: &Database<'_>) -> Self {
        Self::through(snapshot, target.server.port, &target.name)
    }

    /// The same through another port, such as a proxy's.
    pub fn through(snapshot: &Snapshot, port: u16, database: &str) -> Self {
        Self {
            _files: Some(snapshot.keep()),
            ..Self::of(snapshot.source(), port, database)
        }
    }

    /// Of any snapshot.
    pub fn of(source: SnapshotSource, port: u16, database: &str) -> Self {
        let mut references = ManifestReferences::default();
        add_secret(&mut references, "target", &json!({ "password": PASSWORD }));
        let spec = json!({
            "source": {"backup": {"name": "orders"}},
            "target": {
                "connection": {
                    "host": "127.0.0.1", "port": port, "user": SUPERUSER,
                    "passwordSecretRef": {"name": "target", "key": "password"},
                },
                "database": database,
            },
            "unmatchedForeignServers": "Keep",
            "subscriptions": {"drop": true},
        });
        Self {
            spec,
            name: "orders-copy".into(),
            uid: format!("uid of {database}"),
            source,
            references,
            stop: CancellationToken::new(),
            reporter: Reporter::default(),
            _files: None,
        }
    }

    /// Sets a field of the spec.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.spec[field] = value;
        self
    }

    /// Sets a field of the connection.
    pub fn connection(mut self, field: &str, value: Value) -> Self {
        self.spec["target"]["connection"][field] = value;
        self
    }

    pub fn secret(mut self, name: &str, keys: &Value) -> Self {
        add_secret(&mut self.references, name, keys);
        self
    }

    /// As a role that is made for the purpose; its password is its name.
    pub fn logged_in_as(self, role: &str) -> Self {
        self.secret("role", &json!({ "password": role }))
            .connection("user", json!(role))
            .connection("passwordSecretRef", json!({"name": "role", "key": "password"}))
    }

    pub fn plan(&self) -> RestorePlan {
        let spec: PgRestoreSpec = serde_json::from_value(self.spec.clone()).expect("a good spec");
        let run = Run {
            kind: RunKind::PgRestore,
            namespace: "shop".into(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            generation: 1,
            created: "2026-01-02T03:04:05Z".parse().expect("a time"),
            deadline_seconds: None,
        };
        pgrescue::plan::restore::plan(&spec, run, self.source.clone()).expect("a valid spec")
    }

    pub fn context(&self) -> Context {
        client_folder(14);
        Context {
            references: Arc::new(self.references.clone()),
            reporter: self.reporter.clone(),
            client_tools: Arc::new(ClientTools::find(Some(&cache().join("pg"))).expect("clients are installed")),
            stop: self.stop.clone(),
        }
    }

    pub async fn run(&self) -> Result<Done, Failed> {
        restore::run(&self.plan(), &self.context()).await
    }

    /// Runs to a good end.
    #[track_caller]
    pub fn succeed(self) -> Finished {
        let result = runtime().block_on(self.run());
        let status = self.reporter.status();
        match result {
            Ok(done) => Finished { done, status },
            Err(failed) => panic!("{failed:#?}\n{status:#?}"),
        }
    }

    /// Runs to a bad end.
    #[track_caller]
    pub fn fail(self) -> Failed {
        match runtime().block_on(self.run()) {
            Ok(done) => panic!("it succeeded: {done:?}"),
            Err(failed) => failed,
        }
    }
}

/// How a good restore ended.
pub struct Finished {
    pub done: Done,
    pub status: AgentStatus,
}

impl Finished {
    /// A step by its name.
    #[track_caller]
    pub fn step(&self, name: &str) -> &StepStatus {
        let mut steps = self.status.steps.iter();
        steps.find(|step| step.name == name).expect("a step")
    }

    /// Status of a condition; `None` where it is Unknown or not there.
    pub fn condition(&self, r#type: &str) -> Option<bool> {
        let found = self
            .status
            .conditions
            .iter()
            .find(|condition| condition.r#type == r#type);
        found.and_then(|condition| condition.status)
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn add_secret(references: &mut ManifestReferences, name: &str, keys: &Value) {
    let manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys});
    assert!(references.add(&manifest).expect("a good manifest"));
}

/// Storage of a snapshot in a folder.
pub fn folder(path: &std::path::Path) -> StoragePlan {
    StoragePlan::Folder {
        path: path.display().to_string(),
    }
}

/// A role that may log in and create databases, and nothing else.
pub fn limited_role(server: &PostgresServer, role: &str) {
    let sql = format!("CREATE ROLE {role} LOGIN CREATEDB PASSWORD '{role}'");
    server.psql("postgres", &sql);
}
