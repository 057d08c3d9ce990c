//! What every run reports in its status. The controller writes the outcome, the agent the progress: each field says whose.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Status shared by all runs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Conditions by type; the controller's and the agent's types are disjoint (see `conditions`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that the controller last acted on. Controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// For people and the printed column. Controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The Job of the run. Controller; the name before it is created, the UID after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobReference>,
    /// The Job that looks after what the run's own Job left open. Controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<FollowUp>,
    /// When the Job was created. Controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the outcome was final. Controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Why the run failed. Controller, from the agent's report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// How far the run is. Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The steps, in order. Agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepStatus>,
    /// What was pinned before the first change. Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// SHA-256 of the steps, in hex: a dry run and the run that follows show the same. Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// What the reader should know although the run goes on. Agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum Phase {
    Pending,
    Waiting,
    Running,
    Succeeded,
    AlreadyApplied,
    Planned,
    Failed,
    Deleting,
}

impl Phase {
    /// Whether no later event changes the phase. `Planned` is left only by `dryRun: false`.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::AlreadyApplied | Self::Failed)
    }
}

/// The Job of a run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct JobReference {
    /// Name, recorded before the Job is created.
    pub name: String,
    /// UID, recorded after. A recorded UID whose Job is missing means that the run is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// A Job that looks after what the run's own Job left open.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FollowUp {
    /// What it is for.
    pub purpose: FollowUpPurpose,
    /// The Job.
    #[serde(flatten)]
    pub job: JobReference,
}

/// What a follow-up Job is for: `Check` asks the store or the target how a run ended whose report is missing;
/// `CleanUp` removes what an agent that died for good left; `Delete` removes the artefact of a deleted backup.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum FollowUpPurpose {
    Check,
    CleanUp,
    Delete,
}

/// How far a run is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    /// Name of the step under way.
    pub step: String,
    /// Bytes of the artefact written or read.
    pub bytes: u64,
    /// Rows written or loaded.
    pub rows: u64,
    /// Tables finished.
    pub tables: u64,
    /// Tables in all.
    pub tables_total: u64,
    /// Bytes in a second, over the last seconds.
    pub bytes_per_second: u64,
    /// Seconds to the end, as far as it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// Tables under way whose rows are stored as chunks; the largest, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables_under_way: Vec<TableProgress>,
}

/// How far the rows of one table are.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TableProgress {
    /// Its database.
    pub database: String,
    /// Its name, as SQL has it: schema and table, quoted where needed.
    pub table: String,
    /// 0 to 100.
    pub percent: u8,
}

/// One step of a run.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Name, with the database where the step belongs to one.
    pub name: String,
    /// What it does, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it is.
    pub state: StepState,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_milliseconds: Option<u64>,
    /// What came of it, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Where a step is. `Planned` stands in a dry run.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum StepState {
    Planned,
    Pending,
    Running,
    Done,
    Failed,
    Skipped,
}

/// What was pinned before the first change.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// Snapshot id in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Databases of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// Version of the server, as `server_version` tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// Version of the client programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// Where the artefact is, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Foreign servers before and after the rewrite, secrets masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_servers: Vec<ForeignServerChange>,
}

/// A foreign server before and after the rewrite, secrets masked.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ForeignServerChange {
    /// Name of the server.
    pub name: String,
    /// Name of its foreign data wrapper.
    pub wrapper: String,
    /// What is done: `Rewritten`, `Kept` or `Dropped`.
    pub action: ForeignServerAction,
    /// Options before, values of secret ones masked.
    pub before: std::collections::BTreeMap<String, String>,
    /// Options after, values of secret ones masked.
    pub after: std::collections::BTreeMap<String, String>,
    /// User mappings, each in a sentence without values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_mappings: Vec<String>,
}

/// What is done with a foreign server.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum ForeignServerAction {
    #[default]
    Kept,
    Rewritten,
    Dropped,
}

/// A finished artefact.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Snapshot id in the repository.
    pub snapshot: String,
    /// Where it is, without credentials.
    pub location: String,
    /// Bytes stored, all objects and chunks of the backup.
    pub bytes: u64,
    /// Bytes of them that no earlier backup had stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_bytes: Option<u64>,
    /// Share of the bytes that the repository had already, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_percent: Option<u8>,
    /// Rows stored, all tables.
    pub rows: u64,
    /// Databases stored.
    pub databases: Vec<String>,
    /// SHA-256 of `manifest.json`, in hex.
    pub manifest_sha256: String,
}

/// Why a run failed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Whether a retry can help.
    pub class: FailureClass,
    /// Reason constant, see `reasons`.
    pub reason: String,
    /// Step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Object that it failed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// SQLSTATE, where PostgreSQL gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// What happened.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Whether a retry can help.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "a docstring per variant would turn the enum into oneOf in the CRD"
)]
pub enum FailureClass {
    Permanent,
    Temporary,
    Interrupted,
}
