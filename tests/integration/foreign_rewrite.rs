//! Foreign servers of real archives: stripped, rewritten, restored by stock `pg_restore`, and compared by catalog.

mod each_rule;

use std::collections::{BTreeMap, BTreeSet};

use pgrescue::api::foreign_servers::{ForeignServerRule, UnmatchedForeignServers};
use pgrescue::postgres::archive::{Toc, TocEntry};
use pgrescue::postgres::foreign::{
    CredentialHolder, ForeignRewriteRequest, StrippedCredential, inventory, plain_credentials, rewrite,
    strip_credentials,
};
use secrecy::SecretString;
use serde_json::json;

use crate::archive::{dump, read, restore_from_memory, restore_from_stdin};
use crate::fixtures::CANARY;
use crate::parts::{Database, PASSWORD, PostgresServer, SUPERUSER};

pub type Options = BTreeMap<String, String>;
type Secrets = BTreeMap<String, BTreeMap<String, SecretString>>;

const NASTY: &str = "canary:it''s 'q' \"a\" \\back\\slash\\'; $1 $$ $x$ -- x\n/* */ newline\ttab é☃ E'\\047'";
const ODD_SERVER: &str = "odd.server \"name\" SERVER x";
const ODD_ROLE: &str = "fixture \"rôle\" \\ with.all 'of it'";
const NEWLINE_ROLE: &str = "fixture\nnewline; DROP ROLE fixture_reader; --";

/// Servers with their options, as the catalog has them.
pub fn servers_of(database: &Database<'_>) -> BTreeMap<String, Options> {
    parsed(&database.psql(
        "SELECT json_object_agg(srvname, (SELECT coalesce(json_object_agg(option_name, option_value), '{}') \
             FROM pg_options_to_table(srvoptions))) FROM pg_foreign_server",
    ))
}

/// User mappings with their options, by `role@server`.
pub fn mappings_of(database: &Database<'_>) -> BTreeMap<String, Options> {
    parsed(&database.psql(
        "SELECT json_object_agg(usename || '@' || srvname, (SELECT coalesce(json_object_agg(option_name, option_value), \
             '{}') FROM pg_options_to_table(umoptions))) FROM pg_user_mappings",
    ))
}

/// What no rule touches: owners, grants, comments, wrappers, and the options of tables and columns.
fn surroundings(database: &Database<'_>) -> String {
    database.psql(
        "SELECT srvname, fdwname, srvtype, srvversion, pg_get_userbyid(srvowner), srvacl, obj_description(s.oid, 'pg_foreign_server') \
             FROM pg_foreign_server s JOIN pg_foreign_data_wrapper f ON f.oid = srvfdw ORDER BY 1;\n\
         SELECT fdwname, pg_get_userbyid(fdwowner), fdwacl, obj_description(oid, 'pg_foreign_data_wrapper') \
             FROM pg_foreign_data_wrapper ORDER BY 1;\n\
         SELECT ftrelid::regclass::text, srvname, (SELECT array_agg(o ORDER BY o) FROM unnest(ftoptions) o), pg_get_userbyid(relowner), relacl, obj_description(ftrelid) \
             FROM pg_foreign_table JOIN pg_class c ON c.oid = ftrelid JOIN pg_foreign_server s ON s.oid = ftserver ORDER BY 1;\n\
         SELECT attrelid::regclass::text, attname, (SELECT array_agg(o ORDER BY o) FROM unnest(attfdwoptions) o), format_type(atttypid, atttypmod), attnotnull \
             FROM pg_attribute JOIN pg_foreign_table ON ftrelid = attrelid WHERE attnum > 0 ORDER BY 1, attnum",
    )
}

fn parsed<T: serde::de::DeserializeOwned>(line: &str) -> T {
    serde_json::from_str(line).expect("the catalog answers in JSON")
}

fn options(pairs: &[(&str, &str)]) -> Options {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn secret(pairs: &[(&str, &str)]) -> BTreeMap<String, SecretString> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), SecretString::from(*value)))
        .collect()
}

fn roles_of(server: &PostgresServer) -> BTreeSet<String> {
    parsed(&server.psql("postgres", "SELECT json_agg(rolname) FROM pg_roles"))
}

fn rules(value: serde_json::Value) -> Vec<ForeignServerRule> {
    serde_json::from_value(value).expect("rules")
}

