//! What is refused, with nothing changed, and in which words.

use std::fs;

use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass;
use pgrescue::plan::report::{Failed, Outcome};
use pgrescue::store::layout;
use serde_json::json;

use super::snapshot::{ID, Snapshot};
use super::{Request, limited_role};
use crate::parts::{Database, PgBouncer, PostgresServer};

/// A database with a few tables, and its snapshot.
fn plain(server: &PostgresServer) -> (Database<'_>, Snapshot) {
    let source = server.create_database("source");
    source.load_plain();
    let snapshot = Snapshot::of(&source);
    (source, snapshot)
}

#[track_caller]
fn assert_refused(failed: &Failed, reason: &str, words: &[&str]) {
    assert_eq!(failed.refusal.reason, reason, "{failed:?}");
    for word in words {
        assert!(failed.refusal.message.contains(word), "{word:?} in {failed:?}");
    }
    assert!(failed.refusal.hint.is_some(), "{failed:?}");
    assert_eq!(failed.step, None, "nothing had begun");
}

#[test]
fn a_database_with_any_object_is_refused_and_left_as_it_is() {
    let server = PostgresServer::shared(17);
    let (_source, snapshot) = plain(server);
    for (sql, what) in [
        ("CREATE TABLE public.own (id int)", "table public.own"),
        ("CREATE SCHEMA own", "schema own"),
        ("SELECT lo_create(4711)", "large object 4711"),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "function public.f()",
        ),
        ("CREATE TYPE mood AS ENUM ('ok')", "type public.mood"),
        ("CREATE SEQUENCE numbers", "sequence public.numbers"),
        ("CREATE PUBLICATION news", "publication news"),
        (
            "CREATE CAST (point AS text) WITH INOUT",
            "cast (pg_catalog.point AS pg_catalog.text)",
        ),
        (
            "CREATE TEXT SEARCH DICTIONARY words (TEMPLATE = simple)",
            "text search dictionary public.words",
        ),
        (
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
            "default acl",
        ),
        (
            "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw",
            "server far",
        ),
    ] {
        let target = server.create_database("taken");
        target.psql(sql);
        let before = (target.content(), target.schema());
        let failed = Request::into(&snapshot, &target).fail();
        assert_refused(&failed, reasons::TARGET_NOT_EMPTY, &[what]);
        assert_eq!(failed.refusal.class, FailureClass::Permanent);
        assert_eq!((target.content(), target.schema()), before);
    }
}

#[test]
fn missing_roles_are_all_named_before_anything_is_made() {
    let server = PostgresServer::shared(16);
    let source = server.create_database("source");
    server.psql("postgres", "CREATE ROLE refusal_owner; CREATE ROLE refusal_reader");
    source.psql(
        "CREATE TABLE t (id int); ALTER TABLE t OWNER TO refusal_owner; \
         GRANT SELECT ON t TO refusal_reader",
    );
    let snapshot = Snapshot::of(&source);
    let target = PostgresServer::shared(17).reserve_database("absent");
    let failed = Request::into(&snapshot, &target).fail();
    assert_refused(
        &failed,
        reasons::ROLE_MISSING,
        &["\"refusal_owner\" (TABLE public.t)", "\"refusal_reader\""],
    );
    assert!(!target.exists());
}

#[test]
fn extensions_that_the_target_does_not_offer_are_refused() {
    let source = PostgresServer::shared(16).create_database("source");
    // PostgreSQL 17 has them no more.
    source.psql("CREATE EXTENSION adminpack; CREATE EXTENSION old_snapshot; CREATE EXTENSION citext");
    let snapshot = Snapshot::of(&source);
    let target = PostgresServer::shared(18).reserve_database("absent");
    let failed = Request::into(&snapshot, &target).fail();
    assert_refused(
        &failed,
        reasons::EXTENSION_MISSING,
        &["\"adminpack\"", "\"old_snapshot\""],
    );
    assert!(!failed.refusal.message.contains("citext"));
    assert!(!target.exists());
}

