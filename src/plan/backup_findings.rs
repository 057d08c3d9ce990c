//! What the agent found before a backup: facts alone, no judgement. `backup_steps` decides over them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use crate::api::backup::TableName;

/// Everything that the steps of a backup follow from.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// The server.
    pub server: Server,
    /// The client programs that fit it, or why there are none.
    pub client: Result<Client, Refusal>,
    /// The chosen databases (`backup_steps::choose_databases`), by name.
    pub databases: BTreeMap<String, Contents>,
}

/// The server, as one session sees it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Host and port.
    pub location: String,
    /// `server_version`.
    pub version: String,
    /// Role of the session.
    pub role: String,
    /// Whether the role is a superuser.
    pub superuser: bool,
    /// Why snapshots do not hold here: a pooler or a load balancer stands in front.
    pub pooler: Option<Refusal>,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Whether the role may read `pg_authid`, and so the password verifiers.
    pub reads_role_passwords: bool,
    /// Locks that its shared memory is laid out for: `max_locks_per_transaction` times
    /// (`max_connections` + `max_prepared_transactions`).
    pub lock_slots: u64,
}

/// The client programs for the dump.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Major version.
    pub major: u32,
    /// Whole version.
    pub version: String,
}

/// A database of the server.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Its name.
    pub name: String,
    /// `datallowconn`.
    pub allows_connections: bool,
    /// Whether the role has the privilege CONNECT.
    pub may_connect: bool,
}

/// What one database holds of what was asked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Tables that the exporter and pg_dump each lock, partitioned ones too.
    pub locked_tables: u64,
    /// Tables whose rows are stored.
    pub tables_with_data: u64,
    /// Bytes of those tables on the server's disk.
    pub bytes: u64,
    /// Names of the plan that are here.
    pub known: NamesOfPlan,
    /// Schemas that the role may not use, quoted.
    pub closed_schemas: Vec<String>,
    /// Tables that the role may not read, qualified and quoted.
    pub unreadable_tables: Vec<String>,
    /// Sequences that the role may not read, qualified and quoted.
    pub unreadable_sequences: Vec<String>,
    /// Large objects that the role may not read.
    pub unreadable_large_objects: u64,
    /// Tables whose row security applies to the role, qualified and quoted.
    pub row_security: Vec<String>,
    /// Unlogged tables among those whose rows are stored.
    pub unlogged_tables: u64,
    /// Subscriptions, which only a superuser can dump.
    pub subscriptions: Vec<String>,
}

/// Names that the plan chooses by.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NamesOfPlan {
    /// Schemas.
    pub schemas: Vec<String>,
    /// Tables, those without data among them.
    pub tables: Vec<TableName>,
}
