//! What shows that a database or a role is a restore's own: the comment of a database or role that the restore made,
//! and the names that follow from the run's UID. Nothing without the run's mark is ever dropped.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::plan::Run;

/// What a mark in a comment begins with; the rest is JSON.
const PREFIX: &str = "pgrescue has not finished this restore: ";

/// Which restore made a database or a role.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Mark {
    /// UID of the run.
    pub run: String,
    /// Its resource, `namespace/name`.
    pub resource: String,
    /// The attempt, another for each time that an agent begins.
    pub attempt: String,
}

impl Mark {
    /// The mark of this attempt of the run.
    #[must_use]
    pub fn new(run: &Run, attempt: &str) -> Self {
        Self {
            run: run.uid.clone(),
            resource: format!("{}/{}", run.namespace, run.name),
            attempt: attempt.to_owned(),
        }
    }

    /// The mark as a comment.
    #[must_use]
    pub fn to_comment(&self) -> String {
        format!("{PREFIX}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// The mark in a comment, if it is one.
    #[must_use]
    pub fn of_comment(comment: &str) -> Option<Self> {
        serde_json::from_str(comment.strip_prefix(PREFIX)?).ok()
    }
}

fn fingerprint(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..8])
}

/// Name that a database has between its creation and its mark. It follows from the run's UID, so that whoever cleans
/// up knows it.
#[must_use]
pub fn unmarked_name(run: &Run) -> String {
    format!("pgrescue_{}", fingerprint(&run.uid))
}

/// What the names of all sessions of a run begin with.
#[must_use]
pub fn application_prefix(run: &Run) -> String {
    format!("pgrescue restore {}-", fingerprint(&run.uid))
}

/// Name that the sessions of one attempt show in `pg_stat_activity`.
#[must_use]
pub fn application_name(run: &Run, attempt: &str) -> String {
    format!("{}{attempt}", application_prefix(run))
}

/// Key of the advisory lock that whoever restores into a database of this name holds.
#[must_use]
pub fn lock_key(database: &str) -> i64 {
    let digest = Sha256::digest(format!("pgrescue restore {database}").as_bytes());
    let mut key = [0; 8];
    key.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(key)
}

/// A new attempt's name.
#[must_use]
pub fn new_attempt() -> String {
    let now = jiff::Timestamp::now().as_nanosecond();
    fingerprint(&format!("{now} {}", std::process::id()))[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_the_way_through_a_comment_and_no_other_comment_is_one() {
        let mark = Mark {
            run: "u".into(),
            resource: "a/b \"c\" it's".into(),
            attempt: "1".into(),
        };
        assert_eq!(Mark::of_comment(&mark.to_comment()), Some(mark));
        assert_eq!(Mark::of_comment("our orders"), None);
        assert_eq!(Mark::of_comment("pgrescue has not finished this restore: ?"), None);
    }
}
