//! The agent itself, killed in the middle of the chunks.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgrescue::plan::Plan;
use serde_json::json;

use super::{Cut, at_the_gate, loads, notes, open_gate, with_gate};
use crate::parts::{Database, PostgresServer, client_folder};
use crate::restore::snapshot::Snapshot;
use crate::restore::{Request, runtime};

/// Starts the agent as its pod does.
fn agent(request: &Request, folder: &std::path::Path, major: u32) -> Child {
    let plan = folder.join("plan.json");
    let text = serde_json::to_string(&Plan::Restore(request.plan())).expect("JSON");
    fs::write(&plan, text).expect("the folder is ours");
    Command::new(env!("CARGO_BIN_EXE_pgrescue"))
        .args(["agent", "--plan"])
        .arg(&plan)
        .arg("--termination-log")
        .arg(folder.join("report"))
        .env_clear()
        .env("PATH", client_folder(major))
        .env("HOME", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the agent starts")
}

fn request(snapshot: &Snapshot, target: &Database<'_>) -> Request {
    let mut request = Request::into(snapshot, target).with("jobs", json!(2));
    let connection = request.spec["target"]["connection"]
        .as_object_mut()
        .expect("a connection");
    connection.remove("passwordSecretRef");
    request
}

#[test]
fn a_killed_agent_is_followed_by_one_that_loads_what_is_missing_and_nothing_twice() {
    for major in [14, 18] {
        let server = PostgresServer::with(major)
            .host_based_authentication("host all all 127.0.0.1/32 trust\n")
            .start();
        let source = server.create_database("source");
        with_gate(&source);
        let snapshot = Snapshot::chunked(&source, Cut::default());
        let target = server.reserve_database("killed");
        let folder = tempfile::tempdir().expect("a folder");
        let request = request(&snapshot, &target);
        let mut first = agent(&request, folder.path(), major);
        runtime().block_on(async { at_the_gate(&target).await });
        first.kill().expect("it runs");
        first.wait().expect("it is dead");
        assert!(!folder.path().join("report").exists(), "it could say nothing");
        let (before, noted) = (loads(&target, "first"), notes(&target));
        assert!(before.len() >= 2 && noted >= 4, "{before:?}");
        // Its backend sleeps on at the gate, with a chunk in its hands.
        open_gate(&target);
        let mut second = agent(&request, folder.path(), major);
        let deadline = Instant::now() + Duration::from_mins(2);
        let status = loop {
            if let Some(status) = second.try_wait().expect("it can be asked") {
                break status;
            }
            assert!(Instant::now() < deadline, "the second agent does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let report = fs::read_to_string(folder.path().join("report")).expect("a report");
        assert_eq!(status.code(), Some(0), "{report}");
        source.content().assert_same(&target.content());
        let after = loads(&target, "first");
        assert!(before.iter().all(|load| after.contains(load)), "{before:?} {after:?}");
        let sessions = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event = 'PgSleep'",
            target.name
        );
        assert_eq!(
            server.psql("postgres", &sessions),
            "0",
            "nobody sleeps at the gate any more"
        );
    }
}
