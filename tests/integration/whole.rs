//! Backups by pgrescue, restored by pgrescue, as users do it: every version onto itself and upward, with credentials
//! stripped on the way and given back from Secrets.

use std::collections::BTreeMap;

use pgrescue::api::conditions::DATA_VERIFIED;
use pgrescue::plan::report::Outcome;
use pgrescue::plan::restore::SnapshotSource;
use serde_json::{Value, json};

use crate::backup::{self, Objects, in_bucket, new_bucket};
use crate::foreign_rewrite::{mappings_of, servers_of};
use crate::parts::{Database, PostgresServer, Schema};
use crate::restore::{self, runtime};

/// Where the restore of a backup request finds its snapshot.
pub fn source_of(request: &backup::Request, database: &str, manifest_sha256: &str) -> SnapshotSource {
    SnapshotSource {
        storage: request.plan.storage.clone(),
        snapshot: Some(request.snapshot()),
        backup_namespace: request.plan.run.namespace.clone(),
        backup_name: request.plan.run.name.clone(),
        manifest_sha256: Some(manifest_sha256.to_owned()),
        database: Some(database.to_owned()),
        identity: None,
    }
}

/// A rule for every foreign server, and Secrets with all options of servers, wrappers and user mappings as the source
/// has them: a restore by them gives back exactly what was stripped.
fn credentials_of(source: &Database<'_>) -> (Value, BTreeMap<String, Value>) {
    let servers: Value = serde_json::from_str(&source.psql(
        "SELECT json_agg(json_build_object('name', srvname, 'wrapper', fdwname, \
             'options', (SELECT coalesce(json_object_agg(option_name, option_value), '{}') FROM pg_options_to_table(srvoptions)), \
             'wrapperOptions', (SELECT coalesce(json_object_agg(option_name, option_value), '{}') FROM pg_options_to_table(fdwoptions)), \
             'mappings', (SELECT coalesce(json_object_agg(CASE WHEN umuser = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(umuser) END, \
                 (SELECT coalesce(json_object_agg(option_name, option_value), '{}') FROM pg_options_to_table(umoptions))), '{}') \
                 FROM pg_user_mapping WHERE umserver = s.oid))) \
         FROM pg_foreign_server s JOIN pg_foreign_data_wrapper f ON f.oid = srvfdw \
         WHERE NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_foreign_server'::regclass AND objid = s.oid AND deptype = 'e')",
    ))
    .expect("JSON");
    let mut rules = Vec::new();
    let mut secrets = BTreeMap::new();
    let mut secret = |options: &Value| {
        let name = format!("secret-{}", secrets.len());
        secrets.insert(name.clone(), options.clone());
        json!({ "name": name })
    };
    for server in servers.as_array().expect("servers") {
        let mut rule = json!({
            "match": {"name": server["name"]},
            "options": {"secretRef": secret(&server["options"])},
            "userMappings": [],
        });
        let mappings = server["mappings"].as_object().expect("mappings").iter();
        rule["userMappings"] = mappings
            .map(|(user, options)| json!({"localUser": user, "secretRef": secret(options)}))
            .collect();
        if server["wrapperOptions"] != json!({}) {
            rule["wrapperOptions"] = json!({"secretRef": secret(&server["wrapperOptions"])});
        }
        rules.push(rule);
    }
    (Value::Array(rules), secrets)
}

/// Definitions without those whose options may stand in another order; these are compared by catalog.
fn without_foreign(schema: Schema) -> Schema {
    let foreign =
        ["SERVER", "USER MAPPING", "FOREIGN DATA WRAPPER", "SUBSCRIPTION"].map(|kind| format!("; Type: {kind};"));
    let entries = schema.0.into_iter();
    Schema(
        entries
            .filter(|(name, _)| {
                foreign.iter().all(|kind| !name.contains(kind)) && !name.starts_with("Name: SUBSCRIPTION ")
            })
            .collect(),
    )
}

