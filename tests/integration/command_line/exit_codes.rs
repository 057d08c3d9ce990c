//! Each exit code of the docs, by a run that ends with it.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgrescue::api::reasons;
use serde_json::json;

use super::{Folder, backup, secret};
use crate::parts::{PostgresServer, cache};
use crate::restore::runtime;

#[test]
fn a_manifest_that_cannot_be_used_ends_with_2_and_one_sentence() {
    let folder = Folder::new();
    folder.write("unknown.yaml", &[backup("orders", json!({"compresion": {}}))]);
    folder.write(
        "unset.yaml",
        &[backup("orders", json!({"connection": {"host": "${NOT_SET_ANYWHERE}"}}))],
    );
    folder.write("nothing.yaml", &[secret("db", &json!({}))]);
    folder.write_text("broken.yaml", "a: [");
    for (file, sentence) in [
        ("unknown.yaml", "unknown field `compresion`"),
        ("unset.yaml", "uses ${NOT_SET_ANYWHERE}, which is not set"),
        ("nothing.yaml", "has no PgBackup and no PgRestore"),
        ("broken.yaml", "is not valid YAML"),
        ("absent.yaml", "cannot be read"),
    ] {
        for command in ["run", "foreign-servers"] {
            let output = folder.pgrescue(&[command, "-f", file]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command} {file}: {stderr}");
            assert!(
                stderr.starts_with("error: ") && stderr.contains(sentence),
                "{command} {file}: {stderr}"
            );
            assert!(output.stdout.is_empty(), "{command} {file}");
        }
    }
    let output = folder.pgrescue(&["run", "--no-such-option"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_no_retry_can_help_ends_with_10_and_what_one_may_with_11() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("codes");
    let folder = Folder::of(&source);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    let db = |field: &str, value: &str| {
        let mut keys = super::connection(&source);
        keys[field] = json!(value);
        secret("db", &keys)
    };
    for (name, manifests, code, reason) in [
        (
            "password",
            vec![db("password", "wrong"), backup("orders", json!({}))],
            10,
            reasons::AUTHENTICATION_FAILED,
        ),
        (
            "database",
            vec![db("dbname", "absent"), backup("orders", json!({}))],
            10,
            reasons::DATABASE_MISSING,
        ),
        (
            "both",
            vec![backup(
                "orders",
                json!({"databases": {"include": ["a"], "exclude": ["b"]}}),
            )],
            10,
            reasons::INVALID_SPEC,
        ),
        (
            "port",
            vec![db("port", &port.to_string()), backup("orders", json!({}))],
            11,
            reasons::CONNECTION_REFUSED,
        ),
        (
            "secret",
            vec![backup(
                "orders",
                json!({"connection": {"secretRef": {"name": "absent"}}}),
            )],
            11,
            reasons::REFERENCE_MISSING,
        ),
    ] {
        let file = format!("{name}.yaml");
        folder.write(&file, &manifests);
        let run = folder.run(&file, &[]);
        // The next run must not find this file's Secret beside it.
        fs::remove_file(folder.path(&file)).expect("the folder is ours");
        let outcome = run.outcome("Failed");
        assert_eq!(
            (run.code, outcome["failure"]["reason"].as_str()),
            (Some(code), Some(reason)),
            "{outcome}"
        );
        assert!(outcome["failure"]["hint"].is_string(), "{outcome}");
    }
}

/// Waits until a statement of the program waits for a lock of the test.
pub fn wait_until_it_waits(server: &PostgresServer, database: &str) {
    until(server, database, "t");
}

fn until(server: &PostgresServer, database: &str, waits: &str) {
    let waiting =
        format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'");
    let deadline = Instant::now() + Duration::from_mins(1);
    while server.psql("postgres", &waiting) != waits {
        assert!(Instant::now() < deadline, "a statement waits: {waits} was not seen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_run_that_is_told_to_stop_ends_with_12_and_leaves_no_backup() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("stopped");
    source.load_plain();
    let folder = Folder::of(&source);
    let runtime = runtime();
    let session = runtime.block_on(server.connect(&source.name));
    runtime
        .block_on(session.batch_execute("BEGIN; LOCK TABLE customer IN ACCESS EXCLUSIVE MODE"))
        .expect("nobody else holds it");
    for signal in ["TERM", "INT"] {
        let mut command = folder.command(env!("CARGO_BIN_EXE_pgrescue"));
        command
            .args(["run", "-f", "backup.yaml", "--pg-bin-dir"])
            .arg(cache().join("pg"));
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo has built it");
        wait_until_it_waits(server, &source.name);
        let status = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status()
            .expect("kill is installed");
        assert!(status.success());
        let run = super::Run::of(child.wait_with_output().expect("it ends"));
        let outcome = run.outcome("Failed");
        assert_eq!(
            (run.code, outcome["failure"]["class"].as_str()),
            (Some(12), Some("Interrupted")),
            "SIG{signal}: {outcome}"
        );
        let manifests = fs::read_dir(folder.path("backups/snapshots"))
            .into_iter()
            .flatten()
            .count();
        assert_eq!(manifests, 0, "SIG{signal}: something is left");
        // A server sees only after its lock timeout that the program is gone.
        until(server, &source.name, "f");
    }
}
