//! The commands of the docs that need servers and no cluster, run as they stand.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::blocks::{Block, Home, blocks};
use crate::parts::{
    Database, NEWEST_CLIENT, PASSWORD, PostgresServer, S3Server, SUPERUSER, client_folder, not_as_root, shell_tools,
};

/// Each page has a folder with the files that it shows; its commands run there in the page's order, with the servers
/// in the environment variables that its manifests use.
#[test]
fn every_command_of_the_docs_runs_as_it_stands() {
    let blocks = blocks();
    let mut pages: BTreeMap<&str, Vec<&Block>> = BTreeMap::new();
    for block in &blocks {
        pages.entry(&block.page).or_default().push(block);
    }
    pages.retain(|_, blocks| blocks.iter().any(|block| matches!(block.home, Home::RunHere { .. })));
    assert!(!pages.is_empty(), "no page has a command that is run here");
    for blocks in pages.values() {
        run_page(blocks);
    }
}

fn run_page(blocks: &[&Block]) {
    let production = PostgresServer::start(17);
    let staging = PostgresServer::start(18);
    production.psql("postgres", "CREATE DATABASE orders");
    let orders = Database {
        server: &production,
        name: "orders".to_owned(),
    };
    orders.load_shop(0.01);
    let s3 = S3Server::start();
    s3.create_bucket("backups");
    let folder = tempfile::tempdir().expect("a folder");
    for block in blocks {
        match &block.home {
            Home::File(name) => fs::write(folder.path().join(name), &block.text).expect("the folder is ours"),
            Home::RunHere { exit_code } => run_block(block, *exit_code, folder.path(), &production, &staging, &s3),
            _ => {}
        }
    }
}

fn run_block(
    block: &Block,
    exit_code: i32,
    folder: &Path,
    production: &PostgresServer,
    staging: &PostgresServer,
    s3: &S3Server,
) {
    let programs = [
        Path::new(env!("CARGO_BIN_EXE_pgrescue"))
            .parent()
            .expect("a folder")
            .to_owned(),
        client_folder(NEWEST_CLIENT),
        shell_tools(),
    ];
    let path = env::join_paths(
        programs
            .into_iter()
            .chain(env::split_paths(&env::var_os("PATH").expect("PATH is set"))),
    );
    // Not as root: an export starts a server.
    let bash = not_as_root(Path::new("bash"));
    let output = Command::new(&bash[0])
        .args(&bash[1..])
        .args(["-euo", "pipefail", "-c", &block.text])
        .current_dir(folder)
        .env("PATH", path.expect("folders without a colon"))
        .env("PRODUCTION_PORT", production.port.to_string())
        .env("STAGING_PORT", staging.port.to_string())
        .env("DB_USER", SUPERUSER)
        .env("DB_PASSWORD", PASSWORD)
        .env("S3_ENDPOINT", &s3.endpoint)
        .env("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_KEY)
        .output()
        .expect("bash is installed");
    assert_eq!(
        output.status.code(),
        Some(exit_code),
        "{}: {}\n{}\n{}",
        block.place,
        block.text,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
