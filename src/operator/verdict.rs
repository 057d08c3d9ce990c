//! What an observed Job means for its run. Pure.

use k8s_openapi::api::batch::v1::{Job, JobCondition};

use super::observe::{Attempt, AttemptEnd, Observation};
use crate::api::reasons;
use crate::api::status::{Failure, FailureClass, StepState, StepStatus};
use crate::plan::Refusal;
use crate::plan::report::{Outcome, PREFLIGHT, Report};

/// What an observed Job means for its run.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It has not ended.
    Unfinished {
        /// Whether an agent runs now.
        running: bool,
        /// What is going on, in a sentence.
        message: String,
    },
    /// An agent said that the run ended well.
    Done(Report),
    /// The Job ended well, but what its agent said is gone.
    ReportMissing,
    /// The Job failed.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether an agent may have left something behind: it ended without saying that it cleaned up.
        unclean: bool,
        /// SHA-256 of the steps, in hex, where they were known.
        plan_hash: Option<String>,
    },
    /// The Job was recorded and is gone.
    Lost,
}

/// Judges a Job whose UID was recorded.
#[must_use]
pub fn judge(observation: &Observation, uid: &str) -> Verdict {
    let Observation { job, attempts } = observation;
    let job = job.as_ref().filter(|job| job.metadata.uid.as_deref() == Some(uid));
    if let Some(report) = success(attempts) {
        return Verdict::Done(report.clone());
    }
    let Some(job) = job else {
        // Its pods outlive it until their report is read; while one runs, nothing else may touch what it works on.
        return match attempts.iter().find(|attempt| attempt.end.is_none()) {
            Some(attempt) => Verdict::Unfinished {
                running: false,
                message: format!("the Job is gone; waiting for its pod {} to stop", attempt.pod),
            },
            None => Verdict::Lost,
        };
    };
    // `SuccessCriteriaMet` and `FailureTarget` come earlier, while pods still run.
    if condition(job, "Complete").is_some() {
        return Verdict::ReportMissing;
    }
    match condition(job, "Failed") {
        Some(condition) => failed(job, condition, attempts),
        None => unfinished(job, attempts),
    }
}

/// The first report of success. An agent writes it when all is done, so it stands whatever happens to the Job.
fn success(attempts: &[Attempt]) -> Option<&Report> {
    reports(attempts).find(|report| report.outcome != Outcome::Failed)
}

fn reports(attempts: &[Attempt]) -> impl Iterator<Item = &Report> {
    attempts
        .iter()
        .filter_map(|attempt| attempt.end.as_ref()?.report.as_ref())
}

fn condition<'job>(job: &'job Job, r#type: &str) -> Option<&'job JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == r#type && condition.status == "True")
}

fn failed(job: &Job, condition: &JobCondition, attempts: &[Attempt]) -> Verdict {
    let last = attempts
        .iter()
        .filter_map(|attempt| Some((attempt, attempt.end.as_ref()?)))
        .max_by_key(|(_, end)| end.at.clone());
    let report = last.and_then(|(_, end)| end.report.as_ref());
    let reported = report.and_then(|report| report.failure.clone());
    let failure = match (condition.reason.as_deref(), reported) {
        // The agent's own deadline comes first; where it could not hold it, its report says only that it was stopped.
        (Some("DeadlineExceeded"), reported) if !is_permanent(reported.as_ref()) => deadline_exceeded(job),
        (_, Some(reported)) => reported,
        (_, None) => match last {
            Some((attempt, end)) => without_report(attempt, end),
            None => pods_gone(condition),
        },
    };
    let all_seen = failed_pods(job) <= attempts.len();
    // Only an agent that refused for good says that nothing of it is left; one before it may have kept what the next
    // was to go on with.
    let refused = is_permanent(report.and_then(|report| report.failure.as_ref())) && attempts.len() == 1;
    let never_ran = !attempts.iter().any(|attempt| attempt.started);
    let clean = all_seen && (refused || never_ran);
    Verdict::Failed {
        failure,
        unclean: !clean,
        plan_hash: report.and_then(|report| report.plan_hash.clone()),
    }
}

