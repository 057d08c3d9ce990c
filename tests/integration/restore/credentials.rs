//! Foreign servers rewritten, reached or not, and no credential where it does not belong.

use pgrescue::api::conditions::FOREIGN_SERVERS_READY;
use pgrescue::api::reasons;
use serde_json::{Value, json};

use super::Request;
use super::snapshot::Snapshot;
use crate::fixtures::CANARY;
use crate::parts::{Database, PASSWORD, PostgresServer, SUPERUSER};

/// A database with one foreign server that leads to nowhere, and one that file_fdw serves.
fn source(server: &PostgresServer) -> Database<'_> {
    let source = server.create_database("source");
    source.load_plain();
    source.psql(
        "CREATE EXTENSION postgres_fdw; \
         CREATE SERVER billing_remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'production.invalid', dbname 'billing'); \
         CREATE USER MAPPING FOR CURRENT_USER SERVER billing_remote OPTIONS (\"user\" 'app', password 'canary:production'); \
         CREATE USER MAPPING FOR PUBLIC SERVER billing_remote OPTIONS (\"user\" 'all', password 'canary:all'); \
         CREATE FOREIGN TABLE far (id int) SERVER billing_remote OPTIONS (table_name 'customer')",
    );
    source
}

fn rule(server: &PostgresServer, database: &str) -> Value {
    json!([{
        "match": {"name": "billing_remote"},
        "options": {"set": {"host": "127.0.0.1", "port": server.port.to_string(), "dbname": database}},
        "userMappings": [
            {"localUser": SUPERUSER, "secretRef": {"name": "staging"}},
            {"localUser": "PUBLIC", "drop": true},
        ],
    }])
}

#[test]
fn a_rewritten_foreign_server_answers_and_no_credential_is_shown() {
    let server = PostgresServer::shared(17);
    let source = source(server);
    let target = server.reserve_database("rewritten");
    let finished = Request::into(&Snapshot::stripped(&source), &target)
        .secret("staging", &json!({"user": SUPERUSER, "password": PASSWORD}))
        .with("foreignServers", rule(server, &source.name))
        .with("unmatchedForeignServers", json!("Fail"))
        .succeed();
    assert_eq!(
        finished.condition(FOREIGN_SERVERS_READY),
        Some(true),
        "{:?}",
        finished.status.conditions
    );
    assert_eq!(target.psql("SELECT count(*) FROM far"), "100");
    let shown = serde_json::to_string(&finished.status).expect("JSON");
    assert!(!shown.contains(CANARY), "{shown}");
    let mappings = target.psql("SELECT usename FROM pg_user_mappings");
    assert_eq!(mappings, SUPERUSER);
}

#[test]
fn a_foreign_server_that_does_not_answer_is_said_and_undoes_nothing() {
    let server = PostgresServer::shared(16);
    let source = source(server);
    let target = server.reserve_database("unreached");
    let finished = Request::into(&Snapshot::stripped(&source), &target)
        .secret("staging", &json!({"user": SUPERUSER, "password": "canary:wrong"}))
        .with("foreignServers", rule(server, "nothing"))
        .succeed();
    assert_eq!(finished.condition(FOREIGN_SERVERS_READY), Some(false));
    let condition = finished
        .status
        .conditions
        .iter()
        .find(|condition| condition.r#type == FOREIGN_SERVERS_READY)
        .expect("the condition");
    assert!(
        condition.message.contains("\"billing_remote\" as \"postgres\""),
        "{condition:?}"
    );
    let shown = serde_json::to_string(&finished.status).expect("JSON");
    assert!(!shown.contains(CANARY), "{shown}");
    assert_eq!(target.psql("SELECT count(*) FROM customer"), "100");
    assert_eq!(target.psql("SELECT to_regclass('pgrescue.reachability') IS NULL"), "t");
    assert_eq!(
        target.psql("SELECT array_to_string(srvoptions, ' ') ~ 'connect_timeout' FROM pg_foreign_server"),
        "f"
    );
}

#[test]
fn foreign_servers_that_no_rule_fits_are_refused_before_anything_is_made() {
    let server = PostgresServer::shared(17);
    let source = source(server);
    let snapshot = Snapshot::stripped(&source);
    let target = server.reserve_database("absent");
    let refused = |request: Request| {
        let failed = request.fail();
        assert!(!target.exists());
        assert!(failed.refusal.hint.is_some(), "{failed:?}");
        failed.refusal
    };
    let request = || {
        Request::into(&snapshot, &target)
            .secret("staging", &json!({"user": "u", "password": "p"}))
            .with("unmatchedForeignServers", json!("Fail"))
    };
    assert_eq!(refused(request()).reason, reasons::FOREIGN_SERVER_UNMATCHED);
    let kept = request().with("unmatchedForeignServers", json!("Keep"));
    assert_eq!(refused(kept).reason, reasons::CREDENTIALS_NEEDED);
    let mut rules = rule(server, "x");
    rules
        .as_array_mut()
        .expect("rules")
        .push(json!({"match": {"name": "nobody"}}));
    assert_eq!(
        refused(request().with("foreignServers", rules)).reason,
        reasons::FOREIGN_SERVER_RULE_UNUSED
    );
    let mut rules = rule(server, "x");
    rules
        .as_array_mut()
        .expect("rules")
        .push(json!({"match": {"wrapper": "postgres_fdw"}}));
    assert_eq!(
        refused(request().with("foreignServers", rules)).reason,
        reasons::FOREIGN_SERVER_RULES_OVERLAP
    );
    let mut rules = rule(server, "x");
    rules[0]["userMappings"][1] =
        json!({"localUser": "PUBLIC", "secretRef": {"name": "staging"}, "renameTo": "nobody_there"});
    let unknown = refused(request().with("foreignServers", rules));
    assert_eq!(unknown.reason, reasons::ROLE_MISSING);
    assert!(unknown.message.contains("nobody_there"), "{unknown:?}");
}

#[test]
fn subscriptions_are_dropped_or_given_their_connection_and_a_failure_shows_no_secret() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_plain();
    source.psql(
        "CREATE SUBSCRIPTION feed CONNECTION 'host=nowhere.invalid password=canary:feed' PUBLICATION p \
         WITH (connect = false, slot_name = 'feed')",
    );
    let snapshot = Snapshot::stripped(&source);
    let target = server.reserve_database("subscribed");
    let needed = Request::into(&snapshot, &target)
        .with("subscriptions", json!({"drop": false}))
        .fail();
    assert_eq!(needed.refusal.reason, reasons::CREDENTIALS_NEEDED, "{needed:?}");
    let conninfo = "host=staging.invalid password='canary:st\\'aging'";
    Request::into(&snapshot, &target)
        .secret("feed", &json!({ "conninfo": conninfo }))
        .with("subscriptions", json!({"connections": {"feed": {"name": "feed"}}}))
        .succeed();
    let sql = "SELECT subconninfo, subenabled FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = current_database()";
    assert_eq!(target.psql(sql), format!("{conninfo}|f"));
    let dropped = server.reserve_database("dropped");
    Request::into(&snapshot, &dropped).succeed();
    assert_eq!(dropped.psql(sql), "");
}

