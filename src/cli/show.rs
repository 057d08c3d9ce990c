//! Shows a run as it goes: a progress bar on a terminal, JSON lines elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::agent::progress::{AgentStatus, Reporter};
use crate::api::status::{StepState, StepStatus};
use crate::plan::report::Report;

/// How a run is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A bar where standard error is a terminal, JSON lines elsewhere.
    #[default]
    Auto,
    /// A progress bar on standard error.
    Bar,
    /// One JSON object a line on standard output.
    Json,
}

impl Output {
    fn is_bar(self) -> bool {
        match self {
            Self::Auto => std::io::stderr().is_terminal(),
            Self::Bar => true,
            Self::Json => false,
        }
    }

    /// Shows what the reporter tells until `end` is set.
    pub async fn follow(self, resource: String, reporter: Reporter, end: CancellationToken) {
        if self.is_bar() {
            follow_with_bar(&resource, &reporter, &end).await;
        } else {
            follow_with_lines(&resource, &reporter, &end).await;
        }
    }

    /// Shows how the run ended, and in a dry run the steps.
    pub fn finish(self, resource: &str, status: &AgentStatus, report: &Report) {
        if self.is_bar() {
            eprint!("{}", report_as_text(resource, status, report));
        } else {
            line(resource, "outcome", &json!(report));
        }
    }
}

async fn follow_with_bar(resource: &str, reporter: &Reporter, end: &CancellationToken) {
    const PERIOD: Duration = Duration::from_millis(200);
    let bar = ProgressBar::new(100);
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}% {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(resource.to_owned());
    let mut shown = Shown::default();
    loop {
        let ended = end.is_cancelled();
        let status = reporter.status();
        for step in shown.ended_steps(&status) {
            bar.println(step_as_text(step));
        }
        for warning in shown.new_warnings(&status) {
            bar.println(format!("  warning: {warning}"));
        }
        if let Some(progress) = &status.progress {
            bar.set_position(u64::from(progress.percent));
            let megabytes = |bytes: u64| bytes / 1_000_000;
            let eta = progress
                .eta_seconds
                .map_or(String::new(), |seconds| format!(", {seconds} s left"));
            bar.set_message(format!(
                "{}: {} MB, {} rows, {} MB/s{eta}",
                progress.step,
                megabytes(progress.bytes),
                progress.rows,
                megabytes(progress.bytes_per_second)
            ));
        }
        if ended {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = end.cancelled() => {}
        }
    }
    bar.finish_and_clear();
}

async fn follow_with_lines(resource: &str, reporter: &Reporter, end: &CancellationToken) {
    const PERIOD: Duration = Duration::from_secs(2);
    let mut shown = Shown::default();
    let mut changes = reporter.subscribe();
    let mut tick = tokio::time::interval(PERIOD);
    loop {
        let ended = end.is_cancelled();
        let status = reporter.status();
        for step in shown.ended_steps(&status) {
            line(resource, "step", &json!(step));
        }
        for warning in shown.new_warnings(&status) {
            line(resource, "warning", &json!({"message": warning}));
        }
        if shown.progress_moved(&status) {
            line(resource, "progress", &json!(status.progress));
        }
        if ended {
            break;
        }
        tokio::select! {
            _ = tick.tick() => {}
            _ = changes.changed() => {}
            () = end.cancelled() => {}
        }
    }
}

/// What has been shown, so that nothing is shown twice.
#[derive(Default)]
struct Shown {
    steps: Vec<String>,
    warnings: usize,
    progress: Option<(u64, u64, u8)>,
}

impl Shown {
    fn ended_steps<'status>(&mut self, status: &'status AgentStatus) -> Vec<&'status StepStatus> {
        let ended = |step: &&StepStatus| matches!(step.state, StepState::Done | StepState::Failed | StepState::Skipped);
        let new: Vec<_> = status
            .steps
            .iter()
            .filter(ended)
            .filter(|step| !self.steps.contains(&step.name))
            .collect();
        self.steps.extend(new.iter().map(|step| step.name.clone()));
        new
    }

    fn new_warnings<'status>(&mut self, status: &'status AgentStatus) -> &'status [String] {
        let new = status.warnings.get(self.warnings..).unwrap_or_default();
        self.warnings = status.warnings.len();
        new
    }

    fn progress_moved(&mut self, status: &AgentStatus) -> bool {
        let now = status
            .progress
            .as_ref()
            .map(|progress| (progress.bytes, progress.rows, progress.percent));
        let moved = now.is_some() && now != self.progress;
        self.progress = now;
        moved
    }
}

fn line(resource: &str, event: &str, fields: &Value) {
    let mut object = json!({"time": Timestamp::now().to_string(), "resource": resource, "event": event});
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields.clone());
    }
    let mut output = std::io::stdout().lock();
    // A reader that went away does not stop the run.
    let _ = writeln!(output, "{object}").and_then(|()| output.flush());
}

fn step_as_text(step: &StepStatus) -> String {
    let state = match step.state {
        StepState::Done => "done",
        StepState::Failed => "FAILED",
        StepState::Skipped => "skipped",
        StepState::Planned | StepState::Pending | StepState::Running => "planned",
    };
    let duration = step.duration_milliseconds.map_or(String::new(), |milliseconds| {
        format!(" in {}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
    });
    let text = step
        .message
        .as_deref()
        .or(step.description.as_deref())
        .unwrap_or_default();
    format!("  {state:>7} {}{duration}: {text}", step.name)
}

/// The end of a run for people.
fn report_as_text(resource: &str, status: &AgentStatus, report: &Report) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    if report.outcome == crate::plan::report::Outcome::Planned {
        for step in &status.steps {
            let _ = writeln!(text, "{}", step_as_text(step));
        }
    }
    for condition in status
        .conditions
        .iter()
        .filter(|condition| condition.status == Some(false))
    {
        let _ = writeln!(text, "  {}: {}", condition.r#type, condition.message);
    }
    let _ = writeln!(text, "{resource}: {:?}. {}", report.outcome, report.message);
    if let Some(failure) = &report.failure {
        let details = [
            ("object", &failure.object),
            ("SQLSTATE", &failure.sqlstate),
            ("step", &failure.step),
        ];
        for (name, value) in details {
            if let Some(value) = value {
                let _ = writeln!(text, "  {name}: {value}");
            }
        }
        if let Some(hint) = &failure.hint {
            let _ = writeln!(text, "  what to do: {hint}");
        }
    }
    if let Some(artifact) = &report.artifact {
        let _ = writeln!(
            text,
            "  {}: snapshot {}, {} bytes, {} rows",
            artifact.location, artifact.snapshot, artifact.bytes, artifact.rows
        );
    }
    text
}