/// Whether no agent of a Job has changed anything: none began, or each that did ended before its first step. `uid` is
/// the Job's as recorded, `steps` what agents said of their steps while they ran.
#[must_use]
pub fn changed_nothing(observation: &Observation, uid: Option<&str>, steps: &[StepStatus]) -> bool {
    let Observation { job, attempts } = observation;
    let all_seen = match job {
        Some(job) => condition(job, "Complete").is_none() && failed_pods(job) <= attempts.len(),
        None => uid.is_none(),
    };
    // A pod that the cluster took away is gone, and does not count as failed.
    let begun = steps
        .iter()
        .any(|step| step.name != PREFLIGHT && !matches!(step.state, StepState::Planned | StepState::Pending));
    all_seen && !begun && attempts.iter().all(ended_before_its_first_step)
}

fn ended_before_its_first_step(attempt: &Attempt) -> bool {
    let report = attempt.end.as_ref().and_then(|end| end.report.as_ref());
    match report.and_then(|report| report.failure.as_ref()) {
        Some(failure) => failure.step.as_deref().is_none_or(|step| step == PREFLIGHT),
        None => !attempt.started,
    }
}

/// Pods that failed, also those that are gone.
fn failed_pods(job: &Job) -> usize {
    let failed = job.status.as_ref().and_then(|status| status.failed);
    failed
        .and_then(|failed| usize::try_from(failed).ok())
        .unwrap_or_default()
}

fn is_permanent(failure: Option<&Failure>) -> bool {
    failure.is_some_and(|failure| failure.class == FailureClass::Permanent)
}

fn deadline_exceeded(job: &Job) -> Failure {
    let seconds = job
        .spec
        .as_ref()
        .and_then(|spec| spec.active_deadline_seconds)
        .unwrap_or_default();
    Refusal::permanent(
        reasons::DEADLINE_EXCEEDED,
        format!("The run took longer than its deadline; its Job was ended after {seconds} s."),
    )
    .hint("Set spec.job.deadlineSeconds higher and make the resource again with a new name.")
    .into_failure(None)
}

fn without_report(attempt: &Attempt, end: &AttemptEnd) -> Failure {
    let refusal = if end.out_of_memory {
        Refusal::temporary(
            reasons::OUT_OF_MEMORY,
            "The agent's pod was killed because it used more memory than its limit.",
        )
        .hint("Set spec.job.resources.limits.memory higher and make the resource again with a new name.")
    } else {
        Refusal::temporary(
            reasons::REPORT_MISSING,
            match end.exit_code {
                Some(code) => format!("The agent's pod ended with exit code {code} and without a report."),
                None => "The agent's pod was taken away before it could report.".into(),
            },
        )
        .hint(format!("Look at the log: kubectl logs {}.", attempt.pod))
    };
    refusal.object(format!("Pod/{}", attempt.pod)).into_failure(None)
}

fn pods_gone(condition: &JobCondition) -> Failure {
    let why = condition.message.as_deref().unwrap_or("it gave no reason");
    Refusal::temporary(
        reasons::REPORT_MISSING,
        format!("The Job failed and its pods are gone: {why}"),
    )
    .hint("Look at the Job's Events with kubectl describe job, then make the resource again with a new name.")
    .into_failure(None)
}

fn unfinished(job: &Job, attempts: &[Attempt]) -> Verdict {
    if job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) {
        return Verdict::Unfinished {
            running: false,
            message: "the Job is suspended".into(),
        };
    }
    let current = attempts.iter().rfind(|attempt| attempt.end.is_none());
    let before = attempts
        .iter()
        .rfind(|attempt| attempt.end.is_some())
        .map(earlier_attempt);
    let (running, now) = match current {
        Some(Attempt { running: true, pod, .. }) => (true, format!("the agent runs in pod {pod}")),
        Some(Attempt { pod, waiting, .. }) => match waiting {
            Some(waiting) => (false, format!("pod {pod} cannot start: {waiting}")),
            None => (false, format!("pod {pod} starts")),
        },
        None if attempts.is_empty() && failed_pods(job) == 0 => (
            false,
            "the Job has no pod yet; if this lasts, kubectl describe job says why".into(),
        ),
        None => (false, "waiting for the Job to start the next attempt or to end".into()),
    };
    let attempt = attempts.len();
    let message = match before {
        Some(before) => format!("attempt {attempt}: {now}; {before}"),
        None => now,
    };
    Verdict::Unfinished { running, message }
}

fn earlier_attempt(attempt: &Attempt) -> String {
    let end = attempt.end.as_ref();
    match end.and_then(|end| end.report.as_ref()) {
        Some(report) => format!("the one before ended: {}", report.message),
        None if end.is_some_and(|end| end.out_of_memory) => {
            "the one before was killed because it used more memory than its limit".into()
        }
        None => "the one before ended without a report".into(),
    }
}
