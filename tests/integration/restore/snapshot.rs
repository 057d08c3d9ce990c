//! Snapshots by stock `pg_dump`, with a manifest made from the archive and the catalogs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrescue::plan::restore::SnapshotSource;
use pgrescue::postgres::archive::{ArchiveReader, DataSummary, Text, Toc};
use pgrescue::postgres::foreign;
use pgrescue::store::layout;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{folder, runtime};
use crate::parts::Database;

pub const ID: &str = "20260102T030405Z-0123456789";

/// A finished backup in a folder.
pub struct Snapshot {
    folder: Arc<tempfile::TempDir>,
}

impl Snapshot {
    /// Dumps with the client that a backup would choose.
    pub fn of(database: &Database<'_>) -> Self {
        Self::with(database, database.server.major.max(14), &[], false)
    }

    /// With the credentials of foreign servers and subscriptions taken out.
    pub fn stripped(database: &Database<'_>) -> Self {
        Self::with(database, database.server.major.max(14), &[], true)
    }

    pub fn with(database: &Database<'_>, client: u32, arguments: &[&str], strip: bool) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let snapshot = Self { folder };
        let key = layout::archive(ID, &database.name);
        let path = snapshot.path(&key);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is ours");
        let dump = database
            .server
            .client(client, "pg_dump", &database.name)
            .args(["-Fc", "-Z1", "-E", "UTF8", "--lock-wait-timeout=60s", "-f"])
            .arg(&path)
            .args(arguments)
            .output()
            .expect("pg_dump is installed");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let (mut toc, blocks, summary) = read(&path);
        let stripped = if strip {
            foreign::strip_credentials(&mut toc).expect("a good archive")
        } else {
            Vec::new()
        };
        fs::write(&path, [toc.to_bytes(), blocks].concat()).expect("the folder is ours");
        let globals = globals(database, client);
        fs::write(snapshot.path(&layout::globals(ID)), globals).expect("the folder is ours");
        let mut manifest = manifest(database, client, &toc, &summary);
        manifest["selection"]["sections"] = match arguments {
            ["--schema-only"] => json!("schema"),
            ["--data-only"] => json!("data"),
            _ => json!("all"),
        };
        manifest["databases"][0]["strippedCredentials"] = serde_json::to_value(stripped).expect("JSON");
        manifest["objects"] = json!([
            snapshot.object(&key, "Archive", Some(&database.name)),
            snapshot.object(&layout::globals(ID), "Globals", None)
        ]);
        snapshot.write_manifest(&manifest);
        snapshot
    }

    pub fn source(&self) -> SnapshotSource {
        SnapshotSource {
            storage: folder(self.folder.path()),
            snapshot: Some(ID.into()),
            backup_namespace: "shop".into(),
            backup_name: "orders".into(),
            manifest_sha256: None,
            database: None,
            identity: None,
        }
    }

    /// What keeps the files.
    pub fn keep(&self) -> Arc<tempfile::TempDir> {
        Arc::clone(&self.folder)
    }

    /// The file of an object.
    pub fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join(key)
    }

    pub fn archive(&self) -> PathBuf {
        let manifest = self.manifest();
        self.path(manifest["objects"][0]["key"].as_str().expect("a key"))
    }

    pub fn manifest(&self) -> Value {
        let bytes = fs::read(self.path(&layout::manifest(ID))).expect("a manifest");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    pub fn write_manifest(&self, manifest: &Value) {
        fs::write(self.path(&layout::manifest(ID)), manifest.to_string()).expect("the folder is ours");
    }

    fn object(&self, key: &str, kind: &str, database: Option<&str>) -> Value {
        let bytes = fs::read(self.path(key)).expect("the object is there");
        let mut object = json!({
            "key": key, "kind": kind, "size": bytes.len(), "sha256": hex::encode(Sha256::digest(&bytes)),
        });
        if let Some(database) = database {
            object["database"] = json!(database);
        }
        object
    }
}

