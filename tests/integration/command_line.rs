//! The program itself, as people and pipelines call it: what it prints, and its exit codes.

mod exit_codes;
mod foreign_servers;
mod in_a_pod;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::parts::{Database, PASSWORD, PostgresServer, SUPERUSER, cache, client_folder};

/// A folder with manifests.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// A folder with the Secret `db` of a database beside `backup.yaml`, a backup of it into the folder.
    fn of(database: &Database<'_>) -> Self {
        let folder = Self::new();
        folder.write("secrets.yaml", &[secret("db", &connection(database))]);
        folder.write("backup.yaml", &[backup("orders", json!({}))]);
        folder
    }

    /// JSON is YAML.
    fn write(&self, name: &str, manifests: &[Value]) {
        let documents: Vec<String> = manifests.iter().map(Value::to_string).collect();
        self.write_text(name, &documents.join("\n---\n"));
    }

    fn write_text(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the folder is ours");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs in the folder, with the password in the environment as the manifests want it.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        client_folder(14);
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PG") || text.starts_with("AWS") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.0.path())
            .env("DB_PASSWORD", PASSWORD)
            .stdin(Stdio::null());
        command
    }

    fn pgrescue(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_pgrescue"));
        command.args(arguments).arg("--pg-bin-dir").arg(cache().join("pg"));
        command.output().expect("cargo has built it")
    }

    fn run(&self, file: &str, more: &[&str]) -> Run {
        Run::of(self.pgrescue(&[&["run", "-f", file], more].concat()))
    }
}

/// The JSON lines of a run.
struct Run {
    code: Option<i32>,
    lines: Vec<Value>,
    stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        let stdout = String::from_utf8(output.stdout).expect("text");
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self {
            code: output.status.code(),
            lines: stdout.lines().map(line).collect(),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    fn of_event<'run>(&'run self, event: &'run str) -> impl Iterator<Item = &'run Value> {
        self.lines.iter().filter(move |line| line["event"] == event)
    }

    /// The last line, which has to be the only outcome and of this kind.
    #[track_caller]
    fn outcome(&self, expected: &str) -> &Value {
        let last = self.lines.last().unwrap_or_else(|| panic!("nothing: {}", self.stderr));
        assert_eq!(last["event"], "outcome", "{last}");
        assert_eq!(last["outcome"], expected, "{last}");
        assert_eq!(self.of_event("outcome").count(), 1);
        last
    }
}

fn secret(name: &str, keys: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys})
}

fn connection(database: &Database<'_>) -> Value {
    json!({
        "host": "${DB_HOST:-127.0.0.1}", "port": database.server.port.to_string(), "user": SUPERUSER,
        "password": "${DB_PASSWORD}", "dbname": database.name,
    })
}

fn backup(name: &str, more: Value) -> Value {
    let mut spec = json!({"connection": {"secretRef": {"name": "db"}}, "storage": {"folder": {"path": "backups"}}});
    json_patch::merge(&mut spec, &more);
    json!({"apiVersion": "pgrescue.dev/v1alpha1", "kind": "PgBackup", "metadata": {"name": name}, "spec": spec})
}

fn restore(name: &str, database: &str, more: Value) -> Value {
    let mut spec = json!({
        "source": {"backup": {"name": "orders"}},
        "target": {"connection": {"secretRef": {"name": "db"}}, "database": database},
    });
    json_patch::merge(&mut spec, &more);
    json!({"apiVersion": "pgrescue.dev/v1alpha1", "kind": "PgRestore", "metadata": {"name": name}, "spec": spec})
}

