//! The contract between operator and agent: validated plans, and the steps that follow from what the agent found. Pure.

pub mod backup;
pub mod backup_databases;
pub mod backup_findings;
mod backup_refusals;
pub mod backup_steps;
pub mod connection;
pub mod encryption;
pub mod foreign_rules;
pub(crate) mod listing;
pub mod references;
pub mod refusal;
pub mod report;
pub mod restore;
pub mod restore_findings;
mod restore_refusals;
pub mod restore_steps;
pub mod run;
pub mod storage;

pub use references::ReferencedNames;
pub use refusal::Refusal;
pub use run::{Run, RunKind};

use serde::{Deserialize, Serialize};

/// What is asked for, validated, without a secret in it. Travels to the agent in an immutable ConfigMap.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Plan {
    /// Make a backup.
    Backup(backup::BackupPlan),
    /// Restore a database.
    Restore(restore::RestorePlan),
    /// Delete the artefact of a backup whose resource is being deleted.
    DeleteArtifact(backup::DeleteArtifactPlan),
    /// Remove what a backup's agent that died for good left in the store.
    CleanUpBackup(backup::DeleteArtifactPlan),
    /// Remove the database that a restore's agent that died for good had created.
    CleanUpRestore(restore::CleanUpRestorePlan),
}

impl Plan {
    /// The run that the plan belongs to.
    #[must_use]
    pub const fn run(&self) -> &Run {
        match self {
            Self::Backup(plan) => &plan.run,
            Self::Restore(plan) => &plan.run,
            Self::DeleteArtifact(plan) | Self::CleanUpBackup(plan) => &plan.run,
            Self::CleanUpRestore(plan) => &plan.run,
        }
    }
}