#[test]
fn a_statement_with_a_credential_that_fails_does_not_show_it() {
    let server = PostgresServer::shared(17);
    let source = source(server);
    let target = server.reserve_database("failing");
    // postgres_fdw refuses an option that it does not know; the statement holds the password.
    let failed = Request::into(&Snapshot::stripped(&source), &target)
        .secret(
            "staging",
            &json!({"user": "u", "password": "canary:it's \\ \"shown\"", "unheard_of": "canary:x"}),
        )
        .with("foreignServers", rule(server, "x"))
        .fail();
    assert_eq!(failed.step.as_deref(), Some("pre-data"), "{failed:?}");
    assert!(failed.refusal.sqlstate.is_some(), "{failed:?}");
    let shown = format!("{failed:?}");
    assert!(!shown.contains(CANARY), "{shown}");
    assert!(!target.exists());
}

#[test]
fn a_connection_string_that_cannot_be_read_is_refused_without_being_shown() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("source");
    source.load_plain();
    source.psql(
        "CREATE SUBSCRIPTION feed CONNECTION 'host=nowhere.invalid' PUBLICATION p WITH (connect = false, slot_name = 'feed')",
    );
    let snapshot = Snapshot::of(&source);
    let target = server.reserve_database("unreadable");
    // PostgreSQL says: missing "=" after "canary:with" in connection info string.
    for conninfo in [
        "host=staging.invalid password=my canary:with spaces",
        "postgresql://u:p@h/d?canary:odd",
    ] {
        let failed = Request::into(&snapshot, &target)
            .secret("feed", &json!({ "conninfo": conninfo }))
            .with("subscriptions", json!({"connections": {"feed": {"name": "feed"}}}))
            .fail();
        let shown = format!("{failed:?}");
        assert!(!shown.contains(CANARY), "{shown}");
        assert_eq!(failed.refusal.reason, reasons::INVALID_SPEC, "{shown}");
        assert_eq!(failed.refusal.object.as_deref(), Some("Secret/feed"));
        assert!(!target.exists());
    }
}

#[test]
fn a_value_of_a_secret_that_postgres_quotes_in_its_error_is_not_shown() {
    let server = PostgresServer::shared(17);
    let source = source(server);
    let target = server.reserve_database("quoted");
    let mut rules = rule(server, "x");
    rules[0]["options"] = json!({"secretRef": {"name": "options"}});
    // invalid value for integer option "fetch_size": canary:many
    let failed = Request::into(&Snapshot::stripped(&source), &target)
        .secret("staging", &json!({"user": "u", "password": "canary:p"}))
        .secret("options", &json!({"fetch_size": "canary:many"}))
        .with("foreignServers", rules)
        .fail();
    assert_eq!(failed.step.as_deref(), Some("pre-data"), "{failed:?}");
    let shown = format!("{failed:?}");
    assert!(shown.contains("fetch_size") && !shown.contains(CANARY), "{shown}");
}
