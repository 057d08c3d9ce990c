//! Exports of real backups: stock `pg_restore -j` restores them whole.

mod by_hand;
mod refusals;
mod round_trip;
mod types;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::backup::{in_folder, request, s3_keys};
use crate::parts::{Database, PASSWORD, SUPERUSER, cache, client_folder, not_as_root};

/// A backup in a store, and a folder for what is exported from it.
pub struct Backup {
    folder: tempfile::TempDir,
    snapshot: String,
    /// Major version of the `pg_dump` that made its archive.
    client: u32,
}

impl Backup {
    /// Of one database, into a folder; `more` is the rest of the spec.
    pub async fn of(database: &Database<'_>, more: Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let storage = in_folder(&folder.path().join("backups"));
        Self::into(folder, database, storage, more).await
    }

    pub async fn into(folder: tempfile::TempDir, database: &Database<'_>, storage: Value, more: Value) -> Self {
        let request = request(database, storage.clone(), more);
        let ended = request.run().await;
        ended.artifact();
        let manifests = [
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": s3_keys()}),
            json!({"apiVersion": "pgrescue.dev/v1alpha1", "kind": "PgBackup", "metadata": {"name": "orders"},
                "spec": {"connection": {"host": "nowhere.invalid"}, "storage": storage}}),
        ];
        let manifests = manifests.map(|manifest| manifest.to_string()).join("\n---\n");
        fs::write(folder.path().join("storage.yaml"), manifests).expect("the folder is ours");
        Self {
            folder,
            snapshot: request.snapshot(),
            client: database.server.major.max(14),
        }
    }

    /// Writes the identity into the backup's folder.
    pub fn write_identity(&self) -> PathBuf {
        let path = self.path("identity.txt");
        fs::write(&path, identity().to_string().expose_secret()).expect("the folder is ours");
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `pgrescue export`, not as root, as in the image.
    pub fn command(&self, to: &Path, more: &[&str]) -> Command {
        for major in 14..=18 {
            client_folder(major);
        }
        let program = not_as_root(Path::new(env!("CARGO_BIN_EXE_pgrescue")));
        let mut command = Command::new(&program[0]);
        command
            .args(&program[1..])
            .args(["export", &self.snapshot, "-f"])
            .arg(self.path("storage.yaml"))
            .arg("--to")
            .arg(to)
            .arg("--pg-bin-dir")
            .arg(cache().join("pg"))
            .args(more);
        command
    }

    /// An export that succeeds: the folder, and what was said of it.
    #[track_caller]
    pub fn export(&self, name: &str, more: &[&str]) -> (PathBuf, Value) {
        let to = self.path(name);
        let output = self
            .command(&to, &[&["--output", "json"], more].concat())
            .output()
            .expect("cargo has built it");
        assert!(output.status.success(), "{}", text(&output));
        (to, serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// An export that fails with this exit code; it leaves nothing. Returns what was said.
    #[track_caller]
    pub fn refused(&self, to: &Path, code: i32) -> String {
        let before = names(to.parent().expect("a folder"));
        let output = self.command(to, &[]).output().expect("cargo has built it");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert_eq!(names(to.parent().expect("a folder")), before);
        text(&output)
    }

    /// Stock `pg_restore -j2` of an export, by the major version that made the archive.
    #[track_caller]
    pub fn restore(&self, folder: &Path, target: &Database<'_>) {
        let output = target
            .server
            .client(self.client, "pg_restore", &target.name)
            .args(["--exit-on-error", "-j2", "-d", &target.name])
            .arg(folder)
            .output()
            .expect("pg_restore is installed");
        assert!(output.status.success(), "pg_restore: {}", text(&output));
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Temporary servers that are left in a folder for temporary files.
fn left_in(folder: &Path) -> Vec<String> {
    let mut names = names(folder);
    names.retain(|name| name.starts_with("pgrescue-"));
    names
}

/// Whoever may read the encrypted backups of these tests.
fn identity() -> &'static age::x25519::Identity {
    static IDENTITY: OnceLock<age::x25519::Identity> = OnceLock::new();
    IDENTITY.get_or_init(age::x25519::Identity::generate)
}

/// `more` with what is stored encrypted.
fn encrypted(mut more: Value) -> Value {
    more["storage"] = json!({"encryption": {"age": {"recipients": [identity().to_public().to_string()]}}});
    more
}

/// A name that shells and SQL trip over.
const ODD_NAME: &str = "an 'odd' \"name\" $HOME.x=1; --\\ ü";

/// The same with a line break, which the fixtures cannot have in the name of their database.
const ODD_LINES: &str = "an 'odd' \"name\" $HOME.x=1\nsecond; --\\ ü";

fn connection(command: &mut Command, port: u16) -> &mut Command {
    command
        .env("PRODUCTION_PORT", port.to_string())
        .env("DB_USER", SUPERUSER)
        .env("DB_PASSWORD", PASSWORD)
}
