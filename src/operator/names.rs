//! Names, labels and annotations of what the operator makes, and back from an object to its run.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::resource::RunResource;
use crate::api::{GROUP, VERSION};
use crate::plan::RunKind;

/// Field manager of everything that the operator applies.
pub const FIELD_MANAGER: &str = "pgrescue-operator";
/// `ClusterRole` of the agents.
pub const AGENT_CLUSTER_ROLE: &str = "pgrescue-agent";
/// Label on all that the operator makes.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "pgrescue");
/// Label with the UID of the run.
pub const RUN_UID: &str = "pgrescue.dev/run-uid";
/// Label with the kind of the run.
pub const RUN_KIND: &str = "pgrescue.dev/run-kind";
/// Annotation with the name of the run: a name may be longer than the value of a label.
pub const RUN_NAME: &str = "pgrescue.dev/run-name";
/// Finalizer that keeps a pod until its report is read.
pub const REPORT_FINALIZER: &str = "pgrescue.dev/report";
/// Finalizer that keeps a backup's resource until its artefact is deleted.
pub const ARTIFACT_FINALIZER: &str = "pgrescue.dev/artifact";
/// Finalizer that keeps a resource while its run is under way, so that what is half done is removed before it goes.
pub const UNFINISHED_FINALIZER: &str = "pgrescue.dev/unfinished";

/// The API server cuts the Job's name in a pod's to 58 characters, dash included, and suffixes come before that.
const LONGEST_RUN_NAME: usize = 35;
const HASH_LENGTH: usize = 10;
const DRY_RUN_SUFFIX: &str = "-plan";

/// Name of the Job of a run. The hash of the UID keeps namesakes apart, of which one is made after the other is gone.
#[must_use]
pub fn job(name: &str, uid: &str, dry_run: bool) -> String {
    let readable: String = name.replace('.', "-").chars().take(LONGEST_RUN_NAME).collect();
    let hash = &hex::encode(Sha256::digest(uid.as_bytes()))[..HASH_LENGTH];
    let suffix = if dry_run { DRY_RUN_SUFFIX } else { "" };
    format!("{}-{hash}{suffix}", readable.trim_end_matches('-'))
}

/// Whether a Job of that name was made for a dry run.
#[must_use]
pub fn is_dry_run(job: &str) -> bool {
    job.ends_with(DRY_RUN_SUFFIX)
}

/// The run that an object was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReference {
    /// Its kind.
    pub kind: RunKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl RunReference {
    /// The run of a resource.
    #[must_use]
    pub fn of<R: RunResource>(resource: &R) -> Self {
        Self {
            kind: R::KIND,
            namespace: resource.namespace().unwrap_or_default(),
            name: resource.name_any(),
            uid: resource.uid().unwrap_or_default(),
        }
    }

    /// The run that labels and annotation name, `None` for an object that is not ours.
    #[must_use]
    pub fn from_metadata(metadata: &ObjectMeta) -> Option<Self> {
        let labels = metadata.labels.as_ref()?;
        if labels.get(MANAGED_BY.0).map(String::as_str) != Some(MANAGED_BY.1) {
            return None;
        }
        let kind = match labels.get(RUN_KIND)?.as_str() {
            "PgBackup" => RunKind::PgBackup,
            "PgRestore" => RunKind::PgRestore,
            _ => return None,
        };
        Some(Self {
            kind,
            namespace: metadata.namespace.clone()?,
            name: metadata.annotations.as_ref()?.get(RUN_NAME)?.clone(),
            uid: labels.get(RUN_UID)?.clone(),
        })
    }

    /// Metadata of an object of the run. Nothing of the resource's own labels and annotations is passed on: those of
    /// Argo CD, Flux, Helm and kubectl would make them claim the children.
    #[must_use]
    pub fn metadata(&self, name: &str) -> ObjectMeta {
        let label = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(
                [
                    MANAGED_BY,
                    ("app.kubernetes.io/name", "pgrescue-agent"),
                    (RUN_KIND, kind(self.kind)),
                    (RUN_UID, &self.uid),
                ]
                .map(label)
                .into(),
            ),
            annotations: Some([label((RUN_NAME, &self.name))].into()),
            ..ObjectMeta::default()
        }
    }

    /// Makes the resource the owner. It never blocks its deletion: that would need a verb on its finalizers.
    #[must_use]
    pub fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: kind(self.kind).to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }
}

/// The kind as Kubernetes spells it.
#[must_use]
pub const fn kind(kind: RunKind) -> &'static str {
    match kind {
        RunKind::PgBackup => "PgBackup",
        RunKind::PgRestore => "PgRestore",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_name_stands_whole_in_the_names_of_its_pods_and_differs_between_namesakes() {
        let long = "a".repeat(200);
        assert!(format!("{}-cleanup-", job(&long, "uid", false)).len() <= 58);
        assert!(format!("{}-check-", job(&long, "uid", true)).len() <= 58);
        assert_ne!(job("orders", "1", false), job("orders", "2", false));
        assert_eq!(job("nightly.orders", "1", false), "nightly-orders-6b86b273ff");
        assert!(is_dry_run(&job("orders", "1", true)));
    }

    #[test]
    fn an_object_leads_back_to_its_run() {
        let run = RunReference {
            kind: RunKind::PgRestore,
            namespace: "shop".into(),
            name: "orders".into(),
            uid: "123".into(),
        };
        assert_eq!(RunReference::from_metadata(&run.metadata("job")), Some(run));
        assert_eq!(RunReference::from_metadata(&ObjectMeta::default()), None);
    }
}