#[test]
fn an_older_server_is_refused() {
    let (_source, snapshot) = plain(PostgresServer::shared(17));
    let target = PostgresServer::shared(15).reserve_database("older");
    let failed = Request::into(&snapshot, &target).fail();
    assert_refused(&failed, reasons::TARGET_TOO_OLD, &["15.", "17"]);
    assert!(!target.exists());
}

#[test]
fn a_role_that_may_not_create_databases_is_refused() {
    let server = PostgresServer::shared(17);
    let (_source, snapshot) = plain(server);
    server.psql("postgres", "CREATE ROLE no_creator LOGIN PASSWORD 'no_creator'");
    let target = server.reserve_database("absent");
    let request = Request::into(&snapshot, &target).logged_in_as("no_creator");
    let failed = request.with("noOwner", json!(true)).fail();
    assert_refused(
        &failed,
        reasons::PERMISSION_DENIED,
        &["\"no_creator\"", "may not create databases"],
    );
}

#[test]
fn a_role_that_may_not_give_objects_away_is_refused() {
    let server = PostgresServer::shared(16);
    let (_source, snapshot) = plain(server);
    limited_role(server, "not_a_member");
    let target = server.reserve_database("absent");
    let failed = Request::into(&snapshot, &target).logged_in_as("not_a_member").fail();
    assert_refused(
        &failed,
        reasons::PERMISSION_DENIED,
        &["\"not_a_member\"", "\"postgres\""],
    );
    assert!(!target.exists());
}

#[test]
fn wrong_connections_are_refused_with_their_own_reasons() {
    let server = PostgresServer::shared(17);
    let (_source, snapshot) = plain(server);
    let target = server.reserve_database("absent");
    let request = || Request::into(&snapshot, &target);
    let wrong_password = request().secret("target", &json!({"password": "canary:wrong"})).fail();
    assert_refused(&wrong_password, reasons::AUTHENTICATION_FAILED, &[]);
    let closed_port = request().connection("port", json!(1)).fail();
    assert_refused(&closed_port, reasons::CONNECTION_REFUSED, &[]);
    assert_eq!(closed_port.refusal.class, FailureClass::Temporary);
    let unknown_host = request().connection("host", json!("nowhere.invalid")).fail();
    assert_refused(&unknown_host, reasons::HOST_UNKNOWN, &[]);
    let no_tls = request().connection("tls", json!({"mode": "require"})).fail();
    assert_refused(&no_tls, reasons::TLS_FAILED, &[]);
}

#[test]
fn a_transaction_pooler_is_refused() {
    let server = PostgresServer::shared(17);
    let (_source, snapshot) = plain(server);
    let pooler = PgBouncer::start_with_transaction_pooling(server);
    let failed = Request::through(&snapshot, pooler.port, "absent").fail();
    assert_refused(&failed, reasons::POOLER_IN_FRONT, &[]);
}

#[test]
fn a_damaged_backup_is_refused_before_anything_is_made() {
    let server = PostgresServer::shared(17);
    let (source, _) = plain(server);
    let target = server.reserve_database("absent");
    let refused = |damage: &dyn Fn(&Snapshot)| {
        let snapshot = Snapshot::of(&source);
        damage(&snapshot);
        let failed = Request::into(&snapshot, &target).fail();
        assert!(!target.exists());
        failed
    };
    let change = |snapshot: &Snapshot, at: fn(usize) -> usize| {
        let mut bytes = fs::read(snapshot.archive()).expect("the archive");
        let at = at(bytes.len());
        bytes[at] ^= 1;
        fs::write(snapshot.archive(), bytes).expect("the folder is ours");
    };
    for at in [|_| 40, |size| size / 2, |size| size - 1] {
        let failed = refused(&|snapshot| change(snapshot, at));
        assert_refused(&failed, reasons::OBJECT_CHANGED, &[]);
    }
    let missing = refused(&|snapshot| fs::remove_file(snapshot.archive()).expect("it is there"));
    assert_refused(&missing, reasons::OBJECT_MISSING, &["archive.dump"]);
    let cut = refused(&|snapshot| {
        let bytes = fs::read(snapshot.archive()).expect("the archive");
        fs::write(snapshot.archive(), &bytes[..bytes.len() - 10]).expect("the folder is ours");
    });
    assert_refused(&cut, reasons::OBJECT_CHANGED, &["archive.dump"]);
    let no_manifest = refused(&|snapshot| {
        fs::remove_file(snapshot.path(&format!("snapshots/{ID}/manifest.json"))).expect("it is there");
    });
    assert_refused(&no_manifest, reasons::MANIFEST_INVALID, &[]);
    let newer = refused(&|snapshot| {
        let mut manifest = snapshot.manifest();
        manifest["formatVersion"] = json!(3);
        snapshot.write_manifest(&manifest);
    });
    assert_refused(&newer, reasons::MANIFEST_TOO_NEW, &["format 3"]);
    let of_another = refused(&|snapshot| {
        let mut manifest = snapshot.manifest();
        manifest["backup"]["name"] = json!("other");
        snapshot.write_manifest(&manifest);
    });
    assert_refused(&of_another, reasons::MANIFEST_INVALID, &["shop/other"]);
}

