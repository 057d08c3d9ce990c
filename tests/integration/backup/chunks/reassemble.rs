//! Puts a backup with chunks together again without the product's restore: definitions and the archive's own rows by
//! stock pg_restore, chunks by COPY.

use bytes::Bytes;
use futures::SinkExt as _;
use pgrescue::store::manifest::{ChunkManifest, ChunkedRows, DatabaseManifest, RelationManifest, RowFormat};
use sha2::{Digest as _, Sha256};

use crate::backup::Objects;
use crate::parts::{Database, quoted};

/// The COPY stream of a chunk: its bytes in the object have the SHA-256 of the manifest and are one zstd frame.
pub fn stream(objects: &Objects, chunk: &ChunkManifest) -> Vec<u8> {
    let object = objects.read(&chunk.object);
    let (start, length) = (
        usize::try_from(chunk.offset).expect("in memory"),
        usize::try_from(chunk.stored_bytes).expect("in memory"),
    );
    let stored = &object[start..start + length];
    assert_eq!(hex::encode(Sha256::digest(stored)), chunk.sha256, "{}", chunk.name);
    let decoded = zstd::stream::decode_all(stored).expect("a frame");
    assert_eq!(decoded.len() as u64, chunk.bytes, "{}", chunk.name);
    decoded
}

/// Everything of the database `source` into an empty one.
pub async fn restore(objects: &Objects, snapshot: &str, source: &str, target: &Database<'_>, client: u32) {
    let without = ["--no-subscriptions", "--section=pre-data"];
    objects.restore(snapshot, source, target, client, &without);
    objects.restore(snapshot, source, target, client, &["--section=data"]);
    let manifest = objects.manifest(snapshot);
    let database = manifest.database(source).expect("the database is in the manifest");
    load(objects, database, target).await;
    let without = ["--no-subscriptions", "--section=post-data"];
    objects.restore(snapshot, source, target, client, &without);
}

/// The rows of every chunk. A check that reads another table may need that table's rows first.
pub async fn load(objects: &Objects, database: &DatabaseManifest, target: &Database<'_>) {
    let mut left: Vec<(&RelationManifest, &ChunkedRows, &ChunkManifest)> = database
        .relations
        .iter()
        .filter_map(|relation| Some((relation, relation.chunks.as_ref()?)))
        .flat_map(|(relation, rows)| rows.chunks.iter().map(move |chunk| (relation, rows, chunk)))
        .collect();
    let client = target.server.connect(&target.name).await;
    while !left.is_empty() {
        let before = left.len();
        let mut failed = Vec::new();
        for (relation, rows, chunk) in left {
            let into = root(database, relation);
            match copy(&client, into, rows, stream(objects, chunk)).await {
                Ok(count) => assert_eq!(count, chunk.rows, "{}.{}", relation.schema, relation.name),
                Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::CHECK_VIOLATION) => {
                    failed.push((relation, rows, chunk));
                }
                Err(error) => panic!("{}.{}: {error:?}", relation.schema, relation.name),
            }
        }
        assert!(failed.len() < before, "{failed:?}");
        left = failed;
    }
}

/// Rows of a partition may belong into another one after a restore.
fn root<'a>(database: &'a DatabaseManifest, relation: &'a RelationManifest) -> &'a RelationManifest {
    let parent = relation.partitioning.as_ref().and_then(|part| {
        let (schema, name) = (part.parent_schema.as_ref()?, part.parent_name.as_ref()?);
        let of_name = |other: &&RelationManifest| other.schema == *schema && other.name == *name;
        database.relations.iter().find(of_name)
    });
    parent.map_or(relation, |parent| root(database, parent))
}

async fn copy(
    client: &tokio_postgres::Client,
    into: &RelationManifest,
    rows: &ChunkedRows,
    stream: Vec<u8>,
) -> Result<u64, tokio_postgres::Error> {
    let columns: Vec<String> = rows.columns.iter().map(|column| quoted(column)).collect();
    let format = match rows.format {
        RowFormat::Binary => "binary",
        RowFormat::Text => "text",
    };
    client
        .batch_execute(&format!("SET client_encoding = '{}'", rows.client_encoding))
        .await?;
    let sql = format!(
        "COPY {}.{} ({}) FROM STDIN (FORMAT {format})",
        quoted(&into.schema),
        quoted(&into.name),
        columns.join(", ")
    );
    let mut sink = std::pin::pin!(client.copy_in::<_, Bytes>(&sql).await?);
    sink.send(stream.into()).await?;
    sink.finish().await
}
