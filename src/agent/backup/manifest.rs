//! `manifest.json`: what was stored and where it came from; written last, when every object is proved to be there.

use std::collections::HashSet;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::BackupRun;
use super::artifact::check_objects;
use super::chunks::StoredRows;
use super::dump::StoredArchive;
use super::exporter::Exporter;
use super::object_lock;
use crate::agent::progress::Reporter;
use crate::api::reasons;
use crate::api::status::Artifact;
use crate::plan::Refusal;
use crate::plan::backup::BackupPlan;
use crate::plan::backup_steps::DatabaseSteps;
use crate::postgres::catalog::{self, ServerCatalog};
use crate::store::manifest::{
    AgeManifest, BackupReference, ChunkTotals, DataFormat, DataManifest, DatabaseManifest, EncryptionManifest,
    FORMAT_VERSION, Manifest, ObjectKind, ObjectLockManifest, ObjectManifest, Omission, PLAIN_FORMAT_VERSION,
    RelationManifest, RoleSettingManifest, SelectionManifest, ToolManifest,
};
use crate::store::repository::{Writer, WriterStatistics};
use crate::store::{self, StoredObject, layout};

/// What the backup has gathered for its manifest.
#[derive(Default)]
pub(super) struct Contents {
    /// Read under the first database's snapshot.
    pub server: Option<ServerCatalog>,
    pub databases: Vec<DatabaseContents>,
    pub globals: Option<StoredObject>,
}

/// One database and its objects.
pub(super) struct DatabaseContents {
    manifest: DatabaseManifest,
    objects: Vec<ObjectManifest>,
    omissions: Vec<Omission>,
}

/// Describes a database under the snapshot that was dumped, and counts what was stored of it.
pub(super) async fn describe(
    reporter: &Reporter,
    exporter: &Exporter,
    database: &DatabaseSteps,
    archive: StoredArchive,
    rows: StoredRows,
    pre_data: Option<StoredObject>,
    server: &mut Option<ServerCatalog>,
) -> Result<DatabaseContents, Refusal> {
    let session = exporter.session();
    if server.is_none() {
        let read = catalog::read_server(session).await?;
        warn_of_role_settings(&read.role_settings, reporter);
        *server = Some(read);
    }
    let (mut manifest, omissions) = catalog::read_database(session).await?;
    let mut objects = vec![ObjectManifest::new(
        archive.object.clone(),
        ObjectKind::Archive,
        Some(&database.name),
    )];
    objects.extend(pre_data.map(|object| ObjectManifest::new(object, ObjectKind::PreData, Some(&database.name))));
    warn_of_mappings_left_out(&manifest, reporter);
    count(&mut manifest, &archive)?;
    enter_chunks(&mut manifest, rows)?;
    manifest.stripped_credentials = archive.stripped;
    Ok(DatabaseContents {
        manifest,
        objects,
        omissions,
    })
}

/// pg_dump leaves a server to the extension that it belongs to, and its user mappings out.
fn warn_of_mappings_left_out(database: &DatabaseManifest, reporter: &Reporter) {
    for server in &database.foreign_servers {
        let (Some(extension), false) = (&server.extension, server.user_mappings.is_empty()) else {
            continue;
        };
        reporter.warn(format!(
            "The user mappings of the foreign server {:?} are not in the backup: it belongs to the extension {extension:?}.",
            server.name
        ));
    }
}

/// The catalog withholds the value of a setting that may be a credential; `globals.sql` has it as it is.
fn warn_of_role_settings(settings: &[RoleSettingManifest], reporter: &Reporter) {
    for setting in settings
        .iter()
        .filter(|setting| setting.value.is_none() && setting.database.is_none())
    {
        let RoleSettingManifest { role, name, .. } = setting;
        reporter.warn(format!(
            "The setting {name} of the role {role:?} may hold a credential; globals.sql holds it as it is."
        ));
    }
}

/// Enters the rows of each table. A table that was stored and is not described would be lost to the checks of a restore.
fn count(manifest: &mut DatabaseManifest, archive: &StoredArchive) -> Result<(), Refusal> {
    let StoredArchive {
        object: _,
        toc,
        summary,
        rows,
        stripped: _,
        messages: _,
    } = archive;
    let header = u64::try_from(toc.to_bytes().len()).unwrap_or_default();
    for (oid, count) in rows {
        let relation = described(manifest, *oid)?;
        relation.rows = Some(*count);
        let entry = toc
            .entries
            .iter()
            .find(|entry| entry.catalog_oid == *oid && entry.description == "TABLE DATA");
        let block = entry.and_then(|entry| summary.blocks.iter().find(|block| block.dump_id == entry.dump_id));
        relation.data = block.map(|block| DataManifest {
            dump_id: block.dump_id,
            offset: header + block.offset,
            stored_bytes: block.stored_bytes,
            bytes: block.bytes,
        });
    }
    manifest.large_objects = summary.large_objects();
    manifest.rows = summary.rows();
    manifest.tables = rows.len() as u64;
    manifest.uncompressed_bytes = summary.bytes();
    Ok(())
}

/// Enters the chunks of each table.
fn enter_chunks(manifest: &mut DatabaseManifest, rows: StoredRows) -> Result<(), Refusal> {
    for (oid, chunked) in rows.by_table {
        let (rows, bytes) = chunked
            .chunks
            .iter()
            .fold((0, 0), |(rows, bytes), chunk| (rows + chunk.rows, bytes + chunk.bytes));
        manifest.rows += rows;
        manifest.tables += 1;
        manifest.uncompressed_bytes += bytes;
        let relation = described(manifest, oid)?;
        relation.rows = Some(rows);
        relation.chunks = Some(chunked);
    }
    Ok(())
}

