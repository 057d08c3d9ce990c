//! Constraints that read other tables.

use pgrescue::api::reasons;
use serde_json::json;

use super::Cut;
use crate::parts::PostgresServer;
use crate::restore::Request;
use crate::restore::snapshot::Snapshot;

/// A table whose rows must have a partner in another one, which is loaded after it.
const KNOWN: &str = "CREATE TABLE zz (id int); INSERT INTO zz SELECT generate_series(1, 100); \
    CREATE FUNCTION known(int) RETURNS boolean LANGUAGE plpgsql AS \
        'BEGIN IF NOT EXISTS (SELECT FROM public.zz WHERE id = $1 % 100 + 1) THEN RETURN false; END IF; RETURN true; END'; \
    CREATE TABLE aa (id int CONSTRAINT \"is known\" CHECK (known(id)), filler text); \
    INSERT INTO aa SELECT i, md5(i::text) FROM generate_series(1, 2000) i";

#[test]
fn a_check_that_reads_another_table_is_met_once_that_is_full() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.psql(KNOWN);
    source.psql(
        "CREATE FUNCTION raises(int) RETURNS boolean LANGUAGE plpgsql AS \
            'BEGIN IF NOT public.known($1) THEN RAISE EXCEPTION ''unknown''; END IF; RETURN true; END'; \
         CREATE TABLE bb (id int CHECK (raises(id)), filler text); INSERT INTO bb SELECT * FROM aa",
    );
    let snapshot = Snapshot::chunked(&source, Cut::default());
    for jobs in [1, 3] {
        let target = server.reserve_database("checked");
        Request::into(&snapshot, &target).with("jobs", json!(jobs)).succeed();
        source.content().assert_same(&target.content());
        source.schema().assert_same(&target.schema());
    }
}

#[test]
fn a_check_that_is_never_met_is_explained_without_values_and_undone() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.psql(KNOWN);
    source.psql("DELETE FROM zz WHERE id = 7");
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let target = server.reserve_database("unmet");
    let failed = Request::into(&snapshot, &target).fail();
    assert_eq!(failed.refusal.reason, reasons::RESTORE_FAILED, "{failed:?}");
    assert_eq!(failed.refusal.sqlstate.as_deref(), Some("23514"));
    assert_eq!(failed.refusal.object.as_deref(), Some("\"public\".\"aa\""));
    for words in ["chunk ", " of 7 of ", "\"is known\"", "known(integer)", "was dropped"] {
        assert!(failed.refusal.message.contains(words), "{words}: {failed:?}");
    }
    assert!(!failed.refusal.message.contains("Failing row"), "{failed:?}");
    assert!(!target.exists());
}

#[test]
fn a_character_that_the_target_does_not_have_is_permanent_and_named() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.psql("CREATE TABLE t (id text); INSERT INTO t VALUES ('plain'), ('日本')");
    let snapshot = Snapshot::chunked(&source, Cut::default());
    let target = server.create_database_with("latin", "TEMPLATE template0 ENCODING 'LATIN1'");
    let failed = Request::into(&snapshot, &target).fail();
    assert_eq!(failed.refusal.sqlstate.as_deref(), Some("22P05"), "{failed:?}");
    assert_eq!(failed.refusal.object.as_deref(), Some("\"public\".\"t\""));
    assert!(
        failed.refusal.hint.as_deref().is_some_and(|hint| hint.contains("UTF8")),
        "{failed:?}"
    );
    assert!(failed.refusal.message.contains("was emptied again"), "{failed:?}");
    assert_eq!(target.psql("SELECT to_regnamespace('pgrescue') IS NULL"), "t");
}
