//! The agent: finds, decides and runs the steps of one plan, and tells how it went.

pub mod backup;
pub mod execute;
pub mod export;
pub mod foreign_servers;
pub mod kubernetes_status;
pub mod pod;
pub mod progress;
pub mod restore;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::postgres::client_tools::ClientTools;
use crate::references::References;
use progress::Reporter;

/// What every step needs.
#[derive(Clone)]
pub struct Context {
    /// Secrets and ConfigMaps that the plan names.
    pub references: Arc<dyn References>,
    /// Where progress goes.
    pub reporter: Reporter,
    /// The stock client programs of this machine.
    pub client_tools: Arc<ClientTools>,
    /// Set when the run is to stop: SIGTERM, Ctrl-C or the deadline.
    pub stop: CancellationToken,
}
