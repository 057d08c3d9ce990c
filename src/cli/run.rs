//! `pgrescue run`: the two pure stages and the agent in one process, for a laptop or a pipeline.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use super::manifests::{Manifests, Resource};
use super::outcome::with_sources;
use super::show::Output;
use super::{EXIT_USAGE, ManifestArguments};
use crate::agent::Context;
use crate::agent::execute::{MissingReferences, execute};
use crate::agent::pod::stop_on_signal;
use crate::agent::progress::Reporter;
use crate::api::job::JobSettings;
use crate::api::{PgBackup, PgRestore, reasons};
use crate::plan::report::{EXIT_DONE, Report};
use crate::plan::restore::SnapshotSource;
use crate::plan::storage::Place;
use crate::plan::{Plan, Refusal, Run, RunKind, backup, restore, storage};
use crate::postgres::client_tools::ClientTools;
use crate::references::References;

/// Arguments of `pgrescue run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// Shows the steps and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// How the run is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs every resource of the file in its order, until one fails. Returns the exit code.
pub async fn run(arguments: &Arguments) -> i32 {
    let manifests = match Manifests::read(&arguments.manifest.file) {
        Ok(manifests) => manifests,
        Err(error) => return usage(&error),
    };
    let client_tools = match ClientTools::find(arguments.manifest.pg_bin_dir.as_deref()) {
        Ok(tools) => Arc::new(tools),
        Err(error) => return usage(&error),
    };
    let references: Arc<dyn References> = Arc::new(manifests.references.clone());
    let stop = stop_on_signal();
    for resource in &manifests.resources {
        let reporter = Reporter::default();
        let context = Context {
            references: Arc::clone(&references),
            reporter: reporter.clone(),
            client_tools: Arc::clone(&client_tools),
            stop: stop.clone(),
        };
        let name = display_name(resource);
        let report = match plan(resource, &manifests, arguments.dry_run) {
            Ok(plan) => run_shown(&plan, &context, &name, arguments.output).await,
            Err(refusal) => Report::failed(refusal, None, None),
        };
        arguments.output.finish(&name, &reporter.status(), &report);
        if report.exit_code() != EXIT_DONE {
            return report.exit_code();
        }
    }
    EXIT_DONE
}

fn usage(error: &dyn std::error::Error) -> i32 {
    eprintln!("error: {}", with_sources(error));
    EXIT_USAGE
}

async fn run_shown(plan: &Plan, context: &Context, name: &str, output: Output) -> Report {
    let ended = CancellationToken::new();
    let shown = tokio::spawn(output.follow(name.to_owned(), context.reporter.clone(), ended.clone()));
    let report = execute(plan, context, MissingReferences::Fail).await;
    ended.cancel();
    if let Err(error) = shown.await {
        tracing::warn!("the progress could not be shown: {error}");
    }
    report
}

fn display_name(resource: &Resource) -> String {
    match resource {
        Resource::Backup(backup) => format!("PgBackup/{}", backup.metadata.name.as_deref().unwrap_or_default()),
        Resource::Restore(restore) => format!("PgRestore/{}", restore.metadata.name.as_deref().unwrap_or_default()),
    }
}

/// The first stage: from the resource to its plan, as the operator does it.
pub fn plan(resource: &Resource, manifests: &Manifests, dry_run: bool) -> Result<Plan, Refusal> {
    match resource {
        Resource::Backup(resource) => {
            let PgBackup {
                metadata,
                spec,
                status: _,
            } = resource.as_ref();
            let mut plan = backup::plan(
                spec,
                run_of(RunKind::PgBackup, metadata, spec.job.as_ref()),
                Place::Local,
            )?;
            plan.dry_run |= dry_run;
            Ok(Plan::Backup(plan))
        }
        Resource::Restore(resource) => {
            let PgRestore {
                metadata,
                spec,
                status: _,
            } = resource.as_ref();
            let source = snapshot_source(resource, &manifests.backups)?;
            let mut plan = restore::plan(spec, run_of(RunKind::PgRestore, metadata, spec.job.as_ref()), source)?;
            plan.dry_run |= dry_run;
            Ok(Plan::Restore(plan))
        }
    }
}

fn run_of(kind: RunKind, metadata: &ObjectMeta, job: Option<&JobSettings>) -> Run {
    Run {
        kind,
        namespace: namespace(metadata),
        name: metadata.name.clone().unwrap_or_default(),
        uid: uuid::Uuid::new_v4().to_string(),
        generation: 0,
        created: Timestamp::now(),
        deadline_seconds: job.and_then(|job| job.deadline_seconds),
    }
}

fn namespace(metadata: &ObjectMeta) -> String {
    metadata.namespace.clone().unwrap_or_else(|| "default".to_owned())
}

/// The storage of the PgBackup that a restore names; the newest snapshot that this backup made there.
pub fn snapshot_source(resource: &PgRestore, backups: &[PgBackup]) -> Result<SnapshotSource, Refusal> {
    let source = &resource.spec.source.backup;
    let restore_namespace = namespace(&resource.metadata);
    let named = |backup: &&PgBackup| {
        backup.metadata.name.as_deref() == Some(&source.name) && namespace(&backup.metadata) == restore_namespace
    };
    let backup = backups.iter().find(named).ok_or_else(|| {
        Refusal::permanent(
            reasons::BACKUP_NOT_FOUND,
            format!(
                "PgBackup {:?} of namespace {restore_namespace:?} stands neither in the file nor beside it.",
                source.name
            ),
        )
        .object(format!("PgBackup/{}", source.name))
        .hint("Put the PgBackup's manifest into the same file or folder: it says where the backup is stored.")
    })?;
    let storage = storage::plan(&backup.spec.storage, Place::Local, "spec.storage")?;
    Ok(SnapshotSource {
        identity: restore::identity(resource.spec.source.decryption.as_ref(), &storage)?,
        storage,
        snapshot: None,
        backup_namespace: restore_namespace,
        backup_name: source.name.clone(),
        manifest_sha256: None,
        database: source.database.clone(),
    })
}
