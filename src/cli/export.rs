//! `pgrescue export`: a database of a backup as a directory archive.

use std::path::PathBuf;
use std::sync::Arc;

use super::EXIT_USAGE;
use super::outcome::with_sources;
use super::repository::identities;
use super::repository_text as text;
use super::storage::{StorageArguments, answer};
use crate::agent::export::{ExportRequest, export};
use crate::agent::pod::stop_on_signal;
use crate::plan::report::EXIT_DONE;
use crate::postgres::client_tools::ClientTools;
use crate::store::Store;

/// Arguments of `pgrescue export`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Snapshot id, as `pgrescue snapshots` lists it.
    snapshot: String,
    #[command(flatten)]
    storage: StorageArguments,
    /// Database in it; may be left out where there is one.
    #[arg(long)]
    database: Option<String>,
    /// Folder that is made; it must not be there.
    #[arg(long)]
    to: PathBuf,
    /// Chunks that are read at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// File with the age identities that open an encrypted backup, as age-keygen writes it. `-` is the standard input.
    #[arg(long, value_name = "FILE")]
    identity_file: Option<PathBuf>,
    /// Folder with pg_restore, and with the server's programs where rows are stored in binary; searched first.
    #[arg(long)]
    pg_bin_dir: Option<PathBuf>,
}

/// Exports and says what there is. Returns the exit code.
pub async fn run(arguments: &Arguments) -> i32 {
    let tools = match ClientTools::find(arguments.pg_bin_dir.as_deref()) {
        Ok(tools) => tools,
        Err(error) => {
            eprintln!("error: {}", with_sources(&error));
            return EXIT_USAGE;
        }
    };
    let stop = stop_on_signal();
    answer(&arguments.storage, async |store: Arc<dyn Store>| {
        let request = ExportRequest {
            snapshot: arguments.snapshot.clone(),
            database: arguments.database.clone(),
            to: arguments.to.clone(),
            jobs: usize::from(arguments.jobs),
            identities: arguments.identity_file.as_deref().map(identities).transpose()?,
        };
        let report = export(&store, &tools, &request, &stop).await?;
        Ok((text::export(&report), report, EXIT_DONE))
    })
    .await
}