fn globals(database: &Database<'_>, client: u32) -> Vec<u8> {
    let output = database
        .server
        .client(client, "pg_dumpall", "postgres")
        .arg("--globals-only")
        .output()
        .expect("pg_dumpall is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn read(path: &Path) -> (Toc, Vec<u8>, DataSummary) {
    runtime().block_on(async {
        let file = tokio::fs::File::open(path).await.expect("the archive is there");
        let mut reader = ArchiveReader::open(file).await.expect("a good archive");
        let mut blocks = Vec::new();
        while let Some(bytes) = reader.next_block_bytes().await.expect("a good archive") {
            blocks.extend_from_slice(&bytes);
        }
        let summary = reader.summary().expect("read to the end").clone();
        (reader.into_toc(), blocks, summary)
    })
}

/// Relations as the manifest describes them, as far as a restore looks at them.
const RELATIONS: &str = "
SELECT coalesce(json_object_agg(c.oid, json_build_object(
    'oid', c.oid::bigint, 'schema', nspname, 'name', relname, 'owner', pg_get_userbyid(relowner),
    'kind', CASE relkind WHEN 'r' THEN 'Table' WHEN 'p' THEN 'PartitionedTable' ELSE 'MaterializedView' END,
    'persistence', 'Permanent', 'pages', 0, 'tableBytes', pg_table_size(c.oid),
    'partitioning', (SELECT json_build_object('parentSchema', pn.nspname, 'parentName', p.relname)
        FROM pg_inherits JOIN pg_class p ON p.oid = inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
        WHERE inhrelid = c.oid AND c.relispartition),
    'columns', (SELECT coalesce(json_agg(json_build_object('name', attname, 'type', format_type(atttypid, atttypmod))
        ORDER BY attnum), '[]') FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
    'constraints', (SELECT coalesce(json_agg(json_build_object('name', conname, 'kind', contype, 'definition', '',
        'validated', convalidated)), '[]') FROM pg_constraint WHERE conrelid = c.oid),
    'indexes', (SELECT coalesce(json_agg(json_build_object('name', i.relname, 'definition', '', 'valid', indisvalid,
        'bytes', pg_relation_size(indexrelid))), '[]')
        FROM pg_index JOIN pg_class i ON i.oid = indexrelid WHERE indrelid = c.oid))), '{}')
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p', 'm') AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'";

const DATABASE: &str = "
SELECT json_build_object('oid', oid::bigint, 'name', datname, 'owner', pg_get_userbyid(datdba), 'tablespace', 'pg_default',
    'connectionLimit', datconnlimit, 'isTemplate', false, 'settings', '[]'::json, 'schemas', '[]'::json,
    'locale', json_build_object('encoding', pg_encoding_to_char(encoding), 'provider', 'libc',
        'collate', datcollate, 'ctype', datctype),
    'extensions', (SELECT coalesce(json_agg(json_build_object('name', extname, 'version', extversion, 'schema', nspname,
        'owner', pg_get_userbyid(extowner))), '[]') FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
        WHERE pg_extension.oid >= 16384),
    'foreignDataWrappers', '[]'::json, 'foreignServers', '[]'::json)
FROM pg_database WHERE datname = current_database()";

const ROLES: &str = "
SELECT json_agg(json_build_object('oid', oid::bigint, 'name', rolname, 'superuser', rolsuper, 'inherit', rolinherit,
    'createRole', rolcreaterole, 'createDatabase', rolcreatedb, 'login', rolcanlogin, 'replication', rolreplication,
    'bypassRowLevelSecurity', rolbypassrls, 'connectionLimit', rolconnlimit, 'validUntil', rolvaliduntil,
    'comment', shobj_description(oid, 'pg_authid'), 'builtIn', oid < 16384 AND rolname LIKE 'pg\\_%'))
FROM pg_roles";

const MEMBERSHIPS: &str = "
SELECT coalesce(json_agg(json_build_object('role', pg_get_userbyid(roleid), 'member', pg_get_userbyid(member),
    'admin', admin_option)), '[]')
FROM pg_auth_members WHERE roleid >= 16384";

fn query(database: &Database<'_>, sql: &str) -> Value {
    serde_json::from_str(&database.psql(sql)).expect("JSON")
}

fn manifest(database: &Database<'_>, client: u32, toc: &Toc, summary: &DataSummary) -> Value {
    let mut relations: BTreeMap<String, Value> =
        serde_json::from_value(query(database, RELATIONS)).expect("relations by OID");
    let mut rows = 0;
    let mut tables = 0;
    for block in &summary.blocks {
        let entry = toc.entry(block.dump_id).expect("a block of the archive");
        let Some(count) = block.rows.filter(|_| entry.description == "TABLE DATA") else {
            continue;
        };
        let relation = relations
            .get_mut(&entry.catalog_oid.to_string())
            .unwrap_or_else(|| panic!("{:?}", entry.tag.as_ref().map(Text::lossy)));
        relation["rows"] = json!(count);
        relation["data"] = json!({
            "dumpId": block.dump_id, "offset": block.offset, "storedBytes": block.stored_bytes, "bytes": block.bytes,
        });
        rows += count;
        tables += 1;
    }
    let mut described = query(database, DATABASE);
    described["relations"] = relations.into_values().collect();
    described["largeObjects"] = json!(summary.large_objects());
    described["rows"] = json!(rows);
    described["tables"] = json!(tables);
    described["uncompressedBytes"] = json!(summary.bytes());
    let version: u32 = database.psql("SHOW server_version_num").parse().expect("a number");
    json!({
        "formatVersion": 1, "snapshot": ID,
        "backup": {"namespace": "shop", "name": "orders", "uid": "backup"},
        "started": "2026-01-02T03:04:05Z", "completed": "2026-01-02T03:04:06Z",
        "tools": {"pgrescue": "0", "clientVersion": format!("{client}.0"), "clientMajor": client},
        "dataFormat": "Custom",
        "selection": {
            "sections": "all", "schemas": "all", "tables": "all", "excludeTableData": [],
            "unloggedTableData": "Include", "compression": {"method": "Gzip"},
            "foreignCredentials": "Keep", "rolePasswords": "Keep",
        },
        "server": {
            "connector": "postgresql", "host": "127.0.0.1", "port": 1, "user": "postgres", "encrypted": false,
            "version": "0", "versionNumber": version, "versionText": "", "inRecovery": false, "settings": {},
        },
        "roles": query(database, ROLES), "memberships": query(database, MEMBERSHIPS), "roleSettings": [],
        "tablespaces": [], "databases": [described], "objects": [], "omissions": [], "warnings": [],
    })
}
