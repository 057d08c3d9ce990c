//! Owners, grants, policies and roles: kept, left out, mapped, made.

use serde_json::json;

use super::snapshot::Snapshot;
use super::{Request, limited_role};
use crate::parts::{Database, PostgresServer};

/// A database whose objects belong to roles of its own server.
fn with_roles<'a>(server: &'a PostgresServer, prefix: &str) -> Database<'a> {
    let source = server.create_database("source");
    source.psql(&format!(
        "CREATE ROLE {prefix}_owner LOGIN PASSWORD 'canary:made' CONNECTION LIMIT 7; CREATE ROLE {prefix}_reader NOINHERIT; \
         CREATE ROLE {prefix}_group; GRANT {prefix}_group TO {prefix}_owner WITH ADMIN OPTION; \
         COMMENT ON ROLE {prefix}_reader IS 'reads'; \
         CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2); ALTER TABLE t OWNER TO {prefix}_owner; \
         GRANT SELECT ON t TO {prefix}_reader; \
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t TO {prefix}_reader USING (id = 1); \
         ALTER DEFAULT PRIVILEGES FOR ROLE {prefix}_owner GRANT SELECT ON TABLES TO {prefix}_reader; \
         ALTER ROLE {prefix}_reader IN DATABASE \"{}\" SET work_mem = '7MB'",
        source.name
    ));
    source
}

const OWNER: &str = "SELECT tableowner FROM pg_tables WHERE tablename = 't'";
const GRANTS: &str = "SELECT coalesce(string_agg(acl::text, ' ' ORDER BY acl::text), '') FROM pg_class, unnest(relacl) acl WHERE relname = 't'";
const POLICY: &str = "SELECT roles::text FROM pg_policies";
const DEFAULTS: &str = "SELECT coalesce(string_agg(defaclacl::text, ' '), '') FROM pg_default_acl";

#[test]
fn missing_roles_are_made_with_attributes_memberships_and_verifiers() {
    let from = PostgresServer::start(17);
    let source = with_roles(&from, "made");
    let to = PostgresServer::start(17);
    let target = to.reserve_database("made");
    Request::into(&Snapshot::of(&source), &target)
        .with("globals", json!("Missing"))
        .succeed();
    assert_eq!(target.psql(OWNER), "made_owner");
    assert_eq!(target.psql(GRANTS), source.psql(GRANTS));
    let attributes = "SELECT rolname, rolcanlogin, rolinherit, rolconnlimit, rolpassword, shobj_description(oid, 'pg_authid') \
                      FROM pg_authid WHERE rolname LIKE 'made%' ORDER BY 1";
    assert_eq!(target.psql(attributes), source.psql(attributes));
    let members = "SELECT roleid::regrole, member::regrole, admin_option FROM pg_auth_members WHERE roleid >= 16384";
    assert_eq!(target.psql(members), source.psql(members));
    assert_eq!(target.properties().settings, source.properties().settings);
}

#[test]
fn roles_that_were_made_go_again_when_the_restore_fails() {
    let from = PostgresServer::start(16);
    let source = with_roles(&from, "undone");
    source.psql(
        "CREATE FUNCTION wrong() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; CREATE INDEX broken ON t ((id / wrong())); \
         CREATE OR REPLACE FUNCTION wrong() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0'",
    );
    let to = PostgresServer::start(17);
    let target = to.reserve_database("undone");
    let failed = Request::into(&Snapshot::of(&source), &target)
        .with("globals", json!("Missing"))
        .fail();
    assert_eq!(failed.step.as_deref(), Some("indexes"), "{failed:?}");
    assert!(failed.refusal.message.contains("\"undone_owner\""), "{failed:?}");
    assert!(!target.exists());
    assert_eq!(
        to.psql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'undone%'"),
        "0"
    );
}

#[test]
fn an_existing_role_is_never_changed() {
    let from = PostgresServer::start(16);
    let source = with_roles(&from, "kept");
    let to = PostgresServer::start(17);
    to.psql(
        "postgres",
        "CREATE ROLE kept_owner NOLOGIN CONNECTION LIMIT 3; CREATE ROLE kept_group",
    );
    let target = to.reserve_database("kept");
    Request::into(&Snapshot::of(&source), &target)
        .with("globals", json!("Missing"))
        .succeed();
    let sql = "SELECT rolcanlogin, rolconnlimit FROM pg_roles WHERE rolname = 'kept_owner'";
    assert_eq!(to.psql("postgres", sql), "f|3");
    let members = "SELECT count(*) FROM pg_auth_members WHERE roleid >= 16384";
    assert_eq!(to.psql("postgres", members), "0");
}

#[test]
fn roles_are_mapped_in_owners_grants_policies_and_default_privileges() {
    let server = PostgresServer::start(17);
    let source = with_roles(&server, "old");
    server.psql("postgres", "CREATE ROLE \"new owner\"; CREATE ROLE new_reader");
    let target = server.reserve_database("mapped");
    Request::into(&Snapshot::of(&source), &target)
        .with(
            "roleMapping",
            json!({"old_owner": "new owner", "old_reader": "new_reader"}),
        )
        .succeed();
    assert_eq!(target.psql(OWNER), "new owner");
    assert_eq!(target.psql(POLICY), "{new_reader}");
    for text in [target.psql(GRANTS), target.psql(DEFAULTS)] {
        assert!(
            text.contains("new_reader=r/\"new owner\"") || text.contains("new_reader=r/\\\"new owner"),
            "{text}"
        );
        assert!(!text.contains("old_"), "{text}");
    }
    assert_eq!(target.properties().settings, ["new_reader: work_mem=7MB"]);
}

#[test]
fn owners_and_grants_are_left_out_for_a_role_without_rights() {
    let from = PostgresServer::start(16);
    let source = with_roles(&from, "left");
    source.psql("DROP POLICY p ON t");
    let to = PostgresServer::start(17);
    limited_role(&to, "restorer");
    let target = to.reserve_database("left");
    let request = Request::into(&Snapshot::of(&source), &target).logged_in_as("restorer");
    request
        .with("noOwner", json!(true))
        .with("noPrivileges", json!(true))
        .succeed();
    assert_eq!(target.psql(OWNER), "restorer");
    assert_eq!(target.psql(GRANTS), "");
    assert_eq!(target.psql(DEFAULTS), "");
    assert_eq!(target.properties().owner, "restorer");
    assert_eq!(target.psql("SELECT count(*) FROM t"), "2");
}

#[test]
fn a_role_that_may_make_roles_restores_with_their_owners() {
    for major in [15, 17] {
        let from = PostgresServer::start(15);
        let source = with_roles(&from, "delegated");
        // An owner must be allowed to create in the schema, which in public only the database's owner is.
        source.psql("CREATE SCHEMA own AUTHORIZATION delegated_owner; ALTER TABLE t SET SCHEMA own");
        let to = PostgresServer::start(major);
        limited_role(&to, "restorer");
        to.psql("postgres", "ALTER ROLE restorer CREATEROLE");
        let target = to.reserve_database("delegated");
        Request::into(&Snapshot::of(&source), &target)
            .logged_in_as("restorer")
            .with("globals", json!("Missing"))
            .with("roleMapping", json!({"postgres": "restorer"}))
            .succeed();
        assert_eq!(target.psql(OWNER), "delegated_owner");
        let member = "SELECT count(*) FROM pg_auth_members WHERE member = 'restorer'::regrole AND NOT admin_option";
        assert_eq!(to.psql("postgres", member), "0", "on {major}");
    }
}
