//! `pgrescue foreign-servers`: a `foreignServers:` block to fill in.

use std::sync::Arc;

use super::manifests::{Manifests, Resource};
use super::outcome::{fail, print, with_sources};
use super::run::snapshot_source;
use super::{EXIT_USAGE, ManifestArguments};
use crate::agent::Context;
use crate::agent::foreign_servers::{of_backup, of_database};
use crate::agent::pod::stop_on_signal;
use crate::agent::progress::Reporter;
use crate::api::reasons;
use crate::plan::{Refusal, connection};
use crate::postgres::client_tools::ClientTools;
use crate::postgres::foreign::{self, Inventory};

/// Arguments of `pgrescue foreign-servers`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// Database to look at. Left out: the one that the manifest names.
    #[arg(long)]
    database: Option<String>,
}

/// Prints the foreign servers of the database of a PgBackup, or of the backup that a PgRestore names.
pub async fn run(arguments: &Arguments) -> i32 {
    let manifests = match Manifests::read(&arguments.manifest.file) {
        Ok(manifests) => manifests,
        Err(error) => return usage(&error),
    };
    let client_tools = match ClientTools::find(arguments.manifest.pg_bin_dir.as_deref()) {
        Ok(tools) => Arc::new(tools),
        Err(error) => return usage(&error),
    };
    let context = Context {
        references: Arc::new(manifests.references.clone()),
        reporter: Reporter::default(),
        client_tools,
        stop: stop_on_signal(),
    };
    match servers(arguments, &manifests, &context).await {
        Ok(inventory) => print(&foreign::template(&inventory)),
        Err(refusal) => fail(refusal),
    }
}

fn usage(error: &dyn std::error::Error) -> i32 {
    eprintln!("error: {}", with_sources(error));
    EXIT_USAGE
}

async fn servers(arguments: &Arguments, manifests: &Manifests, context: &Context) -> Result<Inventory, Refusal> {
    match manifests.resources.first() {
        Some(Resource::Backup(backup)) => {
            let plan = connection::plan(&backup.spec.connection, "spec.connection")?;
            let only_one = backup
                .spec
                .databases
                .as_ref()
                .and_then(|databases| match databases.include.as_slice() {
                    [database] => Some(database.as_str()),
                    _ => None,
                });
            of_database(&plan, arguments.database.as_deref().or(only_one), context).await
        }
        Some(Resource::Restore(restore)) => {
            let mut source = snapshot_source(restore, &manifests.backups)?;
            source.database = arguments.database.clone().or(source.database);
            of_backup(&source, context).await
        }
        None => Err(Refusal::permanent(reasons::INVALID_SPEC, "The file names no database.")),
    }
}
