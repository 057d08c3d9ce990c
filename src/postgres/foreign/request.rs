//! What a restore is asked to do with foreign servers and subscriptions, and what is decided.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

use super::server::LocalUser;
use super::stripped::StrippedCredential;
use crate::api::foreign_servers::{ForeignServerRule, UnmatchedForeignServers};
use crate::api::status::{ForeignServerAction, ForeignServerChange};

/// What is asked for, with the Secrets that the rules name.
#[derive(Clone, Copy, Debug)]
pub struct ForeignRewriteRequest<'a> {
    /// The rules.
    pub rules: &'a [ForeignServerRule],
    /// What to do with a server that no rule selects.
    pub unmatched: UnmatchedForeignServers,
    /// Keys and values of the Secrets that the rules name, by the name of the Secret.
    pub secrets: &'a BTreeMap<String, BTreeMap<String, SecretString>>,
    /// What the backup does not have.
    pub stripped: &'a [StrippedCredential],
    /// Roles of the backup by the roles that take their place.
    pub role_mapping: &'a BTreeMap<String, String>,
    /// Roles that exist on the target, or will before the archive is restored.
    pub target_roles: &'a BTreeSet<String>,
    /// Leaves out subscriptions that `subscription_connections` does not name.
    pub drop_subscriptions: bool,
    /// Connection strings by subscription.
    pub subscription_connections: &'a BTreeMap<String, SecretString>,
}

/// What will be done. It holds secrets, which `Debug` does not show.
#[derive(Clone, Debug, Default)]
pub struct ForeignDecision {
    /// Every server, in the order given.
    pub servers: Vec<ServerDecision>,
    /// Changes to options of foreign data wrappers that stand on their own, by wrapper.
    pub wrappers: BTreeMap<String, Changes>,
    /// Every subscription, by name.
    pub subscriptions: BTreeMap<String, SubscriptionDecision>,
}

impl ForeignDecision {
    /// Every server before and after, for the status; secrets are masked.
    #[must_use]
    pub fn changes(&self) -> Vec<ForeignServerChange> {
        self.servers.iter().map(|server| server.change.clone()).collect()
    }
}

/// What is done with a server.
#[derive(Clone, Debug)]
pub struct ServerDecision {
    /// Name of the server.
    pub name: String,
    /// Name of its wrapper.
    pub wrapper: String,
    /// Whether it is kept as it is, rewritten, or dropped with all that hangs on it.
    pub action: ForeignServerAction,
    /// Changes to its options.
    pub options: Changes,
    /// What becomes of its mappings; new ones are at the end.
    pub mappings: Vec<MappingDecision>,
    /// Changes to options of its tables and their columns, where there are any.
    pub tables: Vec<TableDecision>,
    /// The server before and after, for the status; secrets are masked.
    pub change: ForeignServerChange,
}

/// Changes to a set of options.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Options to add or to give another value.
    pub set: BTreeMap<String, SecretString>,
    /// Options to remove.
    pub drop: BTreeSet<String>,
}

impl Changes {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { set, drop } = self;
        set.is_empty() && drop.is_empty()
    }
}

/// What becomes of a mapping.
#[derive(Clone, Debug)]
pub struct MappingDecision {
    /// The mapping in the backup; `None` is a new one.
    pub from: Option<LocalUser>,
    /// Whom it is for on the target; `None` leaves it out.
    pub to: Option<LocalUser>,
    /// All its options; `None` keeps those of the backup.
    pub options: Option<BTreeMap<String, SecretString>>,
}

/// Changes to the options of a foreign table.
#[derive(Clone, Debug)]
pub struct TableDecision {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Changes to its own options.
    pub options: Changes,
    /// Changes to options of its columns, by column.
    pub columns: BTreeMap<String, Changes>,
}

/// What becomes of a subscription.
#[derive(Clone, Debug)]
pub enum SubscriptionDecision {
    /// It stays as it is in the backup.
    Keep,
    /// It is given this connection string.
    Connect(SecretString),
    /// It is left out.
    Drop,
}
