//! What the manifest says about a server and its databases, on every version, and for a role with few privileges.

use pgrescue::postgres::catalog;
use pgrescue::postgres::connection::Session;
use pgrescue::postgres::foreign::LocalUser;
use pgrescue::store::manifest::{DatabaseManifest, Omission, Persistence, RelationKind, RelationManifest};

use crate::fixtures::CANARY;
use crate::parts::{MAJORS, PostgresServer};
use crate::reach::{connect, plan, secrets, session};

async fn read(session: &Session) -> (DatabaseManifest, Vec<Omission>) {
    session
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .expect("a transaction");
    let read = catalog::read_database(session)
        .await
        .expect("the catalogs are readable");
    // The transaction lives on, whatever could not be read.
    session
        .batch_execute("SELECT 1; COMMIT")
        .await
        .expect("the transaction is alive");
    read
}

fn relation<'a>(database: &'a DatabaseManifest, name: &str) -> &'a RelationManifest {
    database
        .relations
        .iter()
        .find(|relation| relation.name == name)
        .unwrap_or_else(|| panic!("no relation {name:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_object_of_every_version_is_described_and_no_secret_with_it() {
    for major in MAJORS {
        let server = PostgresServer::shared(major);
        let database = server.create_database("described \"by\" its.catalogs");
        database.load_everything();
        let session = session(server, &database.name).await;
        let (manifest, omissions) = read(&session).await;
        assert_eq!(omissions, vec![], "{major}");
        assert_eq!(
            (manifest.name.as_str(), manifest.owner.is_empty()),
            (database.name.as_str(), false)
        );
        let text = serde_json::to_string(&manifest).expect("JSON");
        assert!(
            !text.contains(CANARY),
            "{major}: {}",
            &text[text.find(CANARY).unwrap_or(0).saturating_sub(200)..][..300]
        );

        let expected = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                        WHERE relkind IN ('r','p','v','m','S','f','c') AND nspname !~ '^pg_' AND nspname <> 'information_schema'";
        assert_eq!(manifest.relations.len().to_string(), database.psql(expected), "{major}");
        let columns = "SELECT count(*) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace \
                       WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r','p','v','m','f','c') AND nspname !~ '^pg_' AND nspname <> 'information_schema'";
        let found: usize = manifest.relations.iter().map(|relation| relation.columns.len()).sum();
        assert_eq!(found.to_string(), database.psql(columns), "{major}");
        for kind in [
            RelationKind::Table,
            RelationKind::PartitionedTable,
            RelationKind::View,
            RelationKind::MaterializedView,
            RelationKind::Sequence,
            RelationKind::ForeignTable,
            RelationKind::CompositeType,
        ] {
            assert!(
                manifest.relations.iter().any(|relation| relation.kind == kind),
                "{major}: {kind:?}"
            );
        }
        let any = |test: &dyn Fn(&RelationManifest) -> bool| manifest.relations.iter().any(test);
        assert!(
            any(&|relation| relation.persistence == Persistence::Unlogged),
            "{major}"
        );
        assert!(any(&|relation| relation.force_row_security), "{major}");
        assert!(
            any(&|relation| relation.columns.iter().any(|column| column.generated.is_some())),
            "{major}"
        );
        assert!(
            any(&|relation| relation.columns.iter().any(|column| column.identity.is_some())),
            "{major}"
        );
        assert!(
            any(&|relation| relation
                .partitioning
                .as_ref()
                .is_some_and(|part| part.parent_name.is_some() && part.bounds.is_some())),
            "{major}"
        );
        assert!(
            any(&|relation| relation.partitioning.as_ref().is_some_and(|part| part.key.is_some())),
            "{major}"
        );
        assert!(any(&|relation| !relation.inherits.is_empty()), "{major}");
        assert!(
            any(&|relation| relation
                .constraints
                .iter()
                .any(|constraint| constraint.kind == "FOREIGN KEY")),
            "{major}"
        );
        assert!(
            any(&|relation| relation
                .indexes
                .iter()
                .any(|index| index.definition.starts_with("CREATE UNIQUE INDEX"))),
            "{major}"
        );
        assert!(any(&|relation| relation.total_bytes > Some(0)), "{major}");
        assert!(any(&|relation| relation.extension.is_some()), "{major}");
        assert!(
            manifest
                .extensions
                .iter()
                .any(|extension| extension.name == "postgres_fdw" && !extension.version.is_empty())
        );
        assert!(manifest.schemas.iter().any(|schema| schema.name == "remote"), "{major}");
        assert!(
            manifest.grants.is_some() && !manifest.settings.is_empty() && manifest.comment.is_some(),
            "{major}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_servers_are_listed_with_what_is_no_secret() {
    let server = PostgresServer::shared(17);
    let database = server.create_database("foreign");
    server.load_roles();
    database.load_foreign_servers(server.port, "postgres");
    let (manifest, _) = read(&session(server, &database.name).await).await;
    let billing = manifest
        .foreign_servers
        .iter()
        .find(|server| server.name == "billing_remote")
        .expect("it is there");
    assert_eq!(
        (
            billing.wrapper.as_str(),
            billing.owner.as_str(),
            billing.version.as_deref()
        ),
        ("postgres_fdw", "fixture_owner", Some("17"))
    );
    assert_eq!(billing.options["host"].as_deref(), Some("127.0.0.1"));
    let public = &billing.user_mappings[0];
    assert_eq!(public.user, LocalUser::Public);
    let options = public.options.as_ref().expect("visible to a superuser");
    assert_eq!(
        (options["user"].as_deref(), options["password"].as_ref()),
        (Some("everyone"), None)
    );
    let without = billing.user_mappings.iter().find(|mapping| {
        mapping
            .options
            .as_ref()
            .is_some_and(std::collections::BTreeMap::is_empty)
    });
    assert!(
        without.is_some(),
        "a mapping without options is not an unknown one: {billing:?}"
    );
    let odd = manifest
        .foreign_servers
        .iter()
        .find(|server| server.name == "odd_remote")
        .expect("it is there");
    assert!(
        odd.options.contains_key("secret_token") && odd.options.values().all(Option::is_none),
        "{odd:?}"
    );
    let invoice = relation(&manifest, "invoice")
        .foreign_table
        .as_ref()
        .expect("a foreign table");
    assert_eq!(
        (invoice.server.as_str(), invoice.options["table_name"].as_deref()),
        ("billing_remote", Some("invoice"))
    );
    assert_eq!(invoice.column_options["id"]["column_name"].as_deref(), Some("id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_few_privileges_gets_a_manifest_that_says_what_it_lacks() {
    for major in [12, 18] {
        let server = PostgresServer::shared(major);
        let database = server.create_database("poor");
        server.load_roles();
        database.load_foreign_servers(server.port, "postgres");
        server.psql("postgres", "DO $$BEGIN CREATE ROLE catalog_reader LOGIN PASSWORD 'pw'; EXCEPTION WHEN duplicate_object THEN NULL; END$$");
        let port = server.port.to_string();
        let references = secrets(&[(
            "db",
            &[
                ("host", "127.0.0.1"),
                ("port", &port),
                ("user", "catalog_reader"),
                ("password", "pw"),
                ("dbname", &database.name),
            ],
        )]);
        let session = connect(&plan(server), &references).await.expect("it may connect");
        let (manifest, _) = read(&session).await;
        let billing = manifest
            .foreign_servers
            .iter()
            .find(|server| server.name == "billing_remote")
            .expect("it is there");
        // Whether they have options cannot be known.
        assert!(
            billing.user_mappings.iter().all(|mapping| mapping.options.is_none()),
            "{billing:?}"
        );
        session.batch_execute("BEGIN").await.expect("a transaction");
        let server = catalog::read_server(&session).await.expect("the catalogs are readable");
        session.batch_execute("COMMIT").await.expect("the transaction is alive");
        assert!(
            server
                .omissions
                .iter()
                .any(|omission| omission.field == "server.settings.data_directory"),
            "{:?}",
            server.omissions
        );
        assert!(
            server
                .roles
                .iter()
                .any(|role| role.name == "catalog_reader" && role.login && !role.superuser)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_described_on_every_version() {
    for major in MAJORS {
        let server = PostgresServer::shared(major);
        server.load_roles();
        let session = session(server, "postgres").await;
        session.batch_execute("BEGIN").await.expect("a transaction");
        let found = catalog::read_server(&session).await.expect("the catalogs are readable");
        session.batch_execute("COMMIT").await.expect("the transaction is alive");
        assert_eq!(found.server.major(), major);
        assert_eq!(found.omissions, vec![], "{major}");
        let identifier = server.psql("postgres", "SELECT system_identifier FROM pg_control_system()");
        assert_eq!(found.server.system_identifier.as_deref(), Some(identifier.as_str()));
        for name in [
            "data_directory",
            "TimeZone",
            "max_connections",
            "wal_level",
            "server_encoding",
        ] {
            assert!(
                found.server.settings.contains_key(name),
                "{major}: {name} in {:?}",
                found.server.settings
            );
        }
        assert!(!found.server.in_recovery);
        assert!(
            found
                .tablespaces
                .iter()
                .any(|tablespace| tablespace.name == "pg_default" && tablespace.bytes > Some(0))
        );
        assert!(!found.memberships.is_empty(), "{major}");
        assert!(!serde_json::to_string(&found.roles).expect("JSON").contains("SCRAM"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tables_are_read_by_a_handful_of_queries() {
    let server = PostgresServer::with(16)
        .setting("max_locks_per_transaction", "512")
        .start();
    let database = server.create_database("many");
    database.psql("DO $$BEGIN FOR i IN 1..10000 LOOP EXECUTE format('CREATE TABLE t%s (a int PRIMARY KEY, b text)', i); IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END$$");
    let session = session(&server, &database.name).await;
    let (manifest, omissions) = read(&session).await;
    assert_eq!(omissions, vec![]);
    assert_eq!(manifest.relations.len(), 10_000);
    assert!(
        manifest.relations.iter().all(|relation| relation.columns.len() == 2
            && relation.indexes.len() == 1
            && relation.total_bytes.is_some())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_definitions_are_left_out_rather_than_waited_for() {
    let server = PostgresServer::shared(15);
    let database = server.create_database("locked");
    database.load_plain();
    let holder = session(server, &database.name).await;
    holder
        .batch_execute("BEGIN; LOCK TABLE customer IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("a lock");
    let (manifest, omissions) = read(&session(server, &database.name).await).await;
    let fields: Vec<&str> = omissions.iter().map(|omission| omission.field.as_str()).collect();
    assert!(fields.contains(&"databases.relations.totalBytes"), "{fields:?}");
    assert!(!fields.contains(&"databases.relations.columns"), "{fields:?}");
    assert!(!relation(&manifest, "customer").columns.is_empty());
}
