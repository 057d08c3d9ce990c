//! What a backup will do, from its plan and what the agent found. Pure: a dry run and the run that follows decide here.

mod describe;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::backup::{BackupPlan, Choice, ChunkPlan, Sections};
use super::backup_findings::{Client, Contents, Findings, NamesOfPlan};
use super::backup_refusals as refusals;
use super::encryption::EncryptionPlan;
use super::refusal::Refusal;
use crate::api::backup::{
    Compression, CompressionMethod, ForeignCredentials, RolePasswords, TableName, UnloggedTableData,
};

/// Names of the steps, as they stand in the status; those of a database are followed by its name.
pub mod names {
    /// Announces the backup in the repository of chunks.
    pub const REPOSITORY: &str = "repository";
    /// Locks every table and exports the snapshot that everything is read under.
    pub const SNAPSHOT: &str = "snapshot";
    /// Streams the archive into the store.
    pub const DUMP: &str = "dump";
    /// Derives the plain text of the first section.
    pub const PRE_DATA: &str = "pre-data";
    /// Stores roles and tablespaces.
    pub const GLOBALS: &str = "globals";
    /// Checks that every object is there, and commits the backup.
    pub const MANIFEST: &str = "manifest";

    /// Name of a step of one database.
    #[must_use]
    pub fn of_database(step: &str, database: &str) -> String {
        format!("{step} {database}")
    }
}

/// pg_dump writes zstd and lz4 from this major version on.
const FIRST_CLIENT_WITH_ZSTD: u32 = 16;

/// Sessions that lock every table: the exporter and pg_dump.
const LOCKING_SESSIONS: u64 = 2;

/// What will be done.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Steps {
    /// Snapshot id.
    pub snapshot: String,
    /// Major version of the client programs.
    pub client_major: u32,
    /// The databases, sorted.
    pub databases: Vec<DatabaseSteps>,
    /// Which halves of a dump.
    pub sections: Sections,
    /// How the archive is compressed; a level that is left out is the method's default.
    pub compression: Compression,
    /// How rows are stored as chunks; `None` where they are in the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<ChunkSteps>,
    /// How everything but the manifest is encrypted; `None` where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionPlan>,
    /// Rows of unlogged tables.
    pub unlogged_table_data: UnloggedTableData,
    /// Credentials of user mappings and subscriptions.
    pub foreign_credentials: ForeignCredentials,
    /// Password verifiers of roles, as they can be had.
    pub role_passwords: RolePasswords,
    /// What the reader should know although the run goes on. No part of the hash: it tells of the moment.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// How rows are stored as chunks.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ChunkSteps {
    /// Sessions that read rows at the same time.
    pub parallelism: u8,
    /// Level of Zstd.
    pub zstd_level: u8,
}

/// What is taken of one database.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseSteps {
    /// Its name.
    pub name: String,
    /// Which schemas; all of them exist.
    pub schemas: Choice<String>,
    /// Which tables; all of them exist. A partitioned table stands for its partitions too.
    pub tables: Choice<TableName>,
    /// Tables whose rows are left out; all of them exist.
    pub exclude_table_data: Vec<TableName>,
}