/// Rules for every server of the fixtures.
fn all_rules(source: &Database<'_>) -> Vec<ForeignServerRule> {
    rules(json!([
        {
            "match": {"name": "billing_remote"},
            "options": {
                "set": {"host": "127.0.0.1", "port": source.server.port.to_string(), "dbname": source.name},
                "drop": ["extensions", "not there"],
            },
            "userMappings": [
                {"localUser": SUPERUSER, "secretRef": {"name": "working"}},
                {"localUser": "fixture_owner", "secretRef": {"name": "nasty"}},
                {"localUser": "PUBLIC", "drop": true},
                {"localUser": ODD_ROLE, "renameTo": NEWLINE_ROLE, "keep": true},
                {"localUser": "fixture_reader", "drop": true},
            ],
        },
        {
            "match": {"name": ODD_SERVER},
            "userMappings": [
                {"localUser": "fixture_owner", "secretRef": {"name": "nasty"}, "renameTo": ODD_ROLE},
                {"localUser": NEWLINE_ROLE, "secretRef": {"name": "nasty"}},
                {"localUser": "PUBLIC", "secretRef": {"name": "empty"}},
                {"localUser": "CURRENT_USER", "secretRef": {"name": "nasty"}},
            ],
        },
        {"match": {"name": "public"}},
        {
            "match": {"wrapper": "dblink_fdw"},
            "userMappings": [{"localUser": SUPERUSER, "secretRef": {"name": "nasty"}}],
        },
        {"match": {"wrapper": "file_fdw"}},
        {
            "match": {"wrapper": "odd wrapper.v2"},
            "options": {"secretRef": {"name": "odd server"}, "drop": ["odd \" option"]},
            "userMappings": [{"localUser": "fixture_reader", "secretRef": {"name": "odd mapping"}}],
            "wrapperOptions": {"secretRef": {"name": "odd wrapper"}, "drop": ["debug"]},
        },
    ]))
}

fn all_secrets() -> Secrets {
    let nasty = secret(&[("user", "o'brien \\ \"x\""), ("password", NASTY)]);
    BTreeMap::from([
        ("working".into(), secret(&[("user", SUPERUSER), ("password", PASSWORD)])),
        ("nasty".into(), nasty),
        ("empty".into(), BTreeMap::new()),
        (
            "odd server".into(),
            secret(&[("secret_token", NASTY), ("url", "https://staging/"), ("more", "")]),
        ),
        (
            "odd mapping".into(),
            secret(&[("pass word", NASTY), ("user name", "y")]),
        ),
        ("odd wrapper".into(), secret(&[("api key", NASTY)])),
    ])
}

struct Inputs {
    rules: Vec<ForeignServerRule>,
    unmatched: UnmatchedForeignServers,
    secrets: Secrets,
    stripped: Vec<StrippedCredential>,
    role_mapping: BTreeMap<String, String>,
    target_roles: BTreeSet<String>,
    connections: BTreeMap<String, SecretString>,
}

impl Inputs {
    fn request(&self) -> ForeignRewriteRequest<'_> {
        ForeignRewriteRequest {
            rules: &self.rules,
            unmatched: self.unmatched,
            secrets: &self.secrets,
            stripped: &self.stripped,
            role_mapping: &self.role_mapping,
            target_roles: &self.target_roles,
            drop_subscriptions: false,
            subscription_connections: &self.connections,
        }
    }
}

fn inputs(source: &Database<'_>, stripped: Vec<StrippedCredential>) -> Inputs {
    Inputs {
        rules: all_rules(source),
        unmatched: UnmatchedForeignServers::Fail,
        secrets: all_secrets(),
        stripped,
        role_mapping: BTreeMap::new(),
        target_roles: roles_of(source.server),
        connections: BTreeMap::from([(
            "odd \"subscription\"".to_owned(),
            SecretString::from("host=nowhere.invalid password='canary:\\' x'"),
        )]),
    }
}

/// The source with a table for `remote.invoice` to lead to.
fn source_of(server: &PostgresServer) -> Database<'_> {
    let source = server.create_database("foreign_source");
    source.load_everything_for_parallel_pg_restore();
    source.psql(
        "CREATE TABLE public.invoice AS SELECT i AS id, 'c' || i AS customer, i AS amount FROM generate_series(1, 7) i",
    );
    source
}

fn holds_canary(toc: &Toc) -> bool {
    toc.to_bytes()
        .windows(CANARY.len())
        .any(|window| window == CANARY.as_bytes())
}

