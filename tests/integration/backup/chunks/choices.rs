//! What is asked for is what is stored, as chunks or not.

use std::collections::BTreeSet;

use pgrescue::api::reasons;
use pgrescue::postgres::archive::Toc;
use pgrescue::store::manifest::DataFormat;
use serde_json::{Value, json};

use super::{Objects, backed_up, chunks};
use crate::backup::choices::set;
use crate::backup::{in_folder, request};
use crate::parts::{Database, PostgresServer};

fn chunked(manifest: &pgrescue::store::manifest::Manifest, database: &Database<'_>) -> BTreeSet<String> {
    let database = manifest.database(&database.name).expect("the database");
    let with_chunks = database.relations.iter().filter(|relation| relation.chunks.is_some());
    with_chunks
        .map(|relation| format!("{}.{}", relation.schema, relation.name))
        .collect()
}

fn choices_database(server: &PostgresServer) -> Database<'_> {
    let database = server.create_database("choices");
    database.psql(
        "CREATE SCHEMA other; CREATE TABLE other.a (id int); INSERT INTO other.a VALUES (1); \
         CREATE TABLE other.b (id int); INSERT INTO other.b VALUES (1), (2); \
         CREATE TABLE other.parted (id int) PARTITION BY RANGE (id); \
         CREATE TABLE public.part_1 PARTITION OF other.parted FOR VALUES FROM (0) TO (10); \
         CREATE TABLE public.part_2 PARTITION OF other.parted FOR VALUES FROM (10) TO (20); \
         INSERT INTO other.parted VALUES (1), (11), (12); \
         CREATE UNLOGGED TABLE fleeting (id int); INSERT INTO fleeting VALUES (1); \
         CREATE MATERIALIZED VIEW seen AS SELECT id FROM other.a; CREATE SEQUENCE counted; SELECT nextval('counted')",
    );
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_left_out_are_in_no_chunk() {
    let server = PostgresServer::shared(16);
    let source = choices_database(server);
    let table = |schema: &str, name: &str| json!({"schema": schema, "name": name});
    let of = async |more: Value| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (_, manifest) = backed_up(&source, folder.path(), more).await;
        (chunked(&manifest, &source), manifest.databases[0].rows)
    };
    let all = ["other.a", "other.b", "public.part_1", "public.part_2"];
    assert_eq!(of(json!({})).await, (set(&all), 6));
    assert_eq!(
        of(json!({"tables": {"excludeData": [table("other", "b"), table("public", "part_2")]}})).await,
        (set(&["other.a", "public.part_1"]), 2)
    );
    assert_eq!(
        of(json!({"tables": {"include": [table("other", "parted")]}})).await,
        (set(&["public.part_1", "public.part_2"]), 3)
    );
    assert_eq!(
        of(json!({"schemas": {"include": ["other"]}})).await,
        (set(&["other.a", "other.b"]), 3)
    );
    assert_eq!(of(json!({"dataOnly": true})).await, (set(&all), 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_views_and_unlogged_rows_stay_in_the_archive() {
    let server = PostgresServer::shared(15);
    let source = choices_database(server);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (request, manifest) = backed_up(&source, folder.path(), json!({"unloggedTableData": "Include"})).await;
    let objects = Objects(folder.path().to_owned());
    let archive = objects.read(&pgrescue::store::layout::archive(&request.snapshot(), &source.name));
    let toc = Toc::read(&mut archive.as_slice()).expect("an archive");
    let entries = |kind: &str| -> Vec<String> {
        let of_kind = toc
            .entries
            .iter()
            .filter(|entry| entry.description.to_str() == Some(kind));
        of_kind
            .filter_map(|entry| Some(entry.tag.as_ref()?.lossy().into_owned()))
            .collect()
    };
    assert_eq!(entries("TABLE DATA"), ["fleeting"]);
    assert_eq!(entries("SEQUENCE SET"), ["counted"]);
    assert_eq!(entries("MATERIALIZED VIEW DATA"), ["seen"]);
    assert!(!chunked(&manifest, &source).contains("public.fleeting"));
    // Zstd is not what the old client has, but what chunks have.
    assert_eq!(
        serde_json::to_value(&manifest.selection.compression).expect("JSON"),
        json!({"method": "Zstd", "level": 1})
    );
    // Roles of other tests' databases on this server have warnings of their own.
    let mut warnings = manifest.warnings.iter();
    assert!(
        warnings.all(|warning| warning.contains("role \"fixture_")),
        "{:?}",
        manifest.warnings
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_definitions_alone_makes_no_repository() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("definitions");
    source.load_plain();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let request = request(&source, in_folder(folder.path()), chunks(json!({"schemaOnly": true})));
    request.run().await.artifact();
    let objects = Objects(folder.path().to_owned());
    let manifest = objects.manifest(&request.snapshot());
    assert_eq!((manifest.data_format, manifest.chunks), (DataFormat::Custom, None));
    assert!(!objects.exists("pgrescue.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_makes_no_repository_and_a_newer_one_is_refused() {
    let server = PostgresServer::shared(14);
    let source = server.create_database("dry");
    source.load_plain();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = || in_folder(folder.path());
    let dry = request(&source, storage(), chunks(json!({"dryRun": true})));
    dry.run().await.result.expect("a plan");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);

    std::fs::write(folder.path().join("pgrescue.json"), r#"{"formatVersion": 99}"#).expect("written");
    for more in [json!({"dryRun": true}), json!({})] {
        let ended = request(&source, storage(), chunks(more)).run().await;
        assert_eq!(
            ended.refusal().reason,
            reasons::REPOSITORY_TOO_NEW,
            "{:?}",
            ended.refusal()
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
}
