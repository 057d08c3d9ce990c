//! What the agent tells while it runs. Steps write here; the status of the resource, the progress bar and the JSON
//! lines read from here, each at its own pace.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::api::status::{Progress, Resolved, StepState, StepStatus, TableProgress};

/// Window over which the rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Most tables that a status names as being under way: it must stay small.
const TABLES_UNDER_WAY: usize = 10;

/// The part of a status that the agent writes.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// How far the run is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The steps, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepStatus>,
    /// What was pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// SHA-256 of the steps, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// What the reader should know although the run goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Conditions of the types in `conditions::OF_AGENT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<AgentCondition>,
}

/// A condition as the agent sets it; time and generation are added where it is written.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AgentCondition {
    /// Type, one of `conditions::OF_AGENT`.
    pub r#type: String,
    /// `None` is Unknown.
    pub status: Option<bool>,
    /// Constant from `reasons`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// The writing end. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    bytes: AtomicU64,
    rows: AtomicU64,
    tables: AtomicU64,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    status: AgentStatus,
    step: String,
    tables_total: u64,
    expected_bytes: u64,
    percent: u8,
    started: Vec<(String, Instant)>,
    samples: Vec<(Instant, u64)>,
    /// By database and table: parts that are done, and all.
    under_way: BTreeMap<(String, String), (usize, usize)>,
}

