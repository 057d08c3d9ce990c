//! From a request to a plan. Reads the backup that a restore names, which needs a client; the rest is pure.

use kube::Api;

use super::context::Context;
use super::error::Error;
use super::resource::RunResource;
use super::validate::Request;
use crate::api::PgBackup;
use crate::api::reasons;
use crate::api::status::{Artifact, FailureClass, Phase};
use crate::plan::restore::SnapshotSource;
use crate::plan::storage::Place;
use crate::plan::{self, Plan, Refusal};

/// What is to be done for a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Run this.
    Run(Box<Plan>),
    /// Look again later.
    Wait(Refusal),
    /// Never run.
    Refuse(Refusal),
}

/// Decides what is to be done.
pub async fn plan<R: RunResource>(context: &Context, resource: &R, request: &Request) -> Result<Decision, Error> {
    let source = match resource.source_backup() {
        None => None,
        Some(name) => match source(context, request, name).await? {
            Ok(source) => Some(source),
            Err(refusal) => return Ok(refused(refusal)),
        },
    };
    Ok(match resource.plan(request.run(), source) {
        Ok(plan) => Decision::Run(Box::new(plan)),
        Err(refusal) => refused(refusal),
    })
}

fn refused(refusal: Refusal) -> Decision {
    match refusal.class {
        FailureClass::Permanent => Decision::Refuse(refusal),
        FailureClass::Temporary | FailureClass::Interrupted => Decision::Wait(refusal),
    }
}

async fn source(context: &Context, request: &Request, name: &str) -> Result<Result<SnapshotSource, Refusal>, Error> {
    // Noted before the backup is read, so that its end cannot fall between.
    let reference = &request.reference;
    context.waiting.wait(&reference.namespace, name, &reference.name);
    let backup = Api::<PgBackup>::namespaced(context.client.clone(), &reference.namespace)
        .get_opt(name)
        .await
        .map_err(Error::kubernetes("get", format_args!("PgBackup {name}")))?;
    Ok(match backup {
        Some(backup) => snapshot(&backup, &reference.namespace, name),
        None => Err(Refusal::temporary(
            reasons::BACKUP_NOT_FOUND,
            format!(
                "There is no PgBackup {name:?} in the namespace {:?}.",
                reference.namespace
            ),
        )
        .object(format!("PgBackup/{name}"))
        .hint("The restore begins by itself when the backup is there and finished.")),
    })
}

/// The snapshot of a finished backup, or why there is none. Pure.
fn snapshot(backup: &PgBackup, namespace: &str, name: &str) -> Result<SnapshotSource, Refusal> {
    let object = format!("PgBackup/{name}");
    let status = backup.status.as_ref();
    let phase = status.and_then(|status| status.run.phase);
    let unfinished = |message: String, hint: &str| {
        Refusal::temporary(reasons::BACKUP_NOT_FINISHED, message)
            .object(object.clone())
            .hint(hint)
    };
    match (phase, status.and_then(|status| status.artifact.as_ref())) {
        (
            Some(Phase::Succeeded | Phase::AlreadyApplied),
            Some(Artifact {
                snapshot,
                manifest_sha256,
                location: _,
                bytes: _,
                new_bytes: _,
                reused_percent: _,
                rows: _,
                databases: _,
            }),
        ) => Ok(SnapshotSource {
            storage: plan::storage::plan(&backup.spec.storage, Place::Cluster, "spec.storage")?,
            snapshot: Some(snapshot.clone()),
            backup_namespace: namespace.into(),
            backup_name: name.into(),
            manifest_sha256: Some(manifest_sha256.clone()),
            database: None,
            identity: None, // the plan of the restore names it
        }),
        (Some(Phase::Failed), _) => Err(Refusal::permanent(
            reasons::BACKUP_FAILED,
            format!("The backup {name:?} has failed, so there is nothing to restore."),
        )
        .object(object)
        .hint("Name a backup that has succeeded in another restore.")),
        (Some(Phase::Deleting), _) => Err(Refusal::permanent(
            reasons::BACKUP_NOT_FOUND,
            format!("The backup {name:?} is being deleted with its artefact."),
        )
        .object(object)
        .hint("Name another backup in another restore.")),
        (Some(Phase::Planned), _) => Err(unfinished(
            format!("The backup {name:?} is a dry run and has stored nothing."),
            "Set dryRun: false in the backup; the restore begins by itself when it has finished.",
        )),
        _ => Err(unfinished(
            format!("The backup {name:?} is not finished."),
            "The restore begins by itself when the backup has finished.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Restores that go on are in `scenarios`; this holds what the others are told.
    #[test]
    fn a_restore_is_told_why_its_backup_cannot_be_restored() {
        let backup = |phase| {
            let mut backup = PgBackup::new("orders", crate::api::PgBackupSpec::default());
            backup.status.get_or_insert_default().run.phase = phase;
            snapshot(&backup, "shop", "orders").unwrap_err()
        };
        assert_eq!(backup(None).reason, reasons::BACKUP_NOT_FINISHED);
        assert_eq!(backup(Some(Phase::Running)).reason, reasons::BACKUP_NOT_FINISHED);
        assert_eq!(backup(Some(Phase::Planned)).reason, reasons::BACKUP_NOT_FINISHED);
        assert_eq!(backup(Some(Phase::Failed)).reason, reasons::BACKUP_FAILED);
        assert_eq!(backup(Some(Phase::Deleting)).reason, reasons::BACKUP_NOT_FOUND);
    }
}
