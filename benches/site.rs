//! A server, a store, and the tools that work with both, each told in its own way where they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::measured::{self, Run};
use crate::parts::{self, PASSWORD, PostgresServer, S3Server, SUPERUSER};

/// Where pgrescue stores.
pub const BUCKET: &str = "bench";

/// Where the stock tools store.
pub const STOCK_BUCKET: &str = "stock";

/// How long a server may take to notice that its clients are gone.
const SESSIONS_END: Duration = Duration::from_secs(10);

pub struct Site<'parts> {
    pub server: &'parts PostgresServer,
    pub store: &'parts S3Server,
    /// For manifests and for archives of the stock tools.
    pub folder: tempfile::TempDir,
    rclone: PathBuf,
}

impl<'parts> Site<'parts> {
    pub fn new(server: &'parts PostgresServer, store: &'parts S3Server) -> Self {
        for bucket in [BUCKET, STOCK_BUCKET] {
            if !store.bucket_folder(bucket).exists() {
                store.create_bucket(bucket);
            }
        }
        Self {
            server,
            store,
            folder: tempfile::tempdir().expect("a temporary folder"),
            rclone: parts::rclone(),
        }
    }

    /// `pgrescue run` of a backup of the database; `more` is the rest of the spec.
    pub fn back_up(&self, database: &str, more: &Value) -> Run {
        let mut spec = json!({
            "connection": {"secretRef": {"name": "database"}, "database": database},
            "storage": {"s3": {
                "bucket": BUCKET,
                "region": S3Server::REGION,
                "endpoint": self.store.endpoint,
                "forcePathStyle": true,
                "credentialsSecretRef": {"name": "s3"},
            }},
        });
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        self.pgrescue("backup.yaml", "PgBackup", &spec)
    }

    /// `pgrescue run` of a restore of the newest backup into a database.
    pub fn restore(&self, database: &str, more: &Value) -> Run {
        let mut spec = json!({
            "source": {"backup": {"name": "bench"}},
            "target": {"connection": {"secretRef": {"name": "database"}}, "database": database},
        });
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        self.pgrescue("restore.yaml", "PgRestore", &spec)
    }

    fn pgrescue(&self, file: &str, kind: &str, spec: &Value) -> Run {
        let write = |name: &str, documents: &[Value]| {
            // JSON is YAML.
            let documents: Vec<_> = documents.iter().map(Value::to_string).collect();
            let path = self.folder.path().join("manifests").join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("the folder is ours");
            std::fs::write(&path, documents.join("\n---\n")).expect("the folder is ours");
            path
        };
        write("secrets.yaml", &self.secrets());
        let resource = json!({
            "apiVersion": "pgrescue.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": "bench", "namespace": "default"},
            "spec": spec,
        });
        let manifest = write(file, &[resource]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrescue"));
        command
            .args(["run", "-f"])
            .arg(manifest)
            .arg("--pg-bin-dir")
            .arg(parts::client_folder(self.server.major))
            .envs(image_environment())
            .stdin(Stdio::null());
        self.run(&mut command)
    }

    fn secrets(&self) -> [Value; 2] {
        let secret = |name: &str, keys: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys});
        [
            secret(
                "database",
                json!({
                    "host": "127.0.0.1",
                    "port": self.server.port.to_string(),
                    "user": SUPERUSER,
                    "password": PASSWORD,
                }),
            ),
            secret(
                "s3",
                json!({
                    "AWS_ACCESS_KEY_ID": S3Server::ACCESS_KEY,
                    "AWS_SECRET_ACCESS_KEY": S3Server::SECRET_KEY,
                }),
            ),
        ]
    }

    /// Runs a line of the shell with the client programs of a major version, rclone (whose remote `store:` is the
    /// store), the database, and `$folder`.
    pub fn shell(&self, major: u32, database: &str, script: &str) -> Run {
        let tools = parts::client_folder(major);
        let rclone = self.rclone.parent().expect("it is in a folder");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [tools.as_path(), rclone].map(Path::to_path_buf);
        let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path)));
        let mut shell = Command::new("bash");
        shell
            .args(["-o", "errexit", "-o", "pipefail", "-c", script])
            .stdin(Stdio::null());
        for (name, value) in self.server.client(major, "psql", database).get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
            .env("PATH", path.expect("no folder has a colon"))
            .env("folder", self.folder.path())
            .env("RCLONE_CONFIG", "/dev/null")
            .env("RCLONE_S3_NO_CHECK_BUCKET", "true");
        for (name, value) in [
            ("TYPE", "s3"),
            ("PROVIDER", "Other"),
            ("ENDPOINT", &self.store.endpoint),
            ("REGION", S3Server::REGION),
            ("ACCESS_KEY_ID", S3Server::ACCESS_KEY),
            ("SECRET_ACCESS_KEY", S3Server::SECRET_KEY),
        ] {
            shell.env(format!("RCLONE_CONFIG_STORE_{name}"), value);
        }
        self.run(&mut shell)
    }

    fn run(&self, command: &mut Command) -> Run {
        // What the environment says about some other store is for none of them.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        let now = || [self.server.pid(), self.store.pid()].map(measured::cpu_of_server);
        let [server, store] = now();
        let run = measured::run(command, &self.folder.path().join("output"));
        self.wait_for_sessions();
        let [server_now, store_now] = now();
        Run {
            server_cpu: server_now.saturating_sub(server),
            store_cpu: store_now.saturating_sub(store),
            ..run
        }
    }

    /// The time of a session counts when it has ended.
    fn wait_for_sessions(&self) {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                        AND pid <> pg_backend_pid()";
        let deadline = Instant::now() + SESSIONS_END;
        while self.server.psql("postgres", sessions) != "0" {
            assert!(Instant::now() < deadline, "sessions were left");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Bytes of all objects of a bucket.
    pub fn stored_bytes(&self, bucket: &str) -> u64 {
        let folder = self.store.bucket_folder(bucket);
        let sizes = self.store.keys(bucket).into_iter();
        sizes
            .map(|key| std::fs::metadata(folder.join(key)).map_or(0, |it| it.len()))
            .sum()
    }

    /// Removes everything in a bucket.
    pub fn empty(&self, bucket: &str) {
        assert!(self.store.orphan_parts(bucket).is_empty(), "parts were left");
        std::fs::remove_dir_all(self.store.bucket_folder(bucket)).expect("the folder is ours");
        self.store.create_bucket(bucket);
    }

    /// The version of rclone.
    pub fn rclone_version(&self) -> String {
        crate::machine::version(&self.rclone, "version")
    }
}

/// What the images set, so that memory is measured as it is in a pod.
fn image_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../Dockerfile").lines();
    lines.filter_map(|line| line.strip_prefix("ENV ")?.split_once('='))
}
