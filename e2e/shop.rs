//! A database with a large table beside an S3 server, and runs on it that stand still in the middle.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt;
use pgrescue::api::{PgBackup, PgRestore};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::namespace::{DEADLINE, Namespace};
use crate::operator::{Run, backup, restore};
use crate::servers::{Postgres, S3, StalledCopy};

/// Bytes of the table, as COPY moves them: stored they are several parts of an upload.
const TABLE: u64 = 64 << 20;
/// Where the rows stop moving: more than one part of the upload was sent by then, and much is left to do.
pub const MIDDLE: u64 = TABLE * 3 / 4;

/// A database with a large table, an S3 server, and a namespace for them.
pub struct Shop<'namespace> {
    /// Where the runs are.
    pub namespace: &'namespace Namespace,
    /// The server of the database `shop`.
    pub server: Postgres<'namespace>,
    /// The server of the bucket `backups`.
    pub s3: S3<'namespace>,
}

impl<'namespace> Shop<'namespace> {
    /// Starts the servers in a namespace, and fills the database.
    pub async fn open(namespace: &'namespace Namespace, major: u32) -> Self {
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

    /// The same servers, used from another namespace.
    pub fn in_namespace<'other>(&self, namespace: &'other Namespace) -> Shop<'other>
    where
        'namespace: 'other,
    {
        let secrets = json!({"apiVersion": "v1", "kind": "List", "items": [self.server.secret(), self.s3.secret()]});
        namespace.apply(&secrets.to_string()).expect("Secrets can be made");
        Shop {
            namespace,
            server: self.server.clone(),
            s3: self.s3.clone(),
        }
    }

    /// A `PgBackup` of the database into the bucket, for any namespace.
    pub fn backup(&self, name: &str) -> Value {
        let mut manifest = backup(name, "production-db");
        manifest["spec"]["storage"]["s3"]["endpoint"] = self.s3.endpoint().into();
        // One stream of rows, that can be stopped in its middle; and nothing stays in the bucket for a prune.
        manifest["spec"]["dataFormat"] = "Custom".into();
        manifest
    }

    /// Begins a backup and stops it in the middle of an upload. Returns the pod of its agent.
    pub async fn backup_in_the_middle(&self) -> (StalledCopy<'_>, Pod) {
        self.stop_in_the_middle(&self.backup("shop")).await
    }

    /// The same with a manifest.
    pub async fn stop_in_the_middle(&self, manifest: &Value) -> (StalledCopy<'_>, Pod) {
        self.apply(manifest);
        let stalled = self.server.stall_copy("shop", MIDDLE);
        self.eventually("the bucket has a part of the upload", || self.s3.unfinished_parts() > 0)
            .await;
        let name = manifest["metadata"]["name"].as_str().expect("it has a name");
        (stalled, self.agent::<PgBackup>(name).await)
    }

    /// Begins a restore of the backup `shop` into `copy` and stops it in the middle of the rows.
    pub async fn restore_in_the_middle(&self) -> (StalledCopy<'_>, Pod) {
        self.apply(&restore("copy", "shop", "production-db", "copy"));
        let stalled = self.server.stall_copy("copy", MIDDLE);
        (stalled, self.agent::<PgRestore>("copy").await)
    }

    /// Makes the backup `shop`.
    pub async fn back_up(&self) {
        self.apply(&self.backup("shop"));
        self.namespace.succeeded::<PgBackup>("shop").await;
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &Value) {
        self.namespace.apply(&manifest.to_string()).expect("applied");
    }

    /// The pod whose agent works for a run now.
    pub async fn agent<R: Run>(&self, name: &str) -> Pod {
        let run = self.namespace.api::<R>().get(name).await.expect("the run is there");
        let pods = self.namespace.pods_of(&run).await;
        pods.into_iter().next_back().expect("the run has a pod")
    }

    /// Waits until the agent of a pod has ended, and returns how.
    pub async fn agent_ended(&self, pod: &Pod) -> ContainerStateTerminated {
        let ended = |pod: &Pod| terminated(pod).is_some();
        let pod = self.namespace.wait::<Pod>(&pod.name_any(), "ended", ended).await;
        terminated(&pod).expect("it ended")
    }

    /// Waits until something is so.
    pub async fn eventually(&self, what: &str, condition: impl Fn() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !condition() {
            assert!(Instant::now() < end, "not in time: {what}\n{}", self.namespace.story());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The backup ended well after `attempts` pods, the bucket holds it and nothing else, and what it holds is what
    /// the database holds.
    pub async fn backup_is_whole(&self, attempts: usize) {
        let run = self.namespace.succeeded::<PgBackup>("shop").await;
        self.made_attempts(&run, attempts).await;
        self.bucket_holds(&run);
        self.apply(&restore("copy", "shop", "production-db", "copy"));
        self.namespace.succeeded::<PgRestore>("copy").await;
        self.copy_is_whole();
    }

    /// The bucket holds a finished backup and nothing else.
    pub fn bucket_holds(&self, run: &PgBackup) {
        assert_eq!(self.s3.unfinished_parts(), 0, "{:?}", self.s3.keys());
        let artifact = run.status.as_ref().and_then(|status| status.artifact.as_ref());
        let snapshot = &artifact.expect("an artefact").snapshot;
        let expected = ["globals.sql", "manifest.json", "shop/archive.dump", "shop/pre-data.sql"]
            .map(|object| format!("e2e/snapshots/{snapshot}/{object}"));
        assert_eq!(self.s3.objects(), expected);
    }

    /// What was restored into `copy` is what the database holds.
    pub fn copy_is_whole(&self) {
        assert_eq!(self.server.contents("copy"), self.server.contents("shop"));
    }

    /// A run had so many pods, not counted those that were deleted.
    pub async fn made_attempts<R: Run>(&self, run: &R, attempts: usize) {
        let mut pods = self.namespace.pods_of(run).await;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        assert_eq!(pods.len(), attempts, "{}", self.namespace.story());
    }
}

fn terminated(pod: &Pod) -> Option<ContainerStateTerminated> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    container.state.as_ref()?.terminated.clone()
}
