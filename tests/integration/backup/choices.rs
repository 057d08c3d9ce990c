//! What a backup is asked to hold is what it holds.

use std::collections::BTreeSet;

use pgrescue::api::backup::CompressionMethod;
use pgrescue::api::reasons;
use pgrescue::plan::report::Outcome;
use pgrescue::postgres::archive::Toc;
use serde_json::{Value, json};

use super::{Objects, in_bucket, in_folder, new_bucket, request, s3};
use crate::parts::{Database, PostgresServer};

/// Backs up and gives the archive's entries of one kind, as `schema.name`.
async fn entries(source: &Database<'_>, more: Value, kind: &str) -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let request = request(source, in_folder(folder.path()), more);
    request.run().await.artifact();
    let key = pgrescue::store::layout::archive(&request.snapshot(), &source.name);
    let archive = Objects(folder.path().to_owned()).read(&key);
    let toc = Toc::read(&mut archive.as_slice()).expect("an archive");
    let of_kind = toc
        .entries
        .iter()
        .filter(|entry| entry.description.to_str() == Some(kind));
    let text = |text: Option<&pgrescue::postgres::archive::Text>| {
        text.map(|text| text.lossy().into_owned()).unwrap_or_default()
    };
    of_kind
        .map(|entry| format!("{}.{}", text(entry.schema.as_ref()), text(entry.tag.as_ref())))
        .collect()
}

