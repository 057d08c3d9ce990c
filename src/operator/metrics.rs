//! Counters for Prometheus. Labels are static names: no namespace, no resource, no message.

use std::fmt;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::error::Category;
use crate::plan::RunKind;

/// Kind of a resource, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Kind {
    /// `PgBackup`.
    PgBackup,
    /// `PgRestore`.
    PgRestore,
}

impl From<RunKind> for Kind {
    fn from(kind: RunKind) -> Self {
        match kind {
            RunKind::PgBackup => Self::PgBackup,
            RunKind::PgRestore => Self::PgRestore,
        }
    }
}

/// How a run ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum RunOutcome {
    /// It ended well.
    Succeeded,
    /// The target had it already.
    AlreadyApplied,
    /// A dry run showed its steps.
    Planned,
    /// It failed.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfError {
    kind: Kind,
    error: Category,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    kind: Kind,
    outcome: RunOutcome,
}

/// The operator's counters.
pub struct Metrics {
    registry: Registry,
    reconciliations: Family<OfKind, Histogram>,
    errors: Family<OfError, Counter>,
    finished: Family<OfOutcome, Counter>,
    artifacts_deleted: Counter,
    artifacts_kept: Counter,
    leader: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pgrescue");
        let buckets = || Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]);
        let metrics = Self {
            reconciliations: Family::new_with_constructor(buckets),
            errors: Family::default(),
            finished: Family::default(),
            artifacts_deleted: Counter::default(),
            artifacts_kept: Counter::default(),
            leader: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register_with_unit(
            "reconciliation",
            "How long reconciliations took",
            Unit::Seconds,
            metrics.reconciliations.clone(),
        );
        registry.register(
            "reconciliation_errors",
            "Reconciliations that failed",
            metrics.errors.clone(),
        );
        registry.register("runs_finished", "Runs that ended, by outcome", metrics.finished.clone());
        registry.register(
            "artifacts_deleted",
            "Artefacts deleted with their resource",
            metrics.artifacts_deleted.clone(),
        );
        registry.register(
            "artifacts_kept",
            "Artefacts that could not be deleted with their resource and were left in the store",
            metrics.artifacts_kept.clone(),
        );
        registry.register("leader", "1 while this replica is the leader", metrics.leader.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// A reconciliation took so long.
    pub fn reconciled(&self, kind: RunKind, took: Duration) {
        let labels = OfKind { kind: kind.into() };
        self.reconciliations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A reconciliation failed.
    pub fn failed(&self, kind: RunKind, error: Category) {
        let labels = OfError {
            kind: kind.into(),
            error,
        };
        self.errors.get_or_create(&labels).inc();
    }

    /// A run ended.
    pub fn finished(&self, kind: RunKind, outcome: RunOutcome) {
        let labels = OfOutcome {
            kind: kind.into(),
            outcome,
        };
        self.finished.get_or_create(&labels).inc();
    }

    /// An artefact was deleted with its resource.
    pub fn artifact_deleted(&self) {
        self.artifacts_deleted.inc();
    }

    /// An artefact was left in the store although its resource asked for its deletion.
    pub fn artifact_kept(&self) {
        self.artifacts_kept.inc();
    }

    /// This replica became the leader, or no longer is.
    pub fn leader(&self, leader: bool) {
        self.leader.set(i64::from(leader));
    }

    /// Everything in the text format of Prometheus.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        metrics.finished(RunKind::PgBackup, RunOutcome::Failed);
        metrics.failed(RunKind::PgRestore, Category::Conflict);
        metrics.reconciled(RunKind::PgBackup, Duration::from_millis(20));
        metrics.leader(true);
        let text = metrics.text().unwrap();
        for line in [
            r#"pgrescue_runs_finished_total{kind="PgBackup",outcome="Failed"} 1"#,
            r#"pgrescue_reconciliation_errors_total{kind="PgRestore",error="Conflict"} 1"#,
            r#"pgrescue_reconciliation_seconds_count{kind="PgBackup"} 1"#,
            "pgrescue_leader 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
