//! How a run ended: the exit code, and the report in the termination message.

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use crate::api::status::{Artifact, Failure, FailureClass};

/// Largest termination message that Kubernetes keeps whole is 4096 bytes; it keeps the tail of a longer one, which
/// breaks JSON (Kubernetes, container `terminationMessagePath`).
pub const REPORT_LIMIT_BYTES: usize = 3072;

/// Name of what an agent does before the first step. Nothing is changed in it.
pub const PREFLIGHT: &str = "preflight";

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

/// A run that ended well.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// `Succeeded`, `AlreadyApplied` or `Planned`.
    pub outcome: Outcome,
    /// One sentence for the condition's message.
    pub message: String,
    /// The finished artefact of a backup.
    pub artifact: Option<Artifact>,
    /// SHA-256 of the steps, in hex.
    pub plan_hash: Option<String>,
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// Why.
    pub refusal: Refusal,
    /// Step that failed; `None` where no step had begun.
    pub step: Option<String>,
    /// SHA-256 of the steps, in hex, where they were known.
    pub plan_hash: Option<String>,
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            step: None,
            plan_hash: None,
        }
    }
}

impl From<Result<Done, Failed>> for Report {
    fn from(result: Result<Done, Failed>) -> Self {
        match result {
            Ok(Done {
                outcome,
                message,
                artifact,
                plan_hash,
            }) => Self {
                outcome,
                message,
                plan_hash,
                artifact,
                failure: None,
            },
            Err(Failed {
                refusal,
                step,
                plan_hash,
            }) => Self::failed(refusal, step, plan_hash),
        }
    }
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
