//! What the agent found out for a restore, by reading alone. Pure data; `restore_steps` decides what follows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::backup::Sections;
use super::refusal::Refusal;
use crate::api::status::ForeignServerChange;

/// Everything that decides over a restore.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// The snapshot, and the database in it.
    pub snapshot: Snapshot,
    /// The target's server, and what the restoring role may do there.
    pub server: Server,
    /// Name of the target database.
    pub database: String,
    /// What stands under that name.
    pub state: DatabaseState,
    /// What the archive needs from the target.
    pub needs: Needs,
    /// What the rules make of foreign servers and subscriptions, or every reason against it.
    pub foreign: Result<Foreign, Vec<Refusal>>,
    /// What the reader should know although the run goes on.
    pub warnings: Vec<String>,
}

/// The snapshot, and the database in it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Snapshot id.
    pub id: String,
    /// SHA-256 of the manifest, in hex.
    pub manifest_sha256: String,
    /// Name of the database in the backup.
    pub database: String,
    /// Major version of the server that was backed up.
    pub server_major: u32,
    /// What the backup holds.
    pub sections: Sections,
    /// Bytes of the stored archive.
    pub archive_bytes: u64,
    /// Chunks that hold rows.
    pub chunks: u64,
    /// Bytes of the stored chunks.
    pub chunk_bytes: u64,
    /// Tables whose rows are in it.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// How the database was made.
    pub locale: Locale,
}

/// Encoding and locale of a database.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Locale {
    /// Encoding, by PostgreSQL's name for it.
    pub encoding: String,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Locale of the providers `icu` and `builtin`.
    pub locale: Option<String>,
    /// Rules of the provider `icu`.
    pub icu_rules: Option<String>,
}

/// The target's server, and what the restoring role may do there.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "each is one privilege or state of its own")]
pub struct Server {
    /// Major version.
    pub major: u32,
    /// Version, as `server_version` tells it.
    pub version: String,
    /// Version of the client programs that fit archive and server, or why there are none.
    pub client: Result<String, Refusal>,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Whether sessions are shared by a transaction pooler.
    pub pooled: bool,
    /// Name of the restoring role.
    pub role: String,
    /// Whether it is a superuser.
    pub superuser: bool,
    /// Whether it may create databases.
    pub create_database: bool,
    /// Whether it may create roles.
    pub create_role: bool,
    /// Whether it may create subscriptions.
    pub create_subscription: bool,
    /// Roles of the target by whether the restoring role may give objects to them.
    pub roles: BTreeMap<String, bool>,
    /// Tablespaces.
    pub tablespaces: Vec<String>,
    /// Extensions that can be created, by their default version.
    pub extensions: BTreeMap<String, String>,
    /// Why a database with the snapshot's locale cannot be made, where that is known.
    pub locale_refusal: Option<String>,
}

/// What stands under the name of the target database.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum DatabaseState {
    /// Nothing.
    Absent,
    /// A database without any object of a user.
    Empty(EmptyDatabase),
    /// What an earlier attempt of this run made and did not finish.
    UnfinishedCreated,
    /// An empty database that an earlier attempt of this run had begun to fill.
    UnfinishedFilled(EmptyDatabase),
    /// This request was applied before.
    Applied {
        /// When.
        at: String,
        /// UID of the run that did it.
        run: String,
    },
    /// What another run made or began to fill.
    OfAnotherRun {
        /// Its resource, `namespace/name`.
        resource: String,
        /// Its UID.
        run: String,
        /// Whether its agent is at work.
        working: bool,
    },
    /// A database with objects.
    NotEmpty {
        /// How many.
        count: u64,
        /// The first of them, each with its kind.
        first: Vec<String>,
    },
    /// A database that accepts no connections.
    Closed,
}

/// An empty database that is to be filled.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDatabase {
    /// Whether the restoring role owns it, and so may change its properties.
    pub owned: bool,
    /// Whether the restoring role may create schemas in it.
    pub may_create: bool,
    /// How it was made.
    pub locale: Locale,
    /// Its extensions, each with its schema.
    pub extensions: BTreeMap<String, String>,
}

/// What the archive needs from the target, role mapping and foreign rules applied.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Needs {
    /// Roles that get objects, by the first object.
    pub owners: BTreeMap<String, String>,
    /// Roles named by grants, policies, mappings and settings, by the first object.
    pub roles: BTreeMap<String, String>,
    /// Extensions.
    pub extensions: BTreeMap<String, ExtensionNeed>,
    /// Entries with grants that another role than the owner made: only a superuser can repeat them.
    pub other_grantors: Vec<String>,
    /// Tablespaces.
    pub tablespaces: Vec<String>,
    /// Roles of the backup that can be made on the target, with what making them takes.
    pub known_roles: BTreeMap<String, KnownRole>,
}

/// An extension of the archive.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionNeed {
    /// Schema, where the archive names one.
    pub schema: Option<String>,
    /// Version at the source, where the manifest has it.
    pub version: Option<String>,
}

/// A role of the backup.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KnownRole {
    /// Attributes that only a superuser may give: `SUPERUSER`, `REPLICATION`, `BYPASSRLS`.
    pub privileged: Vec<String>,
    /// Whether its password verifier is in the backup.
    pub password: bool,
}

/// What the rules make of foreign servers and subscriptions.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Foreign {
    /// Foreign servers before and after the rewrite.
    pub servers: Vec<ForeignServerChange>,
    /// Subscriptions, by name.
    pub subscriptions: BTreeMap<String, SubscriptionAction>,
}

/// What becomes of a subscription.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum SubscriptionAction {
    /// It stays as it is in the backup.
    Kept,
    /// It is given the connection string of a Secret.
    Rewritten,
    /// It is left out.
    Dropped,
}
