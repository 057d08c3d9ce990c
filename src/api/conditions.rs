//! Condition types. The controller and the agent share none, so that server-side apply never conflicts.

/// kstatus: the run has ended well. Controller.
pub const READY: &str = "Ready";
/// kstatus: the controller or the agent is working. Controller.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: the run has failed and nothing will happen without a change. Controller.
pub const STALLED: &str = "Stalled";
/// The outcome: Unknown while it runs, then True or False for ever. Controller.
pub const SUCCEEDED: &str = "Succeeded";

/// Every Secret and ConfigMap that the run names is there. Agent.
pub const REFERENCES_RESOLVED: &str = "ReferencesResolved";
/// The preflight found nothing that forbids the run. Agent.
pub const PREFLIGHT_PASSED: &str = "PreflightPassed";
/// Rows, indexes and constraints were checked after the restore. Agent.
pub const DATA_VERIFIED: &str = "DataVerified";
/// Each rewritten foreign server answered. Agent.
pub const FOREIGN_SERVERS_READY: &str = "ForeignServersReady";

/// The types that the controller writes.
pub const OF_CONTROLLER: [&str; 4] = [READY, RECONCILING, STALLED, SUCCEEDED];
/// The types that the agent writes.
pub const OF_AGENT: [&str; 4] = [
    REFERENCES_RESOLVED,
    PREFLIGHT_PASSED,
    DATA_VERIFIED,
    FOREIGN_SERVERS_READY,
];
