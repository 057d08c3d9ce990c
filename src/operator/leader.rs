//! One replica works, the others stand by. The Lease does not fence: whatever is made or written twice comes to the
//! same, because names are fixed and writes are refused where the object has changed.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::settings::Settings;

const LEASE: &str = "pgrescue-operator";
/// A replica takes over that long after the leader was last heard of. Seconds.
const LEASE_SECONDS: u64 = 15;
/// The leader renews that long before. Seconds.
const RENEWAL_SECONDS: u64 = 5;
/// Pause before the Lease is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A replica's view of the Lease.
pub struct Leadership {
    leads: watch::Receiver<bool>,
    task: JoinHandle<Result<LeaseManager, LeaseManagerError>>,
}

impl Leadership {
    /// Stands for election. Tries until the Lease can be reached; `None` where `stop` comes first.
    pub async fn stand(client: &Client, settings: &Settings, stop: &CancellationToken) -> Option<Self> {
        loop {
            let manager = LeaseManagerBuilder::new(client.clone(), LEASE)
                .with_namespace(&settings.namespace)
                .with_identity(&settings.identity)
                .with_field_manager(&settings.identity)
                .with_duration(LEASE_SECONDS)
                .with_grace(RENEWAL_SECONDS)
                .build()
                .await;
            match manager {
                Ok(manager) => {
                    let (leads, task) = manager.watch().await;
                    return Some(Self { leads, task });
                }
                Err(error) => tracing::warn!("the Lease cannot be reached: {error}"),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Waits until this replica leads, or no longer leads. Says whether that came to be; `false` where the watch ended.
    pub async fn until(&mut self, leads: bool) -> bool {
        self.leads.wait_for(|now| *now == leads).await.is_ok()
    }

    /// Gives the Lease back, so that another replica takes over at once.
    pub async fn resign(self) {
        let Self { leads, task } = self;
        drop(leads);
        match task.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("the Lease could not be given back: {error}"),
            Err(error) => tracing::warn!("the election ended badly: {error}"),
        }
    }
}
