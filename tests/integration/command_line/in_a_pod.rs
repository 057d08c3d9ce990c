//! `pgrescue agent` and `pgrescue operator` as their images start them, without a cluster.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use pgrescue::api::reasons;
use pgrescue::plan::report::{Outcome, REPORT_LIMIT_BYTES, Report};
use pgrescue::plan::storage::Place;
use pgrescue::plan::{Plan, Run, RunKind};
use serde_json::{Value, json};

use super::Folder;
use super::exit_codes::wait_until_it_waits;
use crate::parts::{Database, NEWEST_CLIENT, PostgresServer, SUPERUSER, client_folder};
use crate::restore::runtime;

/// A server that asks for no password: the agent's Secrets are mounted where only a pod has them.
fn trusting_server() -> PostgresServer {
    PostgresServer::with(17)
        .host_based_authentication("host all all 127.0.0.1/32 trust\n")
        .start()
}

fn write_plan(folder: &Folder, source: &Database<'_>) {
    let spec = json!({
        "connection": {
            "host": "127.0.0.1", "port": source.server.port, "user": SUPERUSER, "database": source.name,
        },
        "storage": {"folder": {"path": folder.path("backups").display().to_string()}},
    });
    let run = Run {
        kind: RunKind::PgBackup,
        namespace: "shop".into(),
        name: "orders".into(),
        uid: "uid".into(),
        generation: 1,
        created: "2026-01-02T03:04:05Z".parse().expect("a time"),
        deadline_seconds: Some(600),
    };
    let spec = serde_json::from_value(spec).expect("a spec");
    let plan = pgrescue::plan::backup::plan(&spec, run, Place::Local).expect("a good spec");
    folder.write_text("plan.json", &serde_json::to_string(&Plan::Backup(plan)).expect("JSON"));
}

/// The agent in the folder, with the clients on its path and no API server.
fn agent(folder: &Folder) -> Command {
    let mut command = folder.command(env!("CARGO_BIN_EXE_pgrescue"));
    command
        .args(["agent", "--plan", "plan.json", "--termination-log", "report.json"])
        .env("PATH", client_folder(NEWEST_CLIENT))
        .env("HOME", folder.0.path())
        .env_remove("KUBECONFIG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn report(path: &Path) -> Report {
    let text = fs::read_to_string(path).expect("the agent wrote it");
    assert!(text.len() <= REPORT_LIMIT_BYTES);
    serde_json::from_str(&text).expect("a report")
}

/// Every line of the log, which has to be JSON.
#[track_caller]
fn log(output: &Output) -> Vec<Value> {
    assert!(output.stdout.is_empty());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    stderr.lines().map(line).collect()
}

#[test]
fn an_agent_without_an_api_server_does_its_work_and_reports() {
    let server = trusting_server();
    let source = server.create_database("agent");
    source.load_plain();
    let folder = Folder::new();
    write_plan(&folder, &source);
    let output = agent(&folder).output().expect("cargo has built it");
    let log = log(&output);
    assert_eq!(output.status.code(), Some(0), "{log:?}");
    assert!(
        log.iter()
            .all(|line| line["level"].is_string() && line["timestamp"].is_string())
    );
    let ended = report(&folder.path("report.json"));
    assert_eq!(
        (ended.outcome, ended.artifact.expect("an artefact").rows),
        (Outcome::Succeeded, 1100)
    );
}

#[test]
fn an_agent_that_is_told_to_stop_reports_that_and_leaves_nothing() {
    let server = trusting_server();
    let source = server.create_database("agent");
    source.load_plain();
    let folder = Folder::new();
    write_plan(&folder, &source);
    let runtime = runtime();
    let session = runtime.block_on(server.connect(&source.name));
    runtime
        .block_on(session.batch_execute("BEGIN; LOCK TABLE customer IN ACCESS EXCLUSIVE MODE"))
        .expect("nobody else holds it");
    let child = agent(&folder).spawn().expect("cargo has built it");
    wait_until_it_waits(&server, &source.name);
    let killed = Command::new("kill")
        .args(["-s", "TERM", &child.id().to_string()])
        .status();
    assert!(killed.expect("kill is installed").success());
    let output = child.wait_with_output().expect("it ends");
    let log = log(&output);
    assert_eq!(output.status.code(), Some(12), "{log:?}");
    let failure = report(&folder.path("report.json")).failure.expect("why");
    assert_eq!(failure.reason, reasons::INTERRUPTED);
    let left = fs::read_dir(folder.path("backups/snapshots"))
        .into_iter()
        .flatten()
        .count();
    assert_eq!(left, 0);
}

#[test]
fn an_agent_of_another_release_says_so_and_is_not_tried_again() {
    let folder = Folder::new();
    folder.write_text("plan.json", r#"{"kind": "somethingNew"}"#);
    let output = agent(&folder).output().expect("cargo has built it");
    assert_eq!(output.status.code(), Some(10), "{:?}", log(&output));
    let failure = report(&folder.path("report.json")).failure.expect("why");
    assert_eq!(failure.reason, reasons::INTERNAL);
    assert!(failure.hint.expect("what to do").contains("same release"));
}

#[test]
fn an_operator_that_finds_no_api_server_says_so_in_json_and_ends() {
    let folder = Folder::new();
    let mut operator = folder.command(env!("CARGO_BIN_EXE_pgrescue"));
    operator
        .args(["operator", "--agent-image", "agent"])
        .env("HOME", folder.0.path())
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST");
    let output = operator.output().expect("cargo has built it");
    let log = log(&output);
    assert_eq!(output.status.code(), Some(1), "{log:?}");
    let error = log.iter().find(|line| line["level"] == "ERROR").expect("an error");
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("no API server is configured"), "{message}");
}
