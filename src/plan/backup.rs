//! The plan of a backup, and the steps that follow from what the agent found.

use serde::{Deserialize, Serialize};

use super::connection::ConnectionPlan;
use super::run::Run;
use super::storage::StoragePlan;
use crate::api::backup::{Compression, ForeignCredentials, RolePasswords, TableName, UnloggedTableData};

/// A validated backup request.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupPlan {
    /// The resource that asked.
    pub run: Run,
    /// The server to back up.
    pub connection: ConnectionPlan,
    /// Which databases.
    pub databases: DatabaseChoice,
    /// Where the artefact goes.
    pub storage: StoragePlan,
    /// Which halves of a dump.
    pub sections: Sections,
    /// Which schemas.
    pub schemas: Choice<String>,
    /// Which tables.
    pub tables: Choice<TableName>,
    /// Tables whose rows are left out.
    pub exclude_table_data: Vec<TableName>,
    /// Rows of unlogged tables.
    pub unlogged_table_data: UnloggedTableData,
    /// How rows are compressed; `None` is Zstd level 1 where the client knows it, else Gzip.
    pub compression: Option<Compression>,
    /// Credentials of user mappings and subscriptions.
    pub foreign_credentials: ForeignCredentials,
    /// Password verifiers of roles.
    pub role_passwords: RolePasswords,
    /// Shows the steps and changes nothing.
    pub dry_run: bool,
}

/// Which databases.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum DatabaseChoice {
    /// The one that the connection names, or all where it names none or `*`.
    OfConnection,
    /// Exactly these.
    Include(Vec<String>),
    /// All that allow connections but `template0`, `rdsadmin` and these.
    Exclude(Vec<String>),
}

/// All, some, or all but some.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Choice<T> {
    /// All.
    #[default]
    All,
    /// Exactly these.
    Include(Vec<T>),
    /// All but these.
    Exclude(Vec<T>),
}

/// Which halves of a dump.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Sections {
    /// Definitions and rows.
    #[default]
    All,
    /// Definitions alone.
    Schema,
    /// Rows alone.
    Data,
}

/// Removes what a run stored: the artefact of a deleted resource, or the unfinished one of an agent that died for good.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteArtifactPlan {
    /// The resource whose artefact goes.
    pub run: Run,
    /// Where the artefact is.
    pub storage: StoragePlan,
    /// Its snapshot id.
    pub snapshot: String,
}
