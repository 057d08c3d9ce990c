//! How a run ended: the exit code, and the report in the termination message.

use serde::{Deserialize, Serialize};

use crate::api::status::{Artifact, Failure, FailureClass};
use crate::plan::Refusal;

/// Largest termination message that Kubernetes keeps whole is 4096 bytes; it keeps the tail of a longer one, which
/// breaks JSON (Kubernetes, container `terminationMessagePath`).
pub const REPORT_LIMIT_BYTES: usize = 3072;

/// What the agent says at its end.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// One sentence for the condition's message.
    pub message: String,
    /// SHA-256 of the steps, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// The finished artefact of a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Outcome {
    Succeeded,
    AlreadyApplied,
    Planned,
    Failed,
}

/// The run ended well.
pub const EXIT_DONE: i32 = 0;
/// The run failed, and a retry cannot help.
pub const EXIT_PERMANENT: i32 = 10;
/// The run failed, and a retry may help.
pub const EXIT_TEMPORARY: i32 = 11;
/// The run was told to stop before it was done.
pub const EXIT_INTERRUPTED: i32 = 12;

impl Report {
    /// A report of a failure.
    #[must_use]
    pub fn failed(refusal: Refusal, step: Option<String>, plan_hash: Option<String>) -> Self {
        let failure = refusal.into_failure(step);
        Self {
            outcome: Outcome::Failed,
            message: failure.message.clone(),
            plan_hash,
            artifact: None,
            failure: Some(failure),
        }
    }

    /// The exit code that goes with it.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self.failure.as_ref().map(|failure| failure.class) {
            None => EXIT_DONE,
            Some(FailureClass::Permanent) => EXIT_PERMANENT,
            Some(FailureClass::Temporary) => EXIT_TEMPORARY,
            Some(FailureClass::Interrupted) => EXIT_INTERRUPTED,
        }
    }

    /// As JSON of at most [`REPORT_LIMIT_BYTES`] bytes: long texts are shortened, never the structure.
    #[must_use]
    pub fn to_termination_message(&self) -> String {
        let mut report = self.clone();
        let mut limit = 1024;
        loop {
            let json = serde_json::to_string(&report).unwrap_or_default();
            if json.len() <= REPORT_LIMIT_BYTES || limit == 0 {
                return json;
            }
            limit /= 2;
            report.shorten(limit);
        }
    }

    fn shorten(&mut self, limit: usize) {
        shorten(&mut self.message, limit);
        if let Some(failure) = &mut self.failure {
            shorten(&mut failure.message, limit);
            for text in [&mut failure.hint, &mut failure.object, &mut failure.step]
                .into_iter()
                .flatten()
            {
                shorten(text, limit);
            }
        }
        if let Some(artifact) = &mut self.artifact {
            // The manifest has the whole list; the report needs only to stay readable.
            artifact.databases.truncate(limit / 32);
            artifact.databases.iter_mut().for_each(|name| shorten(name, limit));
        }
    }
}

fn shorten(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::reasons;

    #[test]
    fn a_report_with_long_texts_stays_whole_json_below_the_limit() {
        let refusal = Refusal::permanent(reasons::DUMP_FAILED, "ü\"\n".repeat(9000))
            .hint("x".repeat(9000))
            .object("y".repeat(9000));
        let message = Report::failed(refusal, Some("dump".into()), None).to_termination_message();
        assert!(message.len() <= REPORT_LIMIT_BYTES, "{} bytes", message.len());
        let back: Report = serde_json::from_str(&message).unwrap();
        assert_eq!(back.failure.unwrap().reason, reasons::DUMP_FAILED);
    }
}
