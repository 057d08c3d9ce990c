//! What a restore will do, from its plan and what the agent found. Pure: a dry run and the run that follows decide here.

mod description;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::backup::Sections;
use super::refusal::Refusal;
use super::restore::RestorePlan;
use super::restore_findings::{DatabaseState, EmptyDatabase, Findings, Foreign, Locale, SubscriptionAction};
use super::restore_refusals as refusals;
use crate::api::restore::Globals;
use crate::api::status::{ForeignServerAction, ForeignServerChange};

/// Names of the steps, as they stand in the status.
pub mod names {
    /// Makes the roles that are missing.
    pub const ROLES: &str = "roles";
    /// Creates the target database, or takes the empty one.
    pub const DATABASE: &str = "database";
    /// Restores what rows need: schemas, types, tables, foreign servers.
    pub const PRE_DATA: &str = "pre-data";
    /// Loads rows and large objects.
    pub const DATA: &str = "data";
    /// Builds the indexes of tables that have rows.
    pub const INDEXES: &str = "indexes";
    /// Makes constraints, triggers and the like, and all other indexes.
    pub const POST_DATA: &str = "post-data";
    /// Collects statistics.
    pub const ANALYZE: &str = "analyze";
    /// Holds the database against the manifest.
    pub const VERIFY: &str = "verify";
    /// Connects through the rewritten foreign servers.
    pub const FOREIGN_SERVERS: &str = "foreign-servers";
    /// Gives the database its properties and notes the run, in one transaction.
    pub const FINISH: &str = "finish";
}

/// What follows from plan and findings.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The target remembers this request: nothing is done.
    AlreadyApplied {
        /// When it was applied.
        at: String,
    },
    /// These steps are done.
    Restore(Box<Steps>),
}

/// What will be done.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Steps {
    /// Snapshot id.
    pub snapshot: String,
    /// SHA-256 of the manifest, in hex.
    pub manifest_sha256: String,
    /// Name of the database in the backup.
    pub source_database: String,
    /// Name of the target database.
    pub database: String,
    /// Where the target database comes from.
    pub make: MakeDatabase,
    /// Roles that are made first.
    pub roles: Vec<String>,
    /// Tablespaces of the backup that the target does not have; their objects go to the default.
    pub missing_tablespaces: Vec<String>,
    /// What the backup holds.
    pub sections: Sections,
    /// Bytes of the stored archive.
    pub archive_bytes: u64,
    /// Chunks that hold rows.
    pub chunks: u64,
    /// Bytes of the stored chunks.
    pub chunk_bytes: u64,
    /// Tables whose rows are loaded.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Foreign servers before and after.
    pub foreign_servers: Vec<ForeignServerChange>,
    /// What becomes of subscriptions, by name.
    pub subscriptions: BTreeMap<String, SubscriptionAction>,
    /// Connections for chunks of rows, indexes, post-data, ANALYZE and the checks.
    pub jobs: u8,
    /// Gives every object to the restoring role.
    pub no_owner: bool,
    /// Leaves out grants.
    pub no_privileges: bool,
    /// Roles of the backup by the roles that take their place.
    pub role_mapping: BTreeMap<String, String>,
    /// Version of the target's server.
    pub server_version: String,
    /// Version of the client programs.
    pub client_version: String,
    /// What the reader should know.
    pub warnings: Vec<String>,
}

/// Where the target database comes from.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum MakeDatabase {
    /// It is created from `template0`, and dropped if the restore fails.
    Create(Locale),
    /// It exists and is empty; it is emptied again if the restore fails.
    Fill(EmptyDatabase),
}

/// Decides. A refusal names everything that stands against the restore, not the first thing alone.
pub fn decide(plan: &RestorePlan, findings: &Findings) -> Result<Decision, Refusal> {
    let database = &findings.database;
    let make = match &findings.state {
        DatabaseState::Applied { at, run: _ } => return Ok(Decision::AlreadyApplied { at: at.clone() }),
        DatabaseState::Absent | DatabaseState::UnfinishedCreated => {
            Ok(MakeDatabase::Create(findings.snapshot.locale.clone()))
        }
        DatabaseState::Empty(empty) | DatabaseState::UnfinishedFilled(empty) => Ok(MakeDatabase::Fill(empty.clone())),
        DatabaseState::OfAnotherRun { resource, run, working } => {
            Err(refusals::of_another_run(database, resource, run, *working))
        }
        DatabaseState::NotEmpty { count, first } => Err(refusals::not_empty(database, *count, first)),
        DatabaseState::Closed => Err(refusals::closed(database)),
    };
    let roles = missing_roles(plan, findings);
    let mut against = refusals::of_snapshot(&findings.snapshot);
    against.extend(refusals::of_server(findings));
    against.extend(refusals::of_extensions(findings));
    against.extend(refusals::of_roles(plan, findings, &roles));
    let foreign = match &findings.foreign {
        Ok(foreign) => {
            against.extend(refusals::of_subscriptions(findings, foreign));
            foreign.clone()
        }
        Err(reasons) => {
            against.extend(reasons.iter().cloned());
            Foreign::default()
        }
    };
    let make = match make {
        Ok(make) => {
            against.extend(match &make {
                MakeDatabase::Create(_) => refusals::of_creating(findings),
                MakeDatabase::Fill(empty) => refusals::of_filling(findings, empty),
            });
            make
        }
        Err(refusal) => {
            against.insert(0, refusal);
            return Err(refusals::combined(against));
        }
    };
    if !against.is_empty() {
        return Err(refusals::combined(against));
    }
    let steps = steps(plan, findings, make, roles, foreign)?;
    Ok(Decision::Restore(Box::new(steps)))
}