/// The one subscription of the fixtures, as the catalog has it.
fn subscription(database: &Database<'_>) -> Value {
    let sql = "SELECT json_build_object('name', subname, 'connection', subconninfo, 'publications', subpublications, \
                   'enabled', subenabled, 'slot', subslotname, 'commit', subsynccommit, 'owner', pg_get_userbyid(subowner), \
                   'comment', obj_description(s.oid, 'pg_subscription')) \
               FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = current_database()";
    serde_json::from_str(&database.psql(sql)).expect("one subscription")
}

/// Backs a database of everything up, and restores it onto every version of `to`.
fn everything_is_carried(from: u32, to: &[u32]) {
    let server = PostgresServer::shared(from);
    let source = server.create_database("whole \"x\".y");
    source.load_everything();
    let bucket = new_bucket();
    let backup = backup::request(
        &source,
        in_bucket(&bucket),
        json!({"unloggedTableData": "Include", "dataFormat": "Chunks"}),
    );
    let ended = runtime().block_on(backup.run());
    let artifact = ended.artifact();
    let (rules, secrets) = credentials_of(&source);
    let content = source.content();
    let schema = without_foreign(source.schema());
    let objects = Objects::of_bucket(&bucket);
    for major in to {
        let server = PostgresServer::shared(*major);
        server.load_roles();
        let target = server.reserve_database("whole 'it''s'");
        let from_bucket = source_of(&backup, &source.name, &artifact.manifest_sha256);
        let mut request = restore::Request::of(from_bucket, server.port, &target.name)
            .secret("s3", &backup::s3_keys())
            .secret("feed", &json!({ "conninfo": subscription(&source)["connection"] }))
            .with(
                "subscriptions",
                json!({"connections": {"odd \"subscription\"": {"name": "feed"}}}),
            )
            .with("foreignServers", rules.clone())
            .with("unmatchedForeignServers", json!("Fail"))
            .with("jobs", json!(3));
        for (name, keys) in &secrets {
            request = request.secret(name, keys);
        }
        let finished = request.succeed();
        assert_eq!(finished.done.outcome, Outcome::Succeeded);
        assert_eq!(finished.condition(DATA_VERIFIED), Some(true));
        content.assert_same(&target.content());
        assert_eq!(servers_of(&source), servers_of(&target));
        assert_eq!(mappings_of(&source), mappings_of(&target));
        let expected = if *major == from {
            schema.clone()
        } else {
            // Each version says the same in its own words: what stock pg_restore makes of the archive there.
            let stock = server.create_database_with("whole_stock", "TEMPLATE template0");
            let client = if *major <= 16 { 16 } else { *major };
            objects.restore(
                &backup.snapshot(),
                &source.name,
                &stock,
                client,
                &["--no-subscriptions"],
            );
            without_foreign(stock.schema())
        };
        expected.assert_same(&without_foreign(target.schema()));
        assert_eq!(subscription(&source), subscription(&target));
        assert_eq!(source.properties(), target.properties(), "onto {major}");
    }
}

macro_rules! upward {
    ($($name:ident: $from:expr => $to:expr;)*) => {$(
        #[test]
        fn $name() {
            everything_is_carried($from, &$to);
        }
    )*};
}

upward! {
    a_backup_of_12_is_restored_onto_12_13_and_18: 12 => [12, 13, 18];
    a_backup_of_13_is_restored_onto_13_14_and_18: 13 => [13, 14, 18];
    a_backup_of_14_is_restored_onto_14_15_and_18: 14 => [14, 15, 18];
    a_backup_of_15_is_restored_onto_15_16_and_18: 15 => [15, 16, 18];
    a_backup_of_16_is_restored_onto_16_17_and_18: 16 => [16, 17, 18];
    a_backup_of_17_is_restored_onto_17_and_18: 17 => [17, 18];
    a_backup_of_18_is_restored_onto_18: 18 => [18];
}