impl Default for Reporter {
    fn default() -> Self {
        let shared = Shared {
            state: Mutex::default(),
            bytes: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            tables: AtomicU64::new(0),
            changed: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Reporter {
    /// Tells readers that a step, a condition or another lasting thing changed; counters are read when wanted.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Sets the list of steps and its hash.
    pub fn plan(&self, steps: Vec<StepStatus>, hash: String) {
        self.change(|state| {
            state.status.steps = steps;
            state.status.plan_hash = Some(hash);
        });
    }

    /// Sets what was pinned.
    pub fn resolved(&self, resolved: Resolved) {
        self.change(|state| state.status.resolved = Some(resolved));
    }

    /// Adds a warning once.
    pub fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        tracing::warn!("{warning}");
        self.change(|state| {
            if !state.status.warnings.contains(&warning) {
                state.status.warnings.push(warning);
            }
        });
    }

    /// Sets a condition.
    pub fn condition(&self, r#type: &str, status: Option<bool>, reason: &str, message: impl Into<String>) {
        let condition = AgentCondition {
            r#type: r#type.into(),
            status,
            reason: reason.into(),
            message: message.into(),
        };
        self.change(|state| {
            state.status.conditions.retain(|other| other.r#type != condition.r#type);
            state.status.conditions.push(condition);
        });
    }

    /// What the run expects to move, for the percentage: uncompressed bytes of all rows, and tables.
    pub fn expect(&self, bytes: u64, tables: u64) {
        self.change(|state| {
            state.expected_bytes = bytes;
            state.tables_total = tables;
        });
    }

    /// A step begins.
    pub fn step_started(&self, name: &str) {
        tracing::info!(step = name, "step started");
        self.change(|state| {
            state.step = name.to_owned();
            state.started.push((name.to_owned(), Instant::now()));
            set_step(state, name, StepState::Running, None);
        });
    }

    /// How far a step under way is.
    pub fn step_message(&self, name: &str, message: impl Into<String>) {
        self.change(|state| set_step(state, name, StepState::Running, Some(message.into())));
    }

    /// A step ended well.
    pub fn step_done(&self, name: &str, message: impl Into<String>) {
        self.step_ended(name, StepState::Done, message.into());
    }

    /// A step was not needed.
    pub fn step_skipped(&self, name: &str, message: impl Into<String>) {
        self.step_ended(name, StepState::Skipped, message.into());
    }

    /// A step failed.
    pub fn step_failed(&self, name: &str, message: impl Into<String>) {
        self.step_ended(name, StepState::Failed, message.into());
    }

    /// Name of the step under way, empty before the first.
    #[must_use]
    pub fn current_step(&self) -> String {
        self.lock().step.clone()
    }

    /// Uncompressed bytes that went by.
    pub fn add_bytes(&self, bytes: u64) {
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Rows that went by.
    pub fn add_rows(&self, rows: u64) {
        self.shared.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Tables finished.
    pub fn add_tables(&self, tables: u64) {
        self.shared.tables.fetch_add(tables, Ordering::Relaxed);
    }

    /// How many of its equal parts a table has done. It is under way until it has done all.
    pub fn table(&self, database: &str, table: &str, done: usize, parts: usize) {
        let mut state = self.lock();
        let key = (database.to_owned(), table.to_owned());
        if done < parts {
            state.under_way.insert(key, (done, parts));
        } else {
            state.under_way.remove(&key);
        }
    }

    /// The status as it is now. The percentage never goes back, and is 100 only when every step has ended.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        let bytes = self.shared.bytes.load(Ordering::Relaxed);
        let rows = self.shared.rows.load(Ordering::Relaxed);
        let tables = self.shared.tables.load(Ordering::Relaxed);
        let mut state = self.lock();
        let now = Instant::now();
        state.samples.push((now, bytes));
        state.samples.retain(|(at, _)| now.duration_since(*at) <= RATE_WINDOW);
        let bytes_per_second = rate(&state.samples);
        let percent = percent(&state, bytes).max(state.percent);
        state.percent = percent;
        let remaining = state.expected_bytes.saturating_sub(bytes);
        let progress = Progress {
            percent,
            step: state.step.clone(),
            bytes,
            rows,
            tables,
            tables_total: state.tables_total,
            bytes_per_second,
            eta_seconds: (bytes_per_second > 0 && percent < 100 && remaining > 0).then(|| remaining / bytes_per_second),
            tables_under_way: tables_under_way(&state),
        };
        state.status.progress = Some(progress);
        state.status.clone()
    }

    /// Nothing is under way any more: the work has ended, or failed.
    pub fn no_table(&self) {
        self.lock().under_way.clear();
    }

    fn step_ended(&self, name: &str, ended: StepState, message: String) {
        tracing::info!(step = name, state = ?ended, "{message}");
        self.change(|state| set_step(state, name, ended, Some(message)));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.shared.changed.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves at worst an old progress behind.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_step(state: &mut State, name: &str, step_state: StepState, message: Option<String>) {
    let elapsed = state
        .started
        .iter()
        .rev()
        .find(|(started, _)| started == name)
        .map(|(_, at)| at.elapsed());
    let duration_milliseconds = match step_state {
        StepState::Done | StepState::Failed => elapsed.and_then(|elapsed| u64::try_from(elapsed.as_millis()).ok()),
        StepState::Planned | StepState::Pending | StepState::Running | StepState::Skipped => None,
    };
    if let Some(step) = state.status.steps.iter_mut().find(|step| step.name == name) {
        step.state = step_state;
        step.duration_milliseconds = duration_milliseconds;
        step.message = message;
    } else {
        let step = StepStatus {
            name: name.to_owned(),
            description: None,
            state: step_state,
            duration_milliseconds,
            message,
        };
        state.status.steps.push(step);
    }
}

fn tables_under_way(state: &State) -> Vec<TableProgress> {
    let mut tables: Vec<_> = state.under_way.iter().collect();
    tables.sort_by_key(|(_, (_, parts))| std::cmp::Reverse(*parts));
    tables
        .into_iter()
        .take(TABLES_UNDER_WAY)
        .map(|((database, table), (done, parts))| TableProgress {
            database: database.clone(),
            table: table.clone(),
            percent: u8::try_from(done * 100 / (*parts).max(1)).unwrap_or(100),
        })
        .collect()
}

fn percent(state: &State, bytes: u64) -> u8 {
    let steps = &state.status.steps;
    let ended = |step: &&StepStatus| matches!(step.state, StepState::Done | StepState::Skipped);
    if !steps.is_empty() && steps.iter().all(|step| ended(&step)) {
        return 100;
    }
    let by_steps = (steps.iter().filter(ended).count() * 99)
        .checked_div(steps.len())
        .unwrap_or(0);
    let by_bytes = bytes.saturating_mul(99).checked_div(state.expected_bytes);
    let share = by_bytes.map_or(by_steps as u64, |by_bytes| by_bytes.min(99).midpoint(by_steps as u64));
    u8::try_from(share.min(99)).unwrap_or(99)
}

fn rate(samples: &[(Instant, u64)]) -> u64 {
    match (samples.first(), samples.last()) {
        (Some((first, from)), Some((last, to))) if last > first => {
            let milliseconds = u64::try_from(last.duration_since(*first).as_millis())
                .unwrap_or(u64::MAX)
                .max(1);
            (to - from).saturating_mul(1000) / milliseconds
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str) -> StepStatus {
        StepStatus {
            name: name.into(),
            description: None,
            state: StepState::Pending,
            duration_milliseconds: None,
            message: None,
        }
    }

    #[test]
    fn the_largest_tables_under_way_are_named_until_they_are_done() {
        let reporter = Reporter::default();
        for number in 0..20 {
            reporter.table("d", &format!("s.t{number}"), number / 2, number);
        }
        let named = reporter.status().progress.unwrap().tables_under_way;
        assert_eq!(named.len(), TABLES_UNDER_WAY);
        assert_eq!((named[0].table.as_str(), named[0].percent), ("s.t19", 47));
        reporter.table("d", "s.t19", 19, 19);
        assert_eq!(reporter.status().progress.unwrap().tables_under_way[0].table, "s.t18");
        reporter.no_table();
        assert_eq!(reporter.status().progress.unwrap().tables_under_way, []);
    }

    #[test]
    fn the_percentage_never_goes_back_and_is_100_only_at_the_end() {
        let reporter = Reporter::default();
        reporter.plan(vec![planned("dump"), planned("check")], "hash".into());
        reporter.expect(1000, 1);
        reporter.step_started("dump");
        reporter.add_bytes(5000);
        let during = reporter.status().progress.unwrap().percent;
        reporter.expect(1_000_000, 1);
        assert!(reporter.status().progress.unwrap().percent >= during);
        reporter.step_done("dump", "done");
        assert!(reporter.status().progress.unwrap().percent < 100);
        reporter.step_started("check");
        reporter.step_done("check", "done");
        assert_eq!(reporter.status().progress.unwrap().percent, 100);
    }
}
