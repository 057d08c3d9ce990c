//! Which resource a plan belongs to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The kind of resource that a run belongs to.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the resources")]
pub enum RunKind {
    PgBackup,
    PgRestore,
}

/// The resource that asked for the run.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Run {
    /// Its kind.
    pub kind: RunKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; outside Kubernetes a random one.
    pub uid: String,
    /// Generation of its spec; 0 outside Kubernetes.
    pub generation: i64,
    /// Its creation time; outside Kubernetes the start of the run.
    pub created: Timestamp,
    /// Seconds that the agent gives itself before it stops with a report; the Job's own deadline lies behind it.
    pub deadline_seconds: Option<u32>,
}

impl Run {
    /// Snapshot id of the run's backup: sortable by time, the same for every attempt of the run, another for a namesake.
    #[must_use]
    pub fn snapshot_id(&self) -> String {
        let time = self.created.strftime("%Y%m%dT%H%M%SZ");
        format!("{time}-{}", &hex::encode(Sha256::digest(self.uid.as_bytes()))[..10])
    }
}

#[cfg(test)]
impl Run {
    /// A run for tests.
    pub(crate) fn sample(kind: RunKind) -> Self {
        Self {
            kind,
            namespace: "shop".into(),
            name: "orders".into(),
            uid: "uid".into(),
            generation: 1,
            created: "2026-01-02T03:04:05Z".parse().unwrap(),
            deadline_seconds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_id_is_the_same_for_every_attempt_and_differs_between_namesakes() {
        let run = |uid: &str| Run {
            uid: uid.into(),
            ..Run::sample(RunKind::PgBackup)
        };
        assert_eq!(run("a").snapshot_id(), run("a").snapshot_id());
        assert_ne!(run("a").snapshot_id(), run("b").snapshot_id());
        assert!(run("a").snapshot_id().starts_with("20260102T030405Z-"));
    }
}
