//! Chunks that are not what was stored: each is named with its table, and nothing half done counts.

use std::fs;

use pgrescue::api::reasons;
use pgrescue::plan::report::Failed;
use serde_json::{Value, json};

use super::Cut;
use crate::parts::{Database, PostgresServer};
use crate::restore::Request;
use crate::restore::snapshot::Snapshot;

/// A source with one table of chunks that are objects of their own and one whose chunks share a pack.
fn source(server: &PostgresServer) -> (Database<'_>, Snapshot) {
    let source = server.create_database("source");
    source.psql(
        "CREATE TABLE large AS SELECT i AS id, (SELECT string_agg(md5(random()::text || i || j), '') \
             FROM generate_series(1, 400) j) AS filler FROM generate_series(1, 600) i; \
         CREATE TABLE small AS SELECT i AS id FROM generate_series(1, 900) i",
    );
    let snapshot = Snapshot::chunked(&source, Cut::default());
    (source, snapshot)
}

/// The chunks of a table, as the manifest has them.
fn chunks<'a>(manifest: &'a mut Value, table: &str) -> &'a mut Vec<Value> {
    let relations = manifest["databases"][0]["relations"].as_array_mut().expect("relations");
    let relation = relations.iter_mut().find(|relation| relation["name"] == table);
    relation.expect("the table")["chunks"]["chunks"]
        .as_array_mut()
        .expect("chunks")
}

/// Restores, and sees that nothing is left.
#[track_caller]
fn refused(server: &PostgresServer, snapshot: &Snapshot, table: &str, reason: &str) -> Failed {
    let target = server.reserve_database("damaged");
    let failed = Request::into(snapshot, &target).fail();
    assert_eq!(failed.refusal.reason, reason, "{failed:?}");
    assert!(
        failed.refusal.message.contains(&format!("\"public\".\"{table}\"")),
        "{failed:?}"
    );
    assert!(!target.exists(), "{failed:?}");
    failed
}

/// Bytes of an object are changed.
fn change(snapshot: &Snapshot, object: &Value, change: impl FnOnce(&mut Vec<u8>)) {
    let path = snapshot.path(object.as_str().expect("a key"));
    let mut bytes = fs::read(&path).expect("the object is there");
    change(&mut bytes);
    fs::write(&path, bytes).expect("the folder is ours");
}