/// Decides what will be done, or why nothing is.
pub fn decide(plan: &BackupPlan, findings: &Findings) -> Result<Steps, Refusal> {
    let Findings {
        server,
        client,
        databases,
    } = findings;
    if let Some(refusal) = &server.pooler {
        return Err(refusal.clone());
    }
    let client = client.clone()?;
    let (compression, compressed_otherwise) = compression(plan, &client)?;
    check_names(plan, findings)?;
    let mut warnings: Vec<String> = compressed_otherwise.into_iter().collect();
    let mut steps = Vec::new();
    for (name, contents) in databases {
        check_contents(plan, findings, name, contents)?;
        if let Some(warning) = check_locks(server.lock_slots, name, contents)? {
            warnings.push(warning);
        }
        if !server.superuser && !contents.subscriptions.is_empty() && plan.sections != Sections::Data {
            warnings.push(refusals::subscriptions_left_out(
                name,
                &contents.subscriptions,
                &server.role,
            ));
        }
        steps.push(database_steps(plan, name, &contents.known)?);
    }
    if plan.sections != Sections::Data && (plan.schemas != Choice::All || plan.tables != Choice::All) {
        warnings.extend(refusals::part_of_a_database(plan));
    }
    let role_passwords = match plan.role_passwords {
        RolePasswords::Keep if server.reads_role_passwords => RolePasswords::Keep,
        RolePasswords::Keep => {
            warnings.push(refusals::role_passwords_left_out(&server.role));
            RolePasswords::Omit
        }
        RolePasswords::Omit => RolePasswords::Omit,
    };
    Ok(Steps {
        snapshot: plan.run.snapshot_id(),
        client_major: client.major,
        databases: steps,
        sections: plan.sections,
        compression,
        chunks: chunks(plan),
        encryption: plan.encryption.clone(),
        unlogged_table_data: plan.unlogged_table_data,
        foreign_credentials: plan.foreign_credentials,
        role_passwords,
        warnings,
    })
}

/// What was asked for, or nothing. The default gives way to what the client knows, with a warning: nobody named it.
fn compression(plan: &BackupPlan, client: &Client) -> Result<(Compression, Option<String>), Refusal> {
    let knows_zstd = client.major >= FIRST_CLIENT_WITH_ZSTD;
    let zstd = |level: Option<u8>| Compression {
        method: CompressionMethod::Zstd,
        level: Some(level.unwrap_or(1)),
    };
    let gzip = Compression {
        method: CompressionMethod::Gzip,
        level: None,
    };
    match &plan.compression {
        // What was asked for is about the rows, which pg_dump does not write.
        _ if plan.chunks.is_some() && !knows_zstd => Ok((gzip, None)),
        None if knows_zstd => Ok((zstd(None), None)),
        None => Ok((gzip, Some(refusals::compressed_by_gzip(client)))),
        Some(Compression { method, .. })
            if matches!(method, CompressionMethod::Zstd | CompressionMethod::Lz4) && !knows_zstd =>
        {
            Err(refusals::client_without_compression(*method, client))
        }
        Some(Compression {
            method: CompressionMethod::Zstd,
            level,
        }) => Ok((zstd(*level), None)),
        Some(other) => Ok((other.clone(), None)),
    }
}

/// Where no rows are stored, there is nothing to make chunks of.
fn chunks(plan: &BackupPlan) -> Option<ChunkSteps> {
    let ChunkPlan { parallelism } = plan.chunks.filter(|_| plan.sections != Sections::Schema)?;
    let level = plan.compression.as_ref().and_then(|compression| compression.level);
    Some(ChunkSteps {
        parallelism,
        zstd_level: level.unwrap_or(1),
    })
}

/// A name that is in none of the databases is a mistake.
fn check_names(plan: &BackupPlan, findings: &Findings) -> Result<(), Refusal> {
    let known = || findings.databases.values().map(|contents| &contents.known);
    let databases: Vec<&str> = findings.databases.keys().map(String::as_str).collect();
    for schema in plan.schemas.names() {
        if !known().any(|known| known.schemas.contains(schema)) {
            return Err(refusals::schema_missing(schema, &databases));
        }
    }
    for table in plan.tables.names().iter().chain(&plan.exclude_table_data) {
        if !known().any(|known| known.tables.contains(table)) {
            return Err(refusals::table_missing(table, &databases));
        }
    }
    Ok(())
}

