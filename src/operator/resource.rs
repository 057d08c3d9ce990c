//! What the controllers need to know of a kind. Each kind answers here, and nowhere else is a raw spec read.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::backup::{DeletionPolicy, LogLevel};
use crate::api::job::JobSettings;
use crate::api::status::{Artifact, RunStatus};
use crate::api::{PgBackup, PgRestore};
use crate::plan::backup::DeleteArtifactPlan;
use crate::plan::restore::{CleanUpRestorePlan, SnapshotSource};
use crate::plan::storage::Place;
use crate::plan::{self, Plan, Refusal, Run, RunKind};

/// A kind whose every resource is one run.
pub trait RunResource:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// The kind.
    const KIND: RunKind;

    /// What every run reports; `None` before the first reconciliation.
    fn run_status(&self) -> Option<&RunStatus>;

    /// The artefact that the run made.
    fn artifact(&self) -> Option<&Artifact>;

    /// How the Job is made.
    fn job_settings(&self) -> Option<&JobSettings>;

    /// Whether the steps are shown and nothing is changed.
    fn dry_run(&self) -> bool;

    /// Verbosity of the agent's log.
    fn log_level(&self) -> LogLevel;

    /// What becomes of the artefact when the resource is deleted.
    fn deletion_policy(&self) -> DeletionPolicy;

    /// Name of the `PgBackup` that must be finished first.
    fn source_backup(&self) -> Option<&str>;

    /// The plan. Pure; `source` is what `source_backup` made.
    fn plan(&self, run: Run, source: Option<SnapshotSource>) -> Result<Plan, Refusal>;

    /// The plan that removes what an agent that died for good left behind. Pure.
    fn clean_up(&self, run: Run) -> Result<Plan, Refusal>;

    /// The plan that deletes the artefact; `None` for a kind that makes none. Pure.
    fn delete_artifact(&self, run: Run) -> Result<Option<Plan>, Refusal>;
}

impl RunResource for PgBackup {
    const KIND: RunKind = RunKind::PgBackup;

    fn run_status(&self) -> Option<&RunStatus> {
        self.status.as_ref().map(|status| &status.run)
    }

    fn artifact(&self) -> Option<&Artifact> {
        self.status.as_ref()?.artifact.as_ref()
    }

    fn job_settings(&self) -> Option<&JobSettings> {
        self.spec.job.as_ref()
    }

    fn dry_run(&self) -> bool {
        self.spec.dry_run.unwrap_or(false)
    }

    fn log_level(&self) -> LogLevel {
        self.spec.log_level.unwrap_or_default()
    }

    fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy.unwrap_or_default()
    }

    fn source_backup(&self) -> Option<&str> {
        None
    }

    fn plan(&self, run: Run, _: Option<SnapshotSource>) -> Result<Plan, Refusal> {
        plan::backup::plan(&self.spec, run, Place::Cluster).map(Plan::Backup)
    }

    fn clean_up(&self, run: Run) -> Result<Plan, Refusal> {
        self.stored(run).map(Plan::CleanUpBackup)
    }

    fn delete_artifact(&self, run: Run) -> Result<Option<Plan>, Refusal> {
        self.stored(run).map(|plan| Some(Plan::DeleteArtifact(plan)))
    }
}

impl PgBackup {
    fn stored(&self, run: Run) -> Result<DeleteArtifactPlan, Refusal> {
        Ok(DeleteArtifactPlan {
            storage: plan::storage::plan(&self.spec.storage, Place::Cluster, "spec.storage")?,
            snapshot: run.snapshot_id(),
            run,
        })
    }
}

impl RunResource for PgRestore {
    const KIND: RunKind = RunKind::PgRestore;

    fn run_status(&self) -> Option<&RunStatus> {
        self.status.as_ref().map(|status| &status.run)
    }

    fn artifact(&self) -> Option<&Artifact> {
        None
    }

    fn job_settings(&self) -> Option<&JobSettings> {
        self.spec.job.as_ref()
    }

    fn dry_run(&self) -> bool {
        self.spec.dry_run.unwrap_or(false)
    }

    fn log_level(&self) -> LogLevel {
        self.spec.log_level.unwrap_or_default()
    }

    fn deletion_policy(&self) -> DeletionPolicy {
        DeletionPolicy::Retain
    }

    fn source_backup(&self) -> Option<&str> {
        Some(&self.spec.source.backup.name)
    }

    fn plan(&self, run: Run, source: Option<SnapshotSource>) -> Result<Plan, Refusal> {
        let mut source = source.ok_or_else(|| {
            Refusal::temporary(
                crate::api::reasons::BACKUP_NOT_FOUND,
                format!("The backup {:?} is not there.", self.spec.source.backup.name),
            )
        })?;
        source.database.clone_from(&self.spec.source.backup.database);
        plan::restore::plan(&self.spec, run, source).map(Plan::Restore)
    }

    fn clean_up(&self, run: Run) -> Result<Plan, Refusal> {
        let target = &self.spec.target;
        Ok(Plan::CleanUpRestore(CleanUpRestorePlan {
            run,
            target: plan::connection::plan(&target.connection, "spec.target.connection")?,
            database: target.database.clone(),
        }))
    }

    fn delete_artifact(&self, _: Run) -> Result<Option<Plan>, Refusal> {
        Ok(None)
    }
}
