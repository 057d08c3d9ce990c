//! What every reconciliation needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use kube::runtime::events::Reporter;
use tokio::sync::mpsc::UnboundedSender;

use super::metrics::Metrics;
use super::settings::Settings;

/// What every reconciliation needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the operator was told at its start.
    pub settings: Settings,
    /// Who writes Events.
    pub reporter: Reporter,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Restores that wait for backups.
    pub waiting: WaitingRestores,
}

/// A resource by namespace and name.
pub type NamespacedName = (String, String);

/// Restores that wait for backups, so that a backup wakes them when it ends. They look again by themselves too, so
/// nothing is lost when the operator restarts.
pub struct WaitingRestores {
    by_backup: Mutex<BTreeMap<NamespacedName, BTreeSet<String>>>,
    wake: UnboundedSender<NamespacedName>,
}

impl WaitingRestores {
    /// Sends the restores to wake to `wake`.
    #[must_use]
    pub const fn new(wake: UnboundedSender<NamespacedName>) -> Self {
        Self {
            by_backup: Mutex::new(BTreeMap::new()),
            wake,
        }
    }

    /// Notes that a restore waits for a backup of its namespace.
    pub fn wait(&self, namespace: &str, backup: &str, restore: &str) {
        let mut by_backup = self.by_backup.lock().unwrap_or_else(PoisonError::into_inner);
        let restores = by_backup.entry((namespace.into(), backup.into())).or_default();
        restores.insert(restore.into());
    }

    /// Wakes the restores that wait for a backup.
    pub fn wake(&self, namespace: &str, backup: &str) {
        let mut by_backup = self.by_backup.lock().unwrap_or_else(PoisonError::into_inner);
        for restore in by_backup.remove(&(namespace.into(), backup.into())).unwrap_or_default() {
            // Nobody listens any more when the operator stops.
            let _ = self.wake.send((namespace.into(), restore));
        }
    }
}