async fn a_rewritten_archive_is_restored(major: u32) {
    let server = PostgresServer::shared(major);
    let source = source_of(server);
    let (mut toc, data, _) = read(dump(&source, major, &["-E", "UTF8"])).await.expect("whole");
    let stripped = strip_credentials(&mut toc).expect("stock definitions");
    assert_stripped(&toc, &stripped);
    let inputs = inputs(&source, stripped);
    let rewritten = rewrite(&mut toc, &inputs.request()).expect("the rules fit");
    let shown = format!("{rewritten:?} {toc:?} {:?}", inputs.request());
    assert!(!shown.contains(CANARY), "a secret is shown: {shown}");

    let (expected_servers, expected_mappings) = expected(&source);
    let archive = [toc.to_bytes(), data].concat();
    let definitions = toc.without_data().to_bytes();
    for how in ["stdin", "memory", "memory -j4", "sections"] {
        let target = server.create_database_with("foreign_target", "TEMPLATE template0");
        match how {
            "stdin" => restore_from_stdin(&target, major, &[], &archive),
            "memory" => restore_from_memory(&target, major, &[], &archive),
            "memory -j4" => restore_from_memory(&target, major, &["-j4"], &archive),
            _ => {
                restore_from_memory(&target, major, &["--section=pre-data", "-j4"], &definitions);
                restore_from_stdin(&target, major, &["--section=data"], &archive);
                restore_from_memory(&target, major, &["--section=post-data", "-j4"], &definitions);
            }
        }
        assert_eq!(servers_of(&target), expected_servers, "{how}");
        assert_eq!(mappings_of(&target), expected_mappings, "{how}");
        assert_eq!(surroundings(&target), surroundings(&source), "{how}");
        source.content().assert_same(&target.content());
        assert_eq!(
            target.psql("SELECT count(*) FROM remote.invoice"),
            "7",
            "through the rewritten mapping"
        );
        let wrapper = target.psql("SELECT fdwoptions FROM pg_foreign_data_wrapper WHERE fdwname = 'odd wrapper.v2'");
        assert!(
            wrapper.contains("api key=canary") && !wrapper.contains("debug"),
            "{wrapper}"
        );
        let connection = target.psql("SELECT subconninfo FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = current_database()");
        assert_eq!(connection, "host=nowhere.invalid password='canary:\\' x'");
    }
}

fn assert_stripped(toc: &Toc, stripped: &[StrippedCredential]) {
    if holds_canary(toc) {
        let left: Vec<_> = toc
            .entries
            .iter()
            .filter(|entry| {
                entry
                    .definition
                    .as_ref()
                    .is_some_and(|text| text.lossy().contains(CANARY))
            })
            .map(TocEntry::label)
            .collect();
        let warned = plain_credentials(toc);
        for label in &left {
            assert!(
                warned.iter().any(|warning| warning.starts_with(label.as_str())),
                "{label} leaks without a warning"
            );
            assert!(!label.contains("SERVER") && !label.contains("SUBSCRIPTION"), "{label}");
        }
        assert!(warned.iter().all(|warning| !warning.contains(CANARY)));
    }
    let holders: BTreeSet<_> = stripped.iter().map(|it| it.holder.to_string()).collect();
    let server = CredentialHolder::Server {
        name: "odd_remote".into(),
    };
    assert!(holders.contains(&server.to_string()), "{holders:?}");
    assert!(holders.len() >= 10, "{holders:?}");
    let shown = serde_json::to_string(&inventory(toc, &[]).expect("stock definitions").servers).expect("serialisable");
    assert!(!shown.contains(CANARY));
}

fn expected(source: &Database<'_>) -> (BTreeMap<String, Options>, BTreeMap<String, Options>) {
    let mut servers = servers_of(source);
    let billing = servers.get_mut("billing_remote").expect("fixture");
    billing.remove("extensions");
    billing.insert("host".into(), "127.0.0.1".into());
    billing.insert("port".into(), source.server.port.to_string());
    billing.insert("dbname".into(), source.name.clone());
    servers.insert(
        "odd_remote".into(),
        options(&[("secret_token", NASTY), ("url", "https://staging/"), ("more", "")]),
    );
    let nasty = options(&[("user", "o'brien \\ \"x\""), ("password", NASTY)]);
    let mut mappings: BTreeMap<String, Options> = BTreeMap::from([
        (
            "postgres@billing_remote".into(),
            options(&[("user", SUPERUSER), ("password", PASSWORD)]),
        ),
        ("fixture_owner@billing_remote".into(), nasty.clone()),
        (format!("{NEWLINE_ROLE}@billing_remote"), Options::new()),
        (format!("{ODD_ROLE}@{ODD_SERVER}"), nasty.clone()),
        (format!("{NEWLINE_ROLE}@{ODD_SERVER}"), nasty.clone()),
        (format!("public@{ODD_SERVER}"), Options::new()),
        (format!("postgres@{ODD_SERVER}"), nasty.clone()),
        ("postgres@links".into(), nasty),
        (
            "fixture_reader@odd_remote".into(),
            options(&[("pass word", NASTY), ("user name", "y")]),
        ),
    ]);
    if let Some(kept) = mappings_of(source).remove("public@public") {
        mappings.insert("public@public".into(), kept);
    }
    (servers, mappings)
}

macro_rules! on_every_client {
    ($($name:ident: $major:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            a_rewritten_archive_is_restored($major).await;
        }
    )*};
}

on_every_client! {
    stock_pg_restore_14_takes_a_rewritten_archive: 14;
    stock_pg_restore_15_takes_a_rewritten_archive: 15;
    stock_pg_restore_16_takes_a_rewritten_archive: 16;
    stock_pg_restore_17_takes_a_rewritten_archive: 17;
    stock_pg_restore_18_takes_a_rewritten_archive: 18;
}