fn described(manifest: &mut DatabaseManifest, oid: u32) -> Result<&mut RelationManifest, Refusal> {
    let found = manifest.relations.iter_mut().find(|relation| relation.oid == oid);
    found.ok_or_else(|| {
        Refusal::permanent(
            reasons::INTERNAL,
            format!("The table with OID {oid} was stored, but is not described in the manifest."),
        )
    })
}

/// Proves that every object is in the store, and writes the manifest.
pub(super) async fn commit(
    run: &BackupRun<'_>,
    contents: Contents,
    writer: Option<&Writer>,
) -> Result<Artifact, Refusal> {
    let mut manifest = assemble(run, contents)?;
    if let Some(writer) = writer {
        manifest.data_format = DataFormat::Chunks;
        manifest.chunks = Some(chunk_totals(&manifest, writer.statistics()));
    }
    if let Some(damage) = check_objects(run.store.as_ref(), &manifest).await? {
        return Err(Refusal::temporary(
            reasons::STORE_FAILED,
            format!("The backup was not kept whole: {damage}."),
        )
        .hint("Check that nothing else writes to or deletes from the storage; the next attempt comes by itself."));
    }
    object_lock::lock(run.store.as_ref(), &manifest).await?;
    let bytes = manifest.to_bytes()?;
    let artifact = artifact_of(&manifest, &bytes, &run.store.location());
    match writer {
        None => {
            store::put(run.store.as_ref(), &layout::manifest(&manifest.snapshot), bytes.into()).await?;
        }
        Some(writer) => {
            writer.commit(bytes.into()).await?;
        }
    }
    Ok(artifact)
}

/// Sums over the chunks that the manifest names; what is new, the writer knows.
fn chunk_totals(manifest: &Manifest, statistics: WriterStatistics) -> ChunkTotals {
    let mut totals = ChunkTotals {
        new_chunks: statistics.new_chunks,
        new_bytes: statistics.new_bytes,
        ..ChunkTotals::default()
    };
    let mut counted = HashSet::new();
    for chunk in manifest.chunks() {
        if counted.insert(chunk.name.as_str()) {
            totals.chunks += 1;
            totals.bytes += chunk.bytes;
            totals.stored_bytes += chunk.stored_bytes;
        }
    }
    totals
}

fn assemble(run: &BackupRun<'_>, contents: Contents) -> Result<Manifest, Refusal> {
    let Contents {
        server,
        databases,
        globals,
    } = contents;
    let ServerCatalog {
        server,
        roles,
        memberships,
        role_settings,
        tablespaces,
        mut omissions,
    } = server.ok_or_else(|| Refusal::permanent(reasons::INTERNAL, "The backup has no database."))?;
    let mut objects: Vec<ObjectManifest> = globals
        .map(|object| ObjectManifest::new(object, ObjectKind::Globals, None))
        .into_iter()
        .collect();
    let mut described = Vec::new();
    for database in databases {
        objects.extend(database.objects);
        omissions.extend(database.omissions);
        described.push(database.manifest);
    }
    let BackupPlan { run: of, .. } = run.plan;
    let encryption = run.recipients.as_ref().map(|recipients| EncryptionManifest {
        age: AgeManifest {
            recipients: recipients.texts(),
        },
    });
    let format_version = if encryption.is_some() {
        FORMAT_VERSION
    } else {
        PLAIN_FORMAT_VERSION
    };
    Ok(Manifest {
        format_version,
        snapshot: run.steps.snapshot.clone(),
        backup: BackupReference {
            namespace: of.namespace.clone(),
            name: of.name.clone(),
            uid: of.uid.clone(),
        },
        started: run.started,
        completed: Timestamp::now(),
        tools: ToolManifest {
            pgrescue: env!("CARGO_PKG_VERSION").into(),
            client_version: run.tools.version.clone(),
            client_major: run.tools.major,
        },
        data_format: DataFormat::Custom,
        encryption,
        selection: SelectionManifest {
            sections: run.steps.sections,
            schemas: run.plan.schemas.clone(),
            tables: run.plan.tables.clone(),
            exclude_table_data: run.plan.exclude_table_data.clone(),
            unlogged_table_data: run.steps.unlogged_table_data,
            compression: run.steps.compression_of_rows(),
            foreign_credentials: run.steps.foreign_credentials,
            role_passwords: run.steps.role_passwords,
        },
        server,
        roles,
        memberships,
        role_settings,
        tablespaces,
        object_lock: run.store.retention().map(ObjectLockManifest::from),
        databases: described,
        objects,
        chunks: None,
        omissions,
        warnings: run.context.reporter.status().warnings,
    })
}

/// What the status says of a backup.
pub(super) fn artifact_of(manifest: &Manifest, bytes: &[u8], location: &str) -> Artifact {
    let objects: u64 = manifest.objects.iter().map(|object| object.size).sum();
    let own = objects + bytes.len() as u64;
    let chunks = manifest.chunks.unwrap_or_default();
    let total = own + chunks.stored_bytes;
    let reused = chunks.stored_bytes.saturating_sub(chunks.new_bytes);
    Artifact {
        snapshot: manifest.snapshot.clone(),
        location: format!(
            "{location}/{}",
            layout::snapshot_prefix(&manifest.snapshot).trim_end_matches('/')
        ),
        bytes: total,
        new_bytes: Some(own + chunks.new_bytes),
        reused_percent: u8::try_from(reused * 100 / total.max(1)).ok(),
        rows: manifest.databases.iter().map(|database| database.rows).sum(),
        databases: manifest
            .databases
            .iter()
            .map(|database| database.name.clone())
            .collect(),
        manifest_sha256: hex::encode(Sha256::digest(bytes)),
    }
}
