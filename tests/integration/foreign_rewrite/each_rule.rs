//! What a rule does to a server, a mapping or a role, each by itself.

use std::collections::BTreeMap;

use pgrescue::api::foreign_servers::UnmatchedForeignServers;
use pgrescue::api::reasons;
use pgrescue::postgres::foreign::{mappings_without_options, rewrite};
use serde_json::json;

use super::{ODD_SERVER, inputs, mappings_of, roles_of, rules, servers_of, source_of};
use crate::archive::{dump, read, restore_from_stdin};
use crate::parts::PostgresServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_on_one_host_only_the_one_that_a_rule_names_moves() {
    let server = PostgresServer::shared(17);
    let source = source_of(server);
    let (mut toc, data, _) = read(dump(&source, 17, &[])).await.expect("whole");
    let mut inputs = inputs(&source, Vec::new());
    inputs.rules = rules(json!([{"match": {"name": ODD_SERVER}, "options": {"set": {"host": "staging.invalid"}}}]));
    inputs.unmatched = UnmatchedForeignServers::Keep;
    inputs.connections.clear();
    rewrite(&mut toc, &inputs.request()).expect("the rule fits");
    let target = server.create_database_with("foreign_target", "TEMPLATE template0");
    restore_from_stdin(&target, 17, &[], &[toc.to_bytes(), data].concat());
    let mut expected = servers_of(&source);
    expected
        .get_mut(ODD_SERVER)
        .expect("fixture")
        .insert("host".into(), "staging.invalid".into());
    assert_eq!(servers_of(&target), expected);
    assert_eq!(mappings_of(&target), mappings_of(&source), "kept, with their passwords");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_server_that_a_view_needs_is_refused_and_without_the_view_it_goes() {
    let server = PostgresServer::shared(16);
    let source = source_of(server);
    let (original, data, _) = read(dump(&source, 16, &[])).await.expect("whole");
    let mut inputs = inputs(&source, Vec::new());
    inputs.rules = Vec::new();
    inputs.unmatched = UnmatchedForeignServers::Drop;
    inputs.connections.clear();
    let mut toc = original.clone();
    let refusal = rewrite(&mut toc, &inputs.request()).expect_err("views stand on a foreign table");
    assert_eq!(refusal.reason, reasons::FOREIGN_SERVER_IN_USE);
    for name in ["VIEW remote.invoice_total", "MATERIALIZED VIEW remote.invoice_copy"] {
        assert!(refusal.message.contains(name), "{}", refusal.message);
    }
    assert_eq!(toc, original);

    source.psql("DROP VIEW remote.invoice_total; DROP MATERIALIZED VIEW remote.invoice_copy");
    drop((toc, data));
    let (mut toc, data, _) = read(dump(&source, 16, &[])).await.expect("whole");
    rewrite(&mut toc, &inputs.request()).expect("nothing stands in the way");
    let target = server.create_database_with("foreign_target", "TEMPLATE template0");
    restore_from_stdin(&target, 16, &[], &[toc.to_bytes(), data].concat());
    let left = target.psql("SELECT srvname FROM pg_foreign_server");
    assert_eq!(
        left, "fixture_extension_server",
        "what an extension brings comes with it"
    );
    assert_eq!(
        target.psql("SELECT count(*) FROM remote.mixed"),
        "50",
        "the near partition stays"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_take_the_place_of_others_everywhere() {
    for major in [15, 18] {
        // The roles of a policy are listed by their age: the new one must be as old as the one whose place it takes.
        let server = &PostgresServer::start(major);
        server.psql("postgres", "CREATE ROLE fixture_mapped");
        let source = source_of(server);
        let (mut toc, data, _) = read(dump(&source, major, &[])).await.expect("whole");
        let mut inputs = inputs(&source, Vec::new());
        inputs.rules = Vec::new();
        inputs.unmatched = UnmatchedForeignServers::Keep;
        inputs.connections.clear();
        inputs.role_mapping = BTreeMap::from([("fixture_owner".into(), "fixture_mapped".into())]);
        inputs.target_roles = roles_of(server);
        rewrite(&mut toc, &inputs.request()).expect("the role exists");
        let target = server.create_database_with("foreign_target", "TEMPLATE template0");
        restore_from_stdin(&target, major, &[], &[toc.to_bytes(), data].concat());
        let mut expected = source.schema();
        expected.0 = expected
            .0
            .into_iter()
            .map(|(name, bodies)| {
                let renamed = |text: String| text.replace("fixture_owner", "fixture_mapped");
                let mut bodies: Vec<_> = bodies.into_iter().map(renamed).collect();
                bodies.sort();
                (renamed(name), bodies)
            })
            .collect();
        expected.assert_same(&target.schema());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapping_whose_options_could_not_be_seen_is_unknown_and_must_be_given() {
    let server = PostgresServer::start(16);
    let source = server.create_database("unseen");
    source.psql(
        "CREATE EXTENSION postgres_fdw; CREATE ROLE far LOGIN PASSWORD 'x'; GRANT pg_read_all_data TO far; \
         CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'h'); CREATE ROLE app; \
         CREATE USER MAPPING FOR app SERVER s OPTIONS (\"user\" 'u', password 'canary:unseen')",
    );
    let mut command = server.client(16, "pg_dump", &source.name);
    command.env("PGUSER", "far").env("PGPASSWORD", "x");
    let output = command.arg("-Fc").output().expect("pg_dump is installed");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "pg_dump says nothing"
    );
    let (mut toc, _, _) = read(output.stdout).await.expect("whole");
    let unknown = mappings_without_options(&toc).expect("stock definitions");
    assert_eq!(unknown.len(), 1);
    let mut inputs = inputs(&source, unknown);
    inputs.connections.clear();
    inputs.unmatched = UnmatchedForeignServers::Keep;
    inputs.rules = rules(json!([{"match": {"name": "s"}}]));
    let refusal = rewrite(&mut toc, &inputs.request()).expect_err("nobody gives the credential");
    assert_eq!(refusal.reason, reasons::CREDENTIALS_NEEDED);
    assert!(refusal.message.contains("user mapping of app"), "{}", refusal.message);
    inputs.rules = rules(json!([{
        "match": {"name": "s"},
        "userMappings": [{"localUser": "app", "secretRef": {"name": "nasty"}}],
    }]));
    rewrite(&mut toc, &inputs.request()).expect("it is given");
}
