//! What is wrong is named, and nothing is left of an export that does not end well.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Backup, left_in, names};
use crate::parts::PostgresServer;
use crate::store::full_disk::SmallDisk;

async fn chunked(purpose: &str, rows: u32) -> Backup {
    let source = PostgresServer::shared(18).create_database(purpose);
    source.psql(&format!(
        "CREATE TABLE items (id int, body text); \
         INSERT INTO items SELECT i, md5(i::text) FROM generate_series(1, {rows}) i"
    ));
    Backup::of(&source, json!({"dataFormat": "Chunks"})).await
}

fn only_file_below(folder: PathBuf) -> PathBuf {
    let mut path = folder;
    while path.is_dir() {
        let inside = names(&path);
        path = path.join(&inside[0]);
    }
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_and_what_is_not_there_are_refused() {
    let backup = chunked("refused", 100).await;
    let taken = backup.path("taken");
    fs::create_dir(&taken).expect("the folder is ours");
    assert!(backup.refused(&taken, 10).contains("exists already"));
    let output = backup
        .command(&backup.path("none/of/this"), &[])
        .output()
        .expect("built");
    let said = super::text(&output);
    assert!(
        output.status.code() == Some(10) && said.contains("cannot be written"),
        "{said}"
    );
    let output = backup
        .command(&backup.path("x"), &["--database", "another"])
        .output()
        .expect("built");
    let said = super::text(&output);
    assert!(
        output.status.code() == Some(10) && said.contains("has no database \"another\""),
        "{said}"
    );
    let mut other = backup;
    other.snapshot = "20200101T000000Z-0123456789".into();
    assert!(other.refused(&other.path("x"), 10).contains("has no manifest"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_and_a_damaged_archive_are_named_and_leave_nothing() {
    let backup = chunked("damaged", 5000).await;
    let object = only_file_below(backup.path("backups/packs"));
    let whole = fs::read(&object).expect("it is there");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&object, &flipped).expect("the folder is ours");
    let said = backup.refused(&backup.path("out"), 10);
    assert!(
        said.contains("chunk 1 of 1 of \"public\".\"items\"") && said.contains("SHA-256"),
        "{said}"
    );
    fs::write(&object, &whole[..whole.len() - 1]).expect("the folder is ours");
    let said = backup.refused(&backup.path("out"), 10);
    assert!(said.contains("does not have the bytes"), "{said}");
    fs::write(&object, &whole).expect("the folder is ours");
    let snapshot = backup.path(&format!("backups/snapshots/{}", backup.snapshot));
    let archive = names(&snapshot)
        .into_iter()
        .map(|name| snapshot.join(name).join("archive.dump"))
        .find(|path| path.exists())
        .expect("an archive");
    let mut bytes = fs::read(&archive).expect("it is there");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&archive, &bytes).expect("the folder is ours");
    let said = backup.refused(&backup.path("out"), 10);
    assert!(said.contains("archive.dump"), "{said}");
    bytes[last] ^= 1;
    fs::write(&archive, &bytes).expect("the folder is ours");
    backup.export("out", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_counts_were_edited_is_refused() {
    let backup = chunked("edited", 100).await;
    let path = backup.path(&format!("backups/snapshots/{}/manifest.json", backup.snapshot));
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("JSON");
    let relation = &mut manifest["databases"][0]["relations"][0];
    relation["rows"] = json!(99);
    fs::write(&path, manifest.to_string()).expect("the folder is ours");
    assert!(backup.refused(&backup.path("out"), 10).contains("contradicts itself"));
    let relation = &mut manifest["databases"][0]["relations"][0];
    relation["chunks"]["chunks"][0]["rows"] = json!(99);
    fs::write(&path, manifest.to_string()).expect("the folder is ours");
    let said = backup.refused(&backup.path("out"), 10);
    assert!(said.contains("has 99 rows, and 100 are in its text"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_is_named_and_is_left_as_it_was() {
    // Well compressed, and 60 MB as text.
    let source = PostgresServer::shared(18).create_database("full");
    source.psql("CREATE TABLE items AS SELECT i, repeat('x', 6000) AS body FROM generate_series(1, 10000) i");
    let backup = Backup::of(&source, json!({"dataFormat": "Chunks"})).await;
    let mounted = tempfile::tempdir().expect("a temporary folder");
    let _disk = SmallDisk::mount(mounted.path());
    let said = backup.refused(&mounted.path().join("out"), 10);
    assert!(said.contains("has no room") && said.contains("/out"), "{said}");
    drop(source);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_stopped_leaves_nothing_and_one_that_is_killed_no_server() {
    let backup = chunked("stopped", 1_500_000).await;
    for (signal, code) in [("TERM", Some(12)), ("KILL", None)] {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let to = backup.path(&format!("out {signal}"));
        let mut running = backup
            .command(&to, &["--jobs", "1"])
            .env("TMPDIR", temporary.path())
            .spawn()
            .expect("cargo has built it");
        let deadline = Instant::now() + Duration::from_mins(1);
        while !names(backup.folder.path()).iter().any(|name| {
            let file = backup.path(name);
            name.starts_with(".out")
                && names(&file)
                    .iter()
                    .any(|name| Path::new(name).extension().is_some_and(|end| end == "dat"))
        }) {
            assert!(Instant::now() < deadline, "no row was written");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(left_in(temporary.path()).len(), 1, "the server that prints the rows");
        let killed = std::process::Command::new("kill")
            .args(["-s", signal, &running.id().to_string()])
            .status()
            .expect("kill is installed");
        assert!(killed.success());
        assert_eq!(running.wait().expect("it ended").code(), code, "{signal}");
        while !left_in(temporary.path()).is_empty() {
            assert!(Instant::now() < deadline, "the server was left");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!to.exists(), "{signal}");
        let left = names(backup.folder.path()).iter().any(|name| name.starts_with(".out"));
        assert_eq!(left, signal == "KILL", "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_binary_need_a_server_and_the_refusal_says_so() {
    let backup = chunked("without", 100).await;
    // Client programs alone, as a machine without a server has them.
    let programs = tempfile::tempdir().expect("a temporary folder");
    for program in ["pg_dump", "pg_dumpall", "pg_restore", "psql"] {
        let script = format!(
            "#!/bin/sh\nexec {}/{program} \"$@\"\n",
            crate::parts::client_folder(18).display()
        );
        let path = programs.path().join(program);
        fs::write(&path, script).expect("the folder is ours");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).expect("the folder is ours");
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgrescue"));
    command
        .args(["export", &backup.snapshot, "-f"])
        .arg(backup.path("storage.yaml"))
        .arg("--to")
        .arg(backup.path("out"))
        .arg("--pg-bin-dir")
        .arg(programs.path());
    let output = command.output().expect("cargo has built it");
    let said = super::text(&output);
    assert_eq!(output.status.code(), Some(10), "{said}");
    assert!(
        said.contains("a server of PostgreSQL 18 or later turns into text"),
        "{said}"
    );
    assert!(!backup.path("out").exists());
}
