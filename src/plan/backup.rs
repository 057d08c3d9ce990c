//! The plan of a backup.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connection::{self, ConnectionPlan, check_text, invalid};
use super::encryption::{self, EncryptionPlan};
use super::refusal::Refusal;
use super::run::Run;
use super::storage::{self, Place, StoragePlan};
use crate::api::backup::{
    Compression, CompressionMethod, DataFormat, DatabaseSelection, ForeignCredentials, PgBackupSpec, RolePasswords,
    TableName, TableSelection, UnloggedTableData,
};

/// `parallelism` where it is left out.
const DEFAULT_PARALLELISM: u8 = 4;

/// The most sessions that one backup opens to read rows.
const HIGHEST_PARALLELISM: u8 = 64;

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
    /// How it is encrypted before it leaves the agent; `None` where it is not.
    pub encryption: Option<EncryptionPlan>,
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
    /// How rows are stored as chunks; `None` where they are in the archive of pg_dump.
    pub chunks: Option<ChunkPlan>,
    /// How rows are compressed; `None` is Zstd level 1 where the client knows it, else Gzip.
    pub compression: Option<Compression>,
    /// Credentials of user mappings and subscriptions.
    pub foreign_credentials: ForeignCredentials,
    /// Password verifiers of roles.
    pub role_passwords: RolePasswords,
    /// Shows the steps and changes nothing.
    pub dry_run: bool,
}

/// How rows are stored as chunks.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChunkPlan {
    /// Sessions that read rows at the same time.
    pub parallelism: u8,
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
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
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

/// Validates a backup request.
pub fn plan(spec: &PgBackupSpec, run: Run, place: Place) -> Result<BackupPlan, Refusal> {
    let PgBackupSpec {
        connection,
        databases,
        storage,
        schema_only,
        data_only,
        schemas,
        tables,
        unlogged_table_data,
        data_format,
        parallelism,
        compression,
        foreign_credentials,
        role_passwords,
        deletion_policy: _, // the operator's: it acts when the resource is deleted
        dry_run,
        job: _,       // the operator's: it makes the Job
        log_level: _, // the operator's: it sets the agent's environment
    } = spec;
    let sections = match (schema_only.unwrap_or_default(), data_only.unwrap_or_default()) {
        (false, false) => Sections::All,
        (true, false) => Sections::Schema,
        (false, true) => Sections::Data,
        (true, true) => {
            return Err(invalid(
                "spec",
                "sets both schemaOnly and dataOnly, which leaves nothing to back up",
            )
            .hint("Set one of them, or neither for a whole backup."));
        }
    };
    let TableSelection {
        include,
        exclude,
        exclude_data,
    } = tables.clone().unwrap_or_default();
    for table in include.iter().chain(&exclude).chain(&exclude_data) {
        check_text(&table.schema, "spec.tables, a schema")?;
        check_text(&table.name, "spec.tables, a name")?;
    }
    let tables = choice(include, exclude, "spec.tables")?;
    let schemas = schemas.clone().unwrap_or_default();
    for schema in schemas.include.iter().chain(&schemas.exclude) {
        check_text(schema, "spec.schemas, a name")?;
    }
    let schemas = choice(schemas.include, schemas.exclude, "spec.schemas")?;
    if matches!(tables, Choice::Include(_)) && schemas != Choice::All {
        return Err(invalid(
            "spec.schemas",
            "says nothing beside spec.tables.include, which names each table",
        )
        .hint("Remove one of them."));
    }
    if sections == Sections::Schema && !exclude_data.is_empty() {
        return Err(invalid(
            "spec.tables.excludeData",
            "says nothing beside schemaOnly, which leaves out all rows",
        )
        .hint("Remove one of them."));
    }
    let chunks = chunk_plan(data_format.unwrap_or_default(), *parallelism, compression.as_ref())?;
    Ok(BackupPlan {
        run,
        connection: connection::plan(connection, "spec.connection")?,
        databases: database_choice(databases.as_ref())?,
        storage: storage::plan(storage, place, "spec.storage")?,
        encryption: storage
            .encryption
            .as_ref()
            .map(|given| encryption::plan(given, "spec.storage.encryption"))
            .transpose()?,
        sections,
        schemas,
        tables,
        exclude_table_data: sorted(exclude_data),
        unlogged_table_data: unlogged_table_data.unwrap_or_default(),
        chunks,
        compression: compression.as_ref().map(check_compression).transpose()?,
        foreign_credentials: foreign_credentials.unwrap_or_default(),
        role_passwords: role_passwords.unwrap_or_default(),
        dry_run: dry_run.unwrap_or_default(),
    })
}

fn database_choice(selection: Option<&DatabaseSelection>) -> Result<DatabaseChoice, Refusal> {
    let Some(DatabaseSelection { include, exclude }) = selection else {
        return Ok(DatabaseChoice::OfConnection);
    };
    for name in include.iter().chain(exclude) {
        check_text(name, "spec.databases, a name")?;
    }
    match choice(include.clone(), exclude.clone(), "spec.databases")? {
        Choice::Include(names) => Ok(DatabaseChoice::Include(names)),
        Choice::Exclude(names) => Ok(DatabaseChoice::Exclude(names)),
        Choice::All => Err(invalid("spec.databases", "names no database").hint(
            "Give include or exclude; leave databases out for the one that the connection names; \
             for all of them set connection.database to `*`.",
        )),
    }
}

