//! Backups with rows as chunks: what is stored, put together again by stock programs and COPY alone, is what was there.

mod changes;
mod choices;
mod faults;
mod reassemble;
mod repeated;
mod round_trip;
pub mod types;

use std::path::Path;

use pgrescue::store::manifest::{DataFormat, Manifest};
use serde_json::{Value, json};

use super::{Objects, Request, in_folder, request};
use crate::parts::Database;

/// `more` with rows as chunks.
fn chunks(mut more: Value) -> Value {
    more["dataFormat"] = json!("Chunks");
    more
}

/// A backup into a folder that succeeds, and its manifest.
async fn backed_up(source: &Database<'_>, folder: &Path, more: Value) -> (Request, Manifest) {
    let request = request(source, in_folder(folder), chunks(more));
    request.run().await.artifact();
    let manifest = Objects(folder.to_owned()).manifest(&request.snapshot());
    assert_eq!(manifest.data_format, DataFormat::Chunks);
    (request, manifest)
}

/// Rows for several block ranges: `ranges` times 512 blocks and a little.
fn load_ranges(database: &Database<'_>, table: &str, ranges: u32) {
    // Four rows of 2000 bytes fill a block.
    database.psql(&format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, body text); ALTER TABLE {table} ALTER body SET STORAGE PLAIN; \
         INSERT INTO {table} SELECT i, repeat(md5(i::text), 60) FROM generate_series(1, {}) i",
        ranges * 512 * 4 + 100
    ));
}