#[test]
fn a_run_on_a_pipe_prints_json_lines_and_nothing_else() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("lines");
    source.load_plain();
    let folder = Folder::of(&source);
    let run = folder.run("backup.yaml", &[]);
    let outcome = run.outcome("Succeeded");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(outcome["artifact"]["rows"], 1100);
    for line in &run.lines {
        assert_eq!(line["resource"], "PgBackup/orders", "{line}");
        let time = line["time"].as_str().expect("a time");
        time.parse::<jiff::Timestamp>().expect("a time");
    }
    let steps: Vec<&str> = run.of_event("step").filter_map(|step| step["name"].as_str()).collect();
    assert_eq!(steps.len(), 6, "{steps:?}");
    for step in run.of_event("step") {
        assert_eq!(step["state"], "Done", "{step}");
        assert!(step["durationMilliseconds"].is_u64(), "{step}");
    }
    let last = run.of_event("progress").last().expect("progress");
    assert_eq!((&last["percent"], &last["rows"]), (&json!(100), &json!(1100)), "{last}");
    let text = format!("{:?}", run.lines);
    assert!(!text.contains(PASSWORD) && !text.contains("canary"), "{text}");
}

#[test]
fn a_run_on_a_terminal_shows_a_bar_and_each_step_as_it_ends() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("bar");
    source.load_plain();
    let folder = Folder::of(&source);
    let bin = cache().join("pg");
    let run = format!(
        "{} run -f backup.yaml --pg-bin-dir {}",
        env!("CARGO_BIN_EXE_pgrescue"),
        bin.display()
    );
    // `script` gives it a terminal.
    let output = folder
        .command("script")
        .args(["--quiet", "--return", "--command", &run, "/dev/null"])
        .env("TERM", "xterm")
        .output()
        .expect("script is installed");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    for text in [
        "PgBackup/orders [",
        &format!("done dump {}", source.name),
        "done manifest",
        "PgBackup/orders: Succeeded.",
        "1100 rows",
    ] {
        assert!(shown.contains(text), "{text:?} is not in {shown}");
    }
    assert!(!shown.contains("\"event\""), "{shown}");
}

#[test]
fn a_dry_run_changes_nothing_and_has_the_hash_of_the_run_that_follows() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("hashes");
    source.load_plain();
    let target = server.reserve_database("hashes_copy");
    let folder = Folder::of(&source);
    folder.write("restore.yaml", &[restore("copy", &target.name, json!({}))]);

    let dry = folder.run("backup.yaml", &["--dry-run"]);
    let planned = dry.outcome("Planned");
    assert_eq!(dry.code, Some(0));
    assert!(planned["planHash"].is_string(), "{planned}");
    assert!(!folder.path("backups/snapshots").exists());
    let run = folder.run("backup.yaml", &[]);
    assert_eq!(run.outcome("Succeeded")["planHash"], planned["planHash"]);

    let dry = folder.run("restore.yaml", &["--dry-run"]);
    let planned = dry.outcome("Planned");
    assert!(!target.exists());
    let run = folder.run("restore.yaml", &[]);
    assert_eq!(run.outcome("Succeeded")["planHash"], planned["planHash"]);
    source.content().assert_same(&target.content());

    // `dryRun` in the manifest says the same as the option.
    folder.write("dry.yaml", &[backup("orders", json!({"dryRun": true}))]);
    folder.run("dry.yaml", &[]).outcome("Planned");
    let again = folder.run("restore.yaml", &[]);
    again.outcome("AlreadyApplied");
    assert_eq!(again.code, Some(0));
}

#[test]
fn the_resources_of_a_file_run_in_their_order_until_one_fails() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("order");
    source.load_plain();
    let target = server.reserve_database("order_copy");
    let folder = Folder::of(&source);
    let manifests = [
        backup("orders", json!({})),
        restore("copy", &target.name, json!({})),
        restore("again", &target.name, json!({})),
        backup("never", json!({})),
    ];
    folder.write("all.yaml", &manifests);
    let run = folder.run("all.yaml", &[]);
    assert_eq!(run.code, Some(10));
    let outcomes: Vec<_> = run
        .of_event("outcome")
        .map(|line| (&line["resource"], &line["outcome"]))
        .collect();
    assert_eq!(
        json!(outcomes),
        json!([
            ["PgBackup/orders", "Succeeded"],
            ["PgRestore/copy", "Succeeded"],
            ["PgRestore/again", "Failed"]
        ])
    );
    source.content().assert_same(&target.content());
}
