//! Chunked snapshots made by hand: the archive by stock `pg_dump` without the rows of ordinary tables, the rows by
//! `COPY` through psql into the repository.

use std::sync::Arc;

use pgrescue::store::folder::FolderStore;
use pgrescue::store::manifest::{ChunkManifest, ChunkedRows, RowFormat};
use pgrescue::store::repository::{Repository, Writer, WriterOptions};
use serde_json::{Value, json};

use crate::parts::{Database, quoted};
use crate::restore::runtime;
use crate::restore::snapshot::Snapshot;

/// How rows become chunks.
#[derive(Clone, Copy)]
pub struct Cut {
    pub rows_per_chunk: u64,
    pub client_encoding: &'static str,
}

impl Default for Cut {
    fn default() -> Self {
        Self {
            rows_per_chunk: 300,
            client_encoding: "UTF8",
        }
    }
}

/// Ordinary tables and leaf partitions that belong to no extension, with the columns that are stored and whether each
/// has a type that is sure to mean the same everywhere.
const TABLES: &str = r"
SELECT coalesce(json_agg(json_build_object('oid', c.oid::bigint, 'schema', nspname, 'name', relname,
    'columns', (SELECT coalesce(json_agg(attname ORDER BY attnum), '[]') FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''),
    'binary', NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        AND atttypid NOT IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'text'::regtype, 'numeric'::regtype,
            'timestamptz'::regtype, 'date'::regtype, 'bytea'::regtype, 'bool'::regtype, 'float8'::regtype)))
    ORDER BY nspname, relname), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')";

impl Snapshot {
    /// With the rows of every ordinary table as chunks.
    pub fn chunked(database: &Database<'_>, cut: Cut) -> Self {
        let tables: Vec<Value> = serde_json::from_str(&database.psql(TABLES)).expect("JSON");
        let name = |table: &Value, part: &str| quoted(table[part].as_str().expect("a name"));
        let excluded: Vec<String> = tables
            .iter()
            .map(|table| format!("--exclude-table-data={}.{}", name(table, "schema"), name(table, "name")))
            .collect();
        let arguments: Vec<&str> = excluded.iter().map(String::as_str).collect();
        let snapshot = Self::with(database, database.server.major.max(14), &arguments, false);
        let stored = runtime().block_on(store(&snapshot, database, &tables, cut));
        let mut manifest = snapshot.manifest();
        manifest["dataFormat"] = json!("Chunks");
        let described = &mut manifest["databases"][0];
        let mut sums = (0, 0, 0);
        for (table, rows) in tables.iter().zip(stored) {
            let relations = described["relations"].as_array_mut().expect("relations");
            let relation = relations
                .iter_mut()
                .find(|relation| relation["oid"] == table["oid"])
                .expect("the table is described");
            let count: u64 = rows.chunks.iter().map(|chunk| chunk.rows).sum();
            sums = (
                sums.0 + count,
                sums.1 + 1,
                sums.2 + rows.chunks.iter().map(|chunk| chunk.bytes).sum::<u64>(),
            );
            relation["rows"] = json!(count);
            relation["chunks"] = serde_json::to_value(rows).expect("JSON");
        }
        for (field, sum) in [("rows", sums.0), ("tables", sums.1), ("uncompressedBytes", sums.2)] {
            described[field] = json!(described[field].as_u64().expect("a number") + sum);
        }
        snapshot.write_manifest(&manifest);
        snapshot
    }
}

async fn store(snapshot: &Snapshot, database: &Database<'_>, tables: &[Value], cut: Cut) -> Vec<ChunkedRows> {
    let store = Arc::new(FolderStore::new(snapshot.path("").display().to_string()));
    let repository = Repository::open_or_create(store).await.expect("a repository");
    let options = WriterOptions {
        run: "by hand".into(),
        snapshot: "by-hand".into(),
        zstd_level: 1,
        bytes_in_flight: 64 << 20,
    };
    let writer = Writer::begin(Arc::new(repository), options).await.expect("a writer");
    let mut all = Vec::new();
    for table in tables {
        let mut rows = ChunkedRows {
            format: if table["binary"] == json!(true) {
                RowFormat::Binary
            } else {
                RowFormat::Text
            },
            columns: serde_json::from_value(table["columns"].clone()).expect("names"),
            client_encoding: cut.client_encoding.into(),
            chunks: Vec::new(),
        };
        for (count, stream) in streams(database, table, &rows, cut) {
            let bytes = stream.len() as u64;
            let (name, _) = writer.put(stream).await.expect("taken");
            rows.chunks.push(ChunkManifest {
                name: name.to_string(),
                bytes,
                rows: count,
                ..ChunkManifest::default()
            });
        }
        all.push(rows);
    }
    writer.flush().await.expect("stored");
    for chunk in all.iter_mut().flat_map(|rows| &mut rows.chunks) {
        let place = writer.locate(&chunk.name.parse().expect("a name")).expect("a place");
        chunk.object = place.object;
        chunk.offset = place.offset;
        chunk.stored_bytes = place.stored_bytes;
        chunk.sha256 = place.sha256;
    }
    writer.end().await.expect("the lock is gone");
    all
}

/// Rows of the table, cut, each part with its number of rows.
fn streams(database: &Database<'_>, table: &Value, rows: &ChunkedRows, cut: Cut) -> Vec<(u64, Vec<u8>)> {
    let name = format!(
        "{}.{}",
        quoted(table["schema"].as_str().expect("a name")),
        quoted(table["name"].as_str().expect("a name"))
    );
    let count: u64 = database
        .psql(&format!("SELECT count(*) FROM ONLY {name}"))
        .parse()
        .expect("a number");
    let columns: Vec<_> = rows.columns.iter().map(|column| quoted(column)).collect();
    let format = match rows.format {
        RowFormat::Binary => "binary",
        RowFormat::Text => "text",
    };
    let step = usize::try_from(cut.rows_per_chunk).expect("small");
    (0..count)
        .step_by(step)
        .map(|offset| {
            let copy = format!(
                "COPY (SELECT {} FROM ONLY {name} ORDER BY ctid OFFSET {offset} LIMIT {}) TO STDOUT (FORMAT {format})",
                columns.join(", "),
                cut.rows_per_chunk
            );
            let output = database
                .server
                .client(crate::parts::NEWEST_CLIENT, "psql", &database.name)
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1"])
                .args(["-c", "SET datestyle = ISO; SET intervalstyle = postgres; SET extra_float_digits = 3; SET row_security = off"])
                // One query: names are read in UTF-8, rows come in the other encoding.
                .args(["-c", &format!("SET client_encoding = '{}'; {copy}", cut.client_encoding)])
                .output()
                .expect("psql is installed");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            (cut.rows_per_chunk.min(count - offset), output.stdout)
        })
        .collect()
}