pub fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn choices_database(server: &PostgresServer) -> Database<'_> {
    let database = server.create_database("choices");
    database.psql(
        r#"
        CREATE SCHEMA "odd ""schema"".x"; CREATE SCHEMA other;
        CREATE TABLE "odd ""schema"".x"."a.b*" (id int); INSERT INTO "odd ""schema"".x"."a.b*" VALUES (1);
        CREATE TABLE "odd ""schema"".x"."a.bc" (id int); INSERT INTO "odd ""schema"".x"."a.bc" VALUES (1), (2);
        CREATE TABLE other."A" (id int); CREATE TABLE other."a" (id int); INSERT INTO other.a VALUES (1);
        CREATE TABLE other.parted (id int) PARTITION BY RANGE (id);
        CREATE TABLE other.part_1 PARTITION OF other.parted FOR VALUES FROM (0) TO (10) PARTITION BY LIST (id);
        CREATE TABLE other.part_1_leaf PARTITION OF other.part_1 DEFAULT;
        CREATE TABLE public.part_2 PARTITION OF other.parted FOR VALUES FROM (10) TO (20);
        INSERT INTO other.parted VALUES (1), (11);
        CREATE UNLOGGED TABLE public.fleeting (id int); INSERT INTO fleeting VALUES (1);
        CREATE VIEW public.seen AS SELECT 1 AS one;
        "#,
    );
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_chosen_by_their_exact_names() {
    let server = PostgresServer::shared(15);
    let source = choices_database(server);
    let odd = "odd \"schema\".x";
    assert_eq!(
        entries(&source, json!({"schemas": {"include": [odd]}}), "TABLE").await,
        set(&["odd \"schema\".x.a.b*", "odd \"schema\".x.a.bc"])
    );
    assert_eq!(
        entries(&source, json!({"schemas": {"exclude": ["other", odd]}}), "TABLE DATA").await,
        set(&["public.part_2"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_chosen_by_their_exact_names_with_their_partitions() {
    let server = PostgresServer::shared(18);
    let source = choices_database(server);
    let table = |schema: &str, name: &str| json!({"schema": schema, "name": name});
    let only = json!({"tables": {"include": [table("odd \"schema\".x", "a.b*"), table("other", "A")]}});
    assert_eq!(
        entries(&source, only, "TABLE").await,
        set(&["odd \"schema\".x.a.b*", "other.A"])
    );
    let root = json!({"tables": {"include": [table("other", "parted")]}});
    assert_eq!(
        entries(&source, root, "TABLE").await,
        set(&["other.parted", "other.part_1", "other.part_1_leaf", "public.part_2"])
    );
    let without = json!({"tables": {"exclude": [table("other", "parted"), table("odd \"schema\".x", "a.b*")]}});
    assert_eq!(
        entries(&source, without, "TABLE").await,
        set(&["odd \"schema\".x.a.bc", "other.A", "other.a", "public.fleeting"])
    );
    let without_rows = json!({"tables": {"excludeData": [table("other", "parted"), table("other", "a")]}});
    assert_eq!(
        entries(&source, without_rows, "TABLE DATA").await,
        set(&["odd \"schema\".x.a.b*", "odd \"schema\".x.a.bc", "other.A"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_name_can_be_left_out_and_nothing_else_goes() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("hostile");
    source.load_everything();
    let names = source.psql("SELECT json_agg(json_build_object('schema', 'nasty', 'name', relname)) FROM pg_class WHERE relnamespace = 'nasty'::regnamespace AND relkind = 'r'");
    let names: Value = serde_json::from_str(&names).expect("JSON");
    let count = names.as_array().expect("a list").len();
    let all = entries(&source, json!({}), "TABLE DATA").await;
    let kept = entries(&source, json!({"tables": {"excludeData": names}}), "TABLE DATA").await;
    assert_eq!(all.len() - kept.len(), count);
    let excluded = entries(&source, json!({"tables": {"exclude": names}}), "TABLE").await;
    assert!(excluded.iter().all(|name| !name.starts_with("nasty.")), "{excluded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_unlogged_tables_are_left_out_unless_asked_for() {
    let server = PostgresServer::shared(14);
    let source = choices_database(server);
    assert!(
        !entries(&source, json!({}), "TABLE DATA")
            .await
            .contains("public.fleeting")
    );
    assert!(
        entries(&source, json!({"unloggedTableData": "Include"}), "TABLE DATA")
            .await
            .contains("public.fleeting")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_and_rows_can_be_stored_alone() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("halves");
    source.load_plain();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let objects = Objects(folder.path().to_owned());
    let definitions = request(&source, in_folder(folder.path()), json!({"schemaOnly": true}));
    assert_eq!(definitions.run().await.artifact().rows, 0);
    let rows = request(
        &source,
        in_folder(folder.path()),
        json!({"dataOnly": true, "compression": {"method": "None"}}),
    );
    assert_eq!(rows.run().await.artifact().rows, 1100);
    assert!(!objects.exists(&pgrescue::store::layout::pre_data(&rows.snapshot(), &source.name)));

    let target = server.create_database_with("restored", "TEMPLATE template0");
    objects.restore(&definitions.snapshot(), &source.name, &target, 17, &[]);
    source.schema().assert_same(&target.schema());
    objects.restore(&rows.snapshot(), &source.name, &target, 17, &["--disable-triggers"]);
    target.psql("REFRESH MATERIALIZED VIEW turnover");
    source.content().assert_same(&target.content());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_databases_but_some_are_stored_side_by_side() {
    let server = PostgresServer::start(18);
    let (one, two) = (server.create_database("one"), server.create_database("two/ü"));
    one.load_plain();
    two.psql("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2)");
    let bucket = new_bucket();
    let request = request(
        &one,
        in_bucket(&bucket),
        json!({"databases": {"exclude": ["postgres", "template1"]}}),
    );
    let ended = request.run().await;
    let artifact = ended.artifact();
    assert_eq!(artifact.databases, [one.name.clone(), two.name.clone()]);
    assert_eq!(artifact.rows, 1102);
    let progress = ended.status.progress.expect("progress");
    assert_eq!((progress.percent, progress.tables), (100, 3));
    let objects = Objects::of_bucket(&bucket);
    for source in [&one, &two] {
        let target = server.create_database_with("restored", "TEMPLATE template0");
        objects.restore(&request.snapshot(), &source.name, &target, 18, &[]);
        source.content().assert_same(&target.content());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_compressed_as_asked_or_by_the_best_that_the_servers_client_has() {
    for (major, asked, stored) in [
        (15, None, CompressionMethod::Gzip),
        (15, Some("Gzip"), CompressionMethod::Gzip),
        (15, Some("None"), CompressionMethod::None),
        (16, None, CompressionMethod::Zstd),
        (16, Some("Lz4"), CompressionMethod::Lz4),
    ] {
        let source = PostgresServer::shared(major).create_database("compressed");
        source.load_plain();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let objects = Objects(folder.path().to_owned());
        let more = asked.map_or(json!({}), |method| json!({"compression": {"method": method}}));
        let request = request(&source, in_folder(folder.path()), more);
        let ended = request.run().await;
        ended.artifact();
        let manifest = objects.manifest(&request.snapshot());
        assert_eq!(manifest.selection.compression.method, stored);
        assert_eq!(manifest.warnings, ended.status.warnings);
        let warned = manifest
            .warnings
            .iter()
            .any(|warning| warning.contains("compressed by Gzip"));
        assert_eq!(warned, major == 15 && asked.is_none(), "{:?}", manifest.warnings);
        let target = source.server.create_database_with("restored", "TEMPLATE template0");
        objects.restore(&request.snapshot(), &source.name, &target, major, &[]);
        source.content().assert_same(&target.content());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compression_that_the_servers_client_does_not_have_is_refused_when_it_is_named() {
    let source = PostgresServer::shared(15).create_database("uncompressed");
    for method in ["Zstd", "Lz4"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let more = json!({"compression": {"method": method}});
        let ended = request(&source, in_folder(folder.path()), more).run().await;
        let refusal = ended.refusal();
        assert_eq!(refusal.reason, reasons::INVALID_SPEC, "{refusal:?}");
        assert!(
            refusal.hint.as_ref().is_some_and(|hint| hint.contains("Gzip")),
            "{refusal:?}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_the_steps_of_the_run_and_stores_nothing() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("dry");
    source.load_plain();
    let bucket = new_bucket();
    let mut dry = request(&source, in_bucket(&bucket), json!({}));
    let wet = dry.again();
    dry.plan.dry_run = true;
    let ended = dry.run().await;
    let done = ended.result.as_ref().expect("a plan");
    assert_eq!(done.outcome, Outcome::Planned);
    assert_eq!(s3().keys(&bucket), Vec::<String>::new());
    assert_eq!(s3().orphan_parts(&bucket).len(), 0);
    let names: Vec<&str> = ended.status.steps.iter().map(|step| step.name.as_str()).collect();
    let of = |step: &str| format!("{step} {}", source.name);
    assert_eq!(
        names,
        [&of("snapshot"), &of("dump"), &of("pre-data"), "globals", "manifest"]
    );

    let ran = wet.run().await;
    ran.artifact();
    assert_eq!(ran.status.plan_hash, ended.status.plan_hash);
    assert_eq!(ran.result.expect("a backup").plan_hash, done.plan_hash);
    assert!(done.plan_hash.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_extension_that_keeps_its_tables_among_the_system_s_are_stored() {
    let source = PostgresServer::shared(16).create_database("among_system");
    // As pg_ivm does it.
    source.psql(
        "CREATE EXTENSION pgrescue_fixture; ALTER TABLE fixture_extension.entry SET SCHEMA pg_catalog;
         INSERT INTO pg_catalog.entry VALUES (1, 'a'), (2, 'b')",
    );
    let bucket = new_bucket();
    let request = request(&source, in_bucket(&bucket), json!({}));
    assert_eq!(request.run().await.artifact().rows, 2);
    let manifest = Objects::of_bucket(&bucket).manifest(&request.snapshot());
    let database = manifest.database(&source.name).expect("the database is there");
    let entry = database.relations.iter().find(|relation| relation.name == "entry");
    assert_eq!(entry.and_then(|relation| relation.rows), Some(2));
    assert!(database.relations.iter().all(|relation| relation.name != "pg_class"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_name_looks_like_a_connection_string_is_stored_with_its_roles() {
    let bucket = new_bucket();
    for purpose in ["host=elsewhere.invalid it's \\", "postgresql://elsewhere.invalid/"] {
        let source = PostgresServer::shared(18).create_database(purpose);
        source.psql("CREATE TABLE t AS SELECT 1 AS id");
        let request = request(&source, in_bucket(&bucket), json!({}));
        assert_eq!(request.run().await.artifact().rows, 1, "{purpose}");
        let globals = Objects::of_bucket(&bucket).read(&pgrescue::store::layout::globals(&request.snapshot()));
        assert!(String::from_utf8_lossy(&globals).contains("CREATE ROLE"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn user_mappings_that_pg_dump_leaves_out_are_named() {
    let source = PostgresServer::shared(15).create_database("of_extension");
    source.psql(
        "CREATE EXTENSION pgrescue_fixture; CREATE USER MAPPING FOR CURRENT_USER SERVER fixture_extension_server",
    );
    let bucket = new_bucket();
    let ended = request(&source, in_bucket(&bucket), json!({"schemaOnly": true}))
        .run()
        .await;
    ended.artifact();
    let warned =
        |warning: &String| warning.contains("fixture_extension_server") && warning.contains("pgrescue_fixture");
    assert!(ended.status.warnings.iter().any(warned), "{:?}", ended.status.warnings);
}