#[test]
fn a_manifest_that_is_not_the_one_of_the_backups_status_is_refused() {
    let server = PostgresServer::shared(17);
    let (_source, snapshot) = plain(server);
    let target = server.reserve_database("absent");
    let mut request = Request::into(&snapshot, &target);
    request.source.manifest_sha256 = Some("00".repeat(32));
    assert_refused(&request.fail(), reasons::OBJECT_CHANGED, &["manifest.json"]);
}

#[test]
fn rows_without_definitions_are_refused() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_plain();
    let snapshot = Snapshot::with(&source, 17, &["--data-only"], false);
    let target = server.reserve_database("absent");
    let failed = Request::into(&snapshot, &target).fail();
    assert_refused(&failed, reasons::INVALID_SPEC, &["dataOnly"]);
}

#[test]
fn a_dry_run_shows_the_steps_of_the_run_and_changes_nothing() {
    let server = PostgresServer::shared(17);
    let (source, snapshot) = plain(server);
    let target = server.reserve_database("shown");
    let shown = Request::into(&snapshot, &target).with("dryRun", json!(true)).succeed();
    assert_eq!(shown.done.outcome, Outcome::Planned);
    assert!(!target.exists());
    assert!(!shown.status.steps.is_empty());
    let run = Request::into(&snapshot, &target).succeed();
    assert_eq!(run.done.plan_hash, shown.done.plan_hash);
    assert_eq!(run.status.plan_hash, shown.status.plan_hash);
    source.content().assert_same(&target.content());
}

#[test]
fn an_older_snapshot_does_not_stand_in_for_the_newest_that_cannot_be_read() {
    let server = PostgresServer::shared(17);
    let (source, snapshot) = plain(server);
    let target = server.reserve_database("newest");
    let restore = || {
        let mut request = Request::into(&snapshot, &target);
        request.source.snapshot = None;
        request
    };
    let newer = "20270102T030405Z-0123456789";
    let path = snapshot.path(&layout::manifest(newer));
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is ours");
    let manifest = |name: &str| json!({"formatVersion": 99, "backup": {"namespace": "shop", "name": name, "uid": "u"}});
    std::fs::write(&path, manifest("orders").to_string()).expect("the folder is ours");
    assert_refused(&restore().fail(), reasons::MANIFEST_TOO_NEW, &["99"]);
    assert!(!target.exists());
    // That of another backup is none of our business.
    std::fs::write(&path, manifest("other").to_string()).expect("the folder is ours");
    restore().succeed();
    source.content().assert_same(&target.content());
}

#[test]
fn a_table_where_the_ledger_has_to_be_is_not_left_out_in_silence() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_plain();
    source.psql("CREATE SCHEMA pgrescue; CREATE TABLE pgrescue.runs AS SELECT 1 AS run, 'mine' AS name");
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("taken");
    let failed = Request::into(&snapshot, &target).fail();
    assert_refused(&failed, reasons::NAME_TAKEN, &["pgrescue.runs"]);
    assert!(!target.exists());
}
