//! The next backup stores what changed.

use serde_json::json;

use super::{Objects, backed_up, chunks, load_ranges};
use crate::backup::{in_bucket, new_bucket, request, s3};
use crate::parts::PostgresServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_of_the_same_rows_stores_no_chunk() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("repeated");
    source.load_everything();
    load_ranges(&source, "big", 2);
    let bucket = new_bucket();
    let (first, second) = (
        request(&source, in_bucket(&bucket), chunks(json!({}))),
        request(&source, in_bucket(&bucket), chunks(json!({"parallelism": 1}))),
    );
    let one = first.run().await.artifact().clone();
    assert_eq!(one.new_bytes, Some(one.bytes));
    let stored = |bucket: &str| -> Vec<String> {
        let keys = s3().keys(bucket).into_iter();
        keys.filter(|key| !key.contains("/snapshots/")).collect()
    };
    let after_the_first = stored(&bucket);
    // What another session leaves in its settings changes no byte of the rows.
    source.psql(&format!(
        "ALTER DATABASE {} SET timezone = 'Asia/Tokyo'; ALTER DATABASE {} SET bytea_output = 'escape'; \
         ALTER DATABASE {} SET datestyle = 'German'",
        crate::parts::quoted(&source.name),
        crate::parts::quoted(&source.name),
        crate::parts::quoted(&source.name)
    ));
    let two = second.run().await.artifact().clone();
    assert_eq!(stored(&bucket), after_the_first);
    let objects = Objects::of_bucket(&bucket);
    let (one_manifest, two_manifest) = (
        objects.manifest(&first.snapshot()),
        objects.manifest(&second.snapshot()),
    );
    let totals = two_manifest.chunks.expect("totals");
    assert_eq!((totals.new_chunks, totals.new_bytes), (0, 0));
    assert_eq!(totals.stored_bytes, one_manifest.chunks.expect("totals").stored_bytes);
    assert_eq!(two.rows, one.rows);
    let own: u64 = two_manifest.objects.iter().map(|object| object.size).sum();
    let manifest = objects
        .read(&pgrescue::store::layout::manifest(&second.snapshot()))
        .len() as u64;
    assert_eq!(two.new_bytes, Some(own + manifest));
    assert!(two.new_bytes < Some(two.bytes), "{two:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changed_costs_the_chunk_of_its_range_alone() {
    let server = PostgresServer::shared(18);
    let source = server.create_database("touched");
    load_ranges(&source, "big", 4);
    source.load_plain();
    let folder = tempfile::tempdir().expect("a temporary folder");
    backed_up(&source, folder.path(), json!({})).await;
    // The new version of the row goes to the end of the table.
    source.psql("UPDATE big SET body = repeat('changed', 250) WHERE id = 3000");
    let (_, manifest) = backed_up(&source, folder.path(), json!({})).await;
    let totals = manifest.chunks.expect("totals");
    assert_eq!(totals.new_chunks, 2, "{totals:?}: the range it was in and the last one");
    assert_eq!(totals.chunks, 5 + 2, "of the big table and two small ones");
}