fn check_contents(plan: &BackupPlan, findings: &Findings, name: &str, contents: &Contents) -> Result<(), Refusal> {
    let server = &findings.server;
    if !contents.closed_schemas.is_empty() {
        return Err(refusals::closed_schemas(name, &contents.closed_schemas, &server.role));
    }
    if !contents.unreadable_tables.is_empty() {
        return Err(refusals::unreadable_tables(
            name,
            &contents.unreadable_tables,
            &server.role,
        ));
    }
    if plan.sections == Sections::Schema {
        return Ok(());
    }
    if !contents.unreadable_sequences.is_empty() {
        return Err(refusals::unreadable_sequences(
            name,
            &contents.unreadable_sequences,
            &server.role,
        ));
    }
    if contents.unreadable_large_objects > 0 {
        return Err(refusals::unreadable_large_objects(
            name,
            contents.unreadable_large_objects,
            &server.role,
        ));
    }
    if !contents.row_security.is_empty() {
        return Err(refusals::row_security(name, &contents.row_security, &server.role));
    }
    if server.in_recovery && contents.unlogged_tables > 0 {
        return Err(refusals::unlogged_on_standby(name));
    }
    Ok(())
}

/// PostgreSQL lays its lock table out for `slots` locks and lets it grow by about as much again. A backup that fills
/// it would make other sessions fail with "out of shared memory".
fn check_locks(slots: u64, name: &str, contents: &Contents) -> Result<Option<String>, Refusal> {
    let needed = contents.locked_tables.saturating_mul(LOCKING_SESSIONS);
    if needed > slots.saturating_mul(2) {
        return Err(refusals::too_few_locks(name, contents.locked_tables, needed, slots));
    }
    Ok((needed > slots).then(|| refusals::lock_table_half_full(name, needed, slots)))
}

fn database_steps(plan: &BackupPlan, name: &str, known: &NamesOfPlan) -> Result<DatabaseSteps, Refusal> {
    let schemas = plan.schemas.among(&known.schemas);
    let tables = plan.tables.among(&known.tables);
    let chosen_by_name = matches!(&schemas, Choice::Include(names) if names.is_empty())
        || matches!(&tables, Choice::Include(names) if names.is_empty());
    if chosen_by_name {
        return Err(refusals::nothing_included(name));
    }
    Ok(DatabaseSteps {
        name: name.to_owned(),
        schemas,
        tables,
        exclude_table_data: plan
            .exclude_table_data
            .iter()
            .filter(|table| known.tables.contains(table))
            .cloned()
            .collect(),
    })
}

impl<T: Clone + PartialEq> Choice<T> {
    /// The names that it chooses by.
    #[must_use]
    pub fn names(&self) -> &[T] {
        match self {
            Self::All => &[],
            Self::Include(names) | Self::Exclude(names) => names,
        }
    }

    /// The same choice by the names that are `known`.
    fn among(&self, known: &[T]) -> Self {
        let those = |names: &[T]| {
            names
                .iter()
                .filter(|name| known.contains(name))
                .cloned()
                .collect::<Vec<_>>()
        };
        match self {
            Self::All => Self::All,
            Self::Include(names) => Self::Include(those(names)),
            Self::Exclude(names) => match those(names) {
                names if names.is_empty() => Self::All,
                names => Self::Exclude(names),
            },
        }
    }
}

impl Steps {
    /// SHA-256 of the steps' JSON, in hex: a dry run and the run that follows show the same. The snapshot's id is no
    /// part of it: outside Kubernetes the two have different ones.
    #[must_use]
    pub fn hash(&self) -> String {
        let steps = Self {
            snapshot: String::new(),
            ..self.clone()
        };
        // The JSON is canonical: fields in the order of the struct, lists sorted.
        let json = serde_json::to_vec(&steps).unwrap_or_default();
        hex::encode(Sha256::digest(json))
    }

    /// How rows are compressed.
    #[must_use]
    pub fn compression_of_rows(&self) -> Compression {
        match &self.chunks {
            None => self.compression.clone(),
            Some(ChunkSteps { zstd_level, .. }) => Compression {
                method: CompressionMethod::Zstd,
                level: Some(*zstd_level),
            },
        }
    }

    /// Whether there is a first section.
    #[must_use]
    pub fn has_pre_data(&self) -> bool {
        self.sections != Sections::Data
    }
}

#[cfg(test)]
mod tests;
