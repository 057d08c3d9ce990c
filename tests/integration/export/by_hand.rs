//! `docs/restore-without-pgrescue.md` on a database that shells and SQL trip over. Its commands run on the demo's shop
//! with those of all pages.

use std::env;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{Backup, ODD_NAME, connection, encrypted, text};
use crate::docs::blocks::{Home, blocks};
use crate::parts::{PostgresServer, client_folder, shell_tools};

const PAGE: &str = "docs/restore-without-pgrescue.md";

/// Runs the page's commands, but for those of pgrescue, in the folder of a backup.
fn by_hand(backup: &Backup, database: &str, target: &crate::parts::Database<'_>) {
    let path = env::var_os("PATH").expect("PATH is set");
    let programs = [shell_tools(), client_folder(backup.client)];
    let path = env::join_paths(programs.into_iter().chain(env::split_paths(&path))).expect("folders without a colon");
    let page: Vec<_> = blocks().into_iter().filter(|block| block.page == PAGE).collect();
    let commands = page.iter().filter(|block| matches!(block.home, Home::RunHere { .. }));
    let mut run = 0;
    for block in commands.filter(|block| !block.text.contains("pgrescue run")) {
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &block.text])
            .current_dir(Path::new(&backup.path("")))
            .env("PATH", &path)
            .env("STAGING_PORT", target.server.port.to_string())
            .env("DATABASE", database)
            .env("TARGET", &target.name);
        let output = connection(&mut command, 0).output().expect("bash is installed");
        assert!(
            output.status.success(),
            "{}: {}\n{}",
            block.place,
            block.text,
            text(&output)
        );
        run += 1;
    }
    assert!(run >= 6, "{PAGE} has {run} commands");
}

async fn everything_comes_back(major: u32, mut more: serde_json::Value) {
    // A materialized view reads a foreign table as it is filled.
    more["foreignCredentials"] = json!("Keep");
    let server = PostgresServer::shared(major);
    let source = server.create_database(ODD_NAME);
    source.load_everything();
    let backup = Backup::of(&source, more).await;
    backup.write_identity();
    let target = server.reserve_database("it's a \"copy\" = x");
    by_hand(&backup, &source.name, &target);
    source.content().assert_same(&target.content());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_by_hand_from_chunks() {
    let more = json!({"dataFormat": "Chunks", "unloggedTableData": "Include"});
    everything_comes_back(18, more).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_by_hand_from_encrypted_chunks() {
    everything_comes_back(
        16,
        encrypted(json!({"dataFormat": "Chunks", "unloggedTableData": "Include"})),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_by_hand_from_an_archive() {
    everything_comes_back(17, json!({"dataFormat": "Custom", "unloggedTableData": "Include"})).await;
}