#[test]
fn a_chunk_with_one_bit_flipped_is_named_with_its_table() {
    let server = PostgresServer::shared(17);
    let (_source, snapshot) = source(server);
    let object = chunks(&mut snapshot.manifest(), "large")[1]["object"].clone();
    change(&snapshot, &object, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let failed = refused(server, &snapshot, "large", reasons::OBJECT_CHANGED);
    assert_eq!(failed.step.as_deref(), Some("data"));
    assert_eq!(failed.refusal.object.as_deref(), object.as_str(), "{failed:?}");
    assert!(failed.refusal.message.contains("chunk 2 of 2"), "{failed:?}");
    assert!(failed.refusal.message.contains("was dropped"), "{failed:?}");
}

#[test]
fn two_chunks_that_were_swapped_are_told_apart() {
    let server = PostgresServer::shared(17);
    let (_source, snapshot) = source(server);
    let mut manifest = snapshot.manifest();
    let objects: Vec<_> = chunks(&mut manifest, "large")
        .iter()
        .map(|chunk| chunk["object"].clone())
        .collect();
    let paths: Vec<_> = objects
        .iter()
        .map(|object| snapshot.path(object.as_str().expect("a key")))
        .collect();
    let mut contents: Vec<_> = paths.iter().map(|path| fs::read(path).expect("there")).collect();
    // Of one size, so that no size tells them apart.
    let longest = contents.iter().map(Vec::len).max().expect("two");
    contents.iter_mut().for_each(|content| content.resize(longest, 0));
    fs::write(&paths[0], &contents[1]).expect("the folder is ours");
    fs::write(&paths[1], &contents[0]).expect("the folder is ours");
    refused(server, &snapshot, "large", reasons::OBJECT_CHANGED);
    // Nor does it help to say so in the manifest: a name stands for the rows.
    let (_source, snapshot) = self::source(server);
    let mut manifest = snapshot.manifest();
    let large = chunks(&mut manifest, "large");
    let (first, second) = (large[0].clone(), large[1].clone());
    for field in ["object", "storedBytes", "sha256", "bytes"] {
        large[0][field] = second[field].clone();
        large[1][field] = first[field].clone();
    }
    snapshot.write_manifest(&manifest);
    refused(server, &snapshot, "large", reasons::OBJECT_CHANGED);
}

#[test]
fn a_chunk_that_is_missing_or_cut_is_found_before_anything_is_made() {
    let server = PostgresServer::shared(17);
    for table in ["large", "small"] {
        let (_source, snapshot) = source(server);
        let object = chunks(&mut snapshot.manifest(), table)[0]["object"].clone();
        change(&snapshot, &object, |bytes| {
            bytes.pop();
        });
        let failed = refused(server, &snapshot, table, reasons::OBJECT_CHANGED);
        assert_eq!(failed.step, None, "{failed:?}");
        fs::remove_file(snapshot.path(object.as_str().expect("a key"))).expect("it is there");
        let failed = refused(server, &snapshot, table, reasons::OBJECT_MISSING);
        assert_eq!(failed.step, None, "{failed:?}");
    }
}

#[test]
fn a_repository_that_is_gone_or_newer_is_refused() {
    let server = PostgresServer::shared(17);
    let (_source, snapshot) = source(server);
    let target = server.reserve_database("gone");
    let path = snapshot.path("pgrescue.json");
    let mut described: Value = serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
    described["formatVersion"] = json!(99);
    fs::write(&path, described.to_string()).expect("the folder is ours");
    assert_eq!(
        Request::into(&snapshot, &target).fail().refusal.reason,
        reasons::REPOSITORY_TOO_NEW
    );
    fs::remove_file(&path).expect("there");
    assert_eq!(
        Request::into(&snapshot, &target).fail().refusal.reason,
        reasons::REPOSITORY_INVALID
    );
    assert!(!target.exists());
}

#[test]
fn a_manifest_whose_chunks_do_not_add_up_is_refused() {
    let server = PostgresServer::shared(17);
    let (_source, snapshot) = source(server);
    let mut manifest = snapshot.manifest();
    chunks(&mut manifest, "small").remove(1);
    snapshot.write_manifest(&manifest);
    refused(server, &snapshot, "small", reasons::MANIFEST_INVALID);
}

#[test]
fn rows_that_the_manifest_did_not_count_are_not_committed() {
    let server = PostgresServer::shared(17);
    let (_source, snapshot) = source(server);
    let mut manifest = snapshot.manifest();
    // The sum is right, so that only the server can tell.
    let small = chunks(&mut manifest, "small");
    small[0]["rows"] = json!(299);
    small[1]["rows"] = json!(301);
    snapshot.write_manifest(&manifest);
    let failed = refused(server, &snapshot, "small", reasons::VERIFICATION_FAILED);
    assert_eq!(failed.step.as_deref(), Some("data"), "{failed:?}");
}

#[test]
fn a_chunk_that_is_in_two_places_of_the_manifest_is_loaded_twice_only_where_both_are_meant() {
    // Two ranges with the same rows have one name and one object.
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.psql("CREATE TABLE same AS SELECT 1 AS id FROM generate_series(1, 900)");
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let mut manifest = snapshot.manifest();
    let same = chunks(&mut manifest, "same");
    assert!(same.iter().all(|chunk| chunk["name"] == same[0]["name"]));
    let target = server.reserve_database("same");
    Request::into(&snapshot, &target).succeed();
    source.content().assert_same(&target.content());
}
