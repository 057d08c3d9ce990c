//! The command line: `operator | agent | run | snapshots | check | stats | prune | export | foreign-servers | crds`.

pub mod export;
pub mod foreign_servers;
pub mod manifests;
pub mod outcome;
pub mod repository;
mod repository_text;
pub mod run;
pub mod show;
mod storage;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::agent::pod::{self, PodFiles};
use crate::operator;

/// Exit code of a manifest or an argument that cannot be used; clap uses the same.
pub const EXIT_USAGE: i32 = 2;

/// Backs up and restores PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "pgrescue", version, about, after_help = EXIT_CODES)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0   done, already applied, or planned
  2   the arguments or a manifest cannot be used
  10  failed; a retry cannot help
  11  failed; a retry may help
  12  stopped before it was done; nothing half done counts";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the controllers.
    Operator(Box<operator::Settings>),
    /// Runs one mounted plan in a pod.
    Agent(PodFiles),
    /// Runs the resources of a manifest here, without a cluster.
    Run(run::Arguments),
    /// Lists the backups of a storage.
    Snapshots(storage::StorageArguments),
    /// Checks the backups of a storage, and names what damage hurts.
    Check(repository::CheckArguments),
    /// Says what the chunks of a storage take.
    Stats(storage::StorageArguments),
    /// Deletes chunks that no backup of a storage needs.
    Prune(repository::PruneArguments),
    /// Writes a database of a backup as an archive that stock pg_restore reads.
    Export(export::Arguments),
    /// Prints the foreign servers of a database or a backup as a `foreignServers:` block.
    ForeignServers(foreign_servers::Arguments),
    /// Prints the CustomResourceDefinitions as YAML.
    Crds,
}

/// Where a manifest is, shared by the commands that read one.
#[derive(Clone, Debug, clap::Args)]
pub struct ManifestArguments {
    /// YAML file with the resource. Secrets, ConfigMaps and PgBackups that it names may stand in the same file or in
    /// another file of its folder. `${VAR}` and `${VAR:-default}` in string values are taken from the environment.
    #[arg(short = 'f', long = "filename")]
    pub file: PathBuf,
    /// Folder with pg_dump and its companions, searched first.
    #[arg(long)]
    pub pg_bin_dir: Option<PathBuf>,
}

/// Runs the command line and returns the exit code.
pub async fn main(command_line: CommandLine) -> i32 {
    match command_line.command {
        Command::Operator(settings) => {
            log_as_json();
            operator::run(*settings).await
        }
        Command::Agent(files) => {
            log_as_json();
            pod::run(&files).await
        }
        Command::Run(arguments) => {
            log_as_text();
            Box::pin(run::run(&arguments)).await
        }
        Command::Snapshots(arguments) => {
            log_as_text();
            repository::snapshots(&arguments).await
        }
        Command::Check(arguments) => {
            log_as_text();
            repository::check(&arguments).await
        }
        Command::Stats(arguments) => {
            log_as_text();
            repository::stats(&arguments).await
        }
        Command::Prune(arguments) => {
            log_as_text();
            repository::prune(&arguments).await
        }
        Command::Export(arguments) => {
            log_as_text();
            export::run(&arguments).await
        }
        Command::ForeignServers(arguments) => {
            log_as_text();
            foreign_servers::run(&arguments).await
        }
        Command::Crds => outcome::print_or_fail(crate::api::crds::yaml()),
    }
}

fn log_as_json() {
    let filter = EnvFilter::try_from_env("PGRESCUE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .finish()
        .with(without_statements())
        .init();
}

fn log_as_text() {
    let filter = EnvFilter::try_from_env("PGRESCUE_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .finish()
        .with(without_statements())
        .init();
}

/// At `debug` the PostgreSQL client logs each statement with its parameters, and so the verifiers of roles that are
/// made. No level shows them.
fn without_statements() -> FilterFn {
    filter_fn(|metadata: &Metadata<'_>| {
        *metadata.level() <= Level::INFO || !metadata.target().starts_with("tokio_postgres")
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'writer> MakeWriter<'writer> for Written {
        type Writer = Self;

        fn make_writer(&'writer self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn no_level_shows_the_statements_of_the_client() {
        let written = Written::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("trace"))
            .with_writer(written.clone())
            .finish()
            .with(without_statements());
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "tokio_postgres::simple_query", "ALTER ROLE PASSWORD");
            tracing::info!(target: "tokio_postgres::connection", "NOTICE: kept");
            tracing::trace!(target: "pgrescue::agent", "ours");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("NOTICE: kept") && text.contains("ours"), "{text}");
        assert!(!text.contains("PASSWORD"), "{text}");
    }
}