fn choice<T: Ord>(include: Vec<T>, exclude: Vec<T>, field: &str) -> Result<Choice<T>, Refusal> {
    match (include.is_empty(), exclude.is_empty()) {
        (true, true) => Ok(Choice::All),
        (false, true) => Ok(Choice::Include(sorted(include))),
        (true, false) => Ok(Choice::Exclude(sorted(exclude))),
        (false, false) => Err(invalid(field, "gives both include and exclude")
            .hint("include names exactly what is taken, so exclude has nothing to take away: remove one of them.")),
    }
}

/// The same request in another order is the same plan.
fn sorted<T: Ord>(mut names: Vec<T>) -> Vec<T> {
    names.sort();
    names.dedup();
    names
}

fn chunk_plan(
    data_format: DataFormat,
    parallelism: Option<u8>,
    compression: Option<&Compression>,
) -> Result<Option<ChunkPlan>, Refusal> {
    match (data_format, parallelism) {
        (DataFormat::Custom, None) => return Ok(None),
        (DataFormat::Custom, Some(_)) => {
            return Err(invalid(
                "spec.parallelism",
                "says nothing without dataFormat: Chunks: pg_dump writes an archive in one stream",
            )
            .hint("Set spec.dataFormat to Chunks, or remove the field."));
        }
        (DataFormat::Chunks, _) => {}
    }
    if let Some(Compression { method, .. }) = compression
        && *method != CompressionMethod::Zstd
    {
        return Err(invalid(
            "spec.compression.method",
            &format!("is {method:?}, but chunks are compressed by Zstd"),
        )
        .hint("Set it to Zstd, leave compression out, or set spec.dataFormat to Custom."));
    }
    let parallelism = parallelism.unwrap_or(DEFAULT_PARALLELISM);
    if !(1..=HIGHEST_PARALLELISM).contains(&parallelism) {
        return Err(
            invalid("spec.parallelism", &format!("is {parallelism}")).hint(format!("Give 1 to {HIGHEST_PARALLELISM}."))
        );
    }
    Ok(Some(ChunkPlan { parallelism }))
}

fn check_compression(compression: &Compression) -> Result<Compression, Refusal> {
    let Compression { method, level } = compression;
    // The levels of zlib, zstd and lz4hc, as pg_dump takes them.
    let highest = match method {
        CompressionMethod::Gzip => 9,
        CompressionMethod::Lz4 => 12,
        CompressionMethod::Zstd => 22,
        CompressionMethod::None => 0,
    };
    let field = "spec.compression.level";
    match level {
        Some(level) if highest == 0 => {
            Err(invalid(field, &format!("is {level}, but method None has no level")).hint("Remove the level."))
        }
        Some(level) if !(1..=highest).contains(level) => Err(invalid(
            field,
            &format!("is {level}, which method {method:?} does not have"),
        )
        .hint(format!("Give a level from 1 to {highest}, or leave it out."))),
        _ => Ok(compression.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::run::RunKind;

    fn planned(rest: &str) -> Result<BackupPlan, Refusal> {
        let yaml = format!("connection: {{host: h}}\nstorage: {{s3: {{bucket: b}}}}\n{rest}");
        plan(
            &serde_saphyr::from_str(&yaml).unwrap(),
            Run::sample(RunKind::PgBackup),
            Place::Cluster,
        )
    }

    #[test]
    fn the_sentences_of_a_refused_backup_help() {
        let refused = |rest| planned(rest).unwrap_err().sentence();
        insta::assert_snapshot!(
            [
                refused("databases: {include: [a], exclude: [b]}"),
                refused("databases: {}"),
                refused("databases: {include: ['']}"),
                refused("schemaOnly: true\ndataOnly: true"),
                refused("schemas: {include: [a], exclude: [b]}"),
                refused("tables: {include: [{schema: a, name: b}], exclude: [{schema: a, name: c}]}"),
                refused("tables: {include: [{schema: a, name: ''}]}"),
                refused("tables: {include: [{schema: a, name: b}]}\nschemas: {include: [a]}"),
                refused("tables: {excludeData: [{schema: a, name: b}]}\nschemaOnly: true"),
                refused("compression: {method: Zstd, level: 23}"),
                refused("dataFormat: Custom\ncompression: {method: Gzip, level: 0}"),
                refused("dataFormat: Custom\ncompression: {method: Lz4, level: 13}"),
                refused("dataFormat: Custom\ncompression: {method: None, level: 1}"),
                refused("dataFormat: Custom\nparallelism: 4"),
                refused("dataFormat: Chunks\nparallelism: 0"),
                refused("dataFormat: Chunks\nparallelism: 65"),
                refused("dataFormat: Chunks\ncompression: {method: Gzip}"),
            ]
            .join("\n")
        );
    }

    #[test]
    fn the_order_of_names_does_not_change_a_plan() {
        assert_eq!(
            planned("databases: {include: [b, a, b]}").unwrap(),
            planned("databases: {include: [a, b]}").unwrap()
        );
    }

    #[test]
    fn rows_are_stored_as_chunks_where_that_is_asked_for() {
        let chunks = |rest| planned(rest).unwrap().chunks;
        assert_eq!(chunks("dataFormat: Custom"), None);
        assert_eq!(chunks("dataFormat: Chunks"), Some(ChunkPlan { parallelism: 4 }));
        assert_eq!(
            chunks("dataFormat: Chunks\nparallelism: 64\ncompression: {method: Zstd, level: 3}"),
            Some(ChunkPlan { parallelism: 64 })
        );
    }

    #[test]
    fn a_backup_without_choices_takes_the_defaults() {
        insta::assert_yaml_snapshot!(planned("").unwrap());
    }
}