/// Roles of the backup that `globals: Missing` makes.
fn missing_roles(plan: &RestorePlan, findings: &Findings) -> BTreeSet<String> {
    match plan.globals {
        Globals::Skip => BTreeSet::new(),
        Globals::Missing => {
            let known = findings.needs.known_roles.keys();
            known
                .filter(|role| !findings.server.roles.contains_key(*role))
                .cloned()
                .collect()
        }
    }
}

fn steps(
    plan: &RestorePlan,
    findings: &Findings,
    make: MakeDatabase,
    roles: BTreeSet<String>,
    foreign: Foreign,
) -> Result<Steps, Refusal> {
    let snapshot = &findings.snapshot;
    let needed_tablespaces = findings.needs.tablespaces.iter();
    let missing_tablespaces: Vec<String> = needed_tablespaces
        .filter(|name| !findings.server.tablespaces.contains(name))
        .cloned()
        .collect();
    Ok(Steps {
        snapshot: snapshot.id.clone(),
        manifest_sha256: snapshot.manifest_sha256.clone(),
        source_database: snapshot.database.clone(),
        database: findings.database.clone(),
        warnings: warnings(findings, &make, &missing_tablespaces),
        make,
        roles: roles.into_iter().collect(),
        missing_tablespaces,
        sections: snapshot.sections,
        archive_bytes: snapshot.archive_bytes,
        chunks: snapshot.chunks,
        chunk_bytes: snapshot.chunk_bytes,
        tables: snapshot.tables,
        rows: snapshot.rows,
        foreign_servers: foreign.servers,
        subscriptions: foreign.subscriptions,
        jobs: plan.jobs,
        no_owner: plan.no_owner,
        no_privileges: plan.no_privileges,
        role_mapping: plan.role_mapping.clone(),
        server_version: findings.server.version.clone(),
        client_version: findings.server.client.clone()?,
    })
}

fn warnings(findings: &Findings, make: &MakeDatabase, missing_tablespaces: &[String]) -> Vec<String> {
    let mut warnings = findings.warnings.clone();
    if !missing_tablespaces.is_empty() {
        warnings.push(format!(
            "The target has no {} {}: their objects go to the database's default tablespace.",
            if missing_tablespaces.len() == 1 {
                "tablespace"
            } else {
                "tablespaces"
            },
            refusals::quoted_list(missing_tablespaces)
        ));
    }
    if let MakeDatabase::Fill(empty) = make {
        if !empty.owned {
            warnings.push(format!(
                "The role {:?} does not own the database {:?}: its owner, settings, comment and grants stay as they are.",
                findings.server.role, findings.database
            ));
        }
        let wanted = &findings.snapshot.locale;
        if empty.locale.encoding != wanted.encoding {
            warnings.push(format!(
                "The database {:?} has the encoding {}, the backup {}: a character that {} does not have ends the restore.",
                findings.database, empty.locale.encoding, wanted.encoding, empty.locale.encoding
            ));
        } else if empty.locale != *wanted {
            warnings.push(format!(
                "The database {:?} has another locale than the backup: texts sort by {:?} in place of {:?}.",
                findings.database,
                empty.locale.sorts_by(),
                wanted.sorts_by()
            ));
        }
    }
    warnings
}

impl Locale {
    /// The name of the locale that texts sort by.
    #[must_use]
    pub fn sorts_by(&self) -> &str {
        self.locale.as_deref().unwrap_or(&self.collate)
    }
}

impl Steps {
    /// SHA-256 of the steps' JSON, in hex: a dry run and the run that follows show the same.
    #[must_use]
    pub fn hash(&self) -> String {
        // The JSON is canonical: fields in the order of the struct, maps sorted.
        let json = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(Sha256::digest(json))
    }

    /// Whether rows are loaded.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.sections != Sections::Schema
    }

    /// Foreign servers that are rewritten, by name and wrapper.
    pub fn rewritten_servers(&self) -> impl Iterator<Item = &ForeignServerChange> {
        let changes = self.foreign_servers.iter();
        changes.filter(|change| change.action == ForeignServerAction::Rewritten)
    }
}

#[cfg(test)]
mod tests;
