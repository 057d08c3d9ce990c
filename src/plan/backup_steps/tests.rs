use std::collections::BTreeMap;

use super::*;
use crate::api::reasons;
use crate::api::status::StepState;
use crate::plan::backup::{self, DatabaseChoice};
use crate::plan::backup_databases::choose_databases;
use crate::plan::backup_findings::{Database, Server};
use crate::plan::storage::Place;
use crate::plan::{Run, RunKind};

/// With the rows in the archive, where `rest` does not say otherwise.
fn planned(rest: &str) -> BackupPlan {
    let run = Run::sample(RunKind::PgBackup);
    let format = if rest.contains("dataFormat") {
        ""
    } else {
        "dataFormat: Custom\n"
    };
    let yaml = format!("connection: {{host: h}}\nstorage: {{s3: {{bucket: b}}}}\n{format}{rest}");
    backup::plan(&serde_saphyr::from_str(&yaml).unwrap(), run, Place::Cluster).unwrap()
}

fn table(schema: &str, name: &str) -> TableName {
    TableName {
        schema: schema.into(),
        name: name.into(),
    }
}

fn contents() -> Contents {
    Contents {
        locked_tables: 10,
        tables_with_data: 10,
        bytes: 1000,
        known: NamesOfPlan {
            schemas: vec!["sales".into()],
            tables: vec![table("sales", "odd \"table\".name")],
        },
        ..Contents::default()
    }
}

fn findings(contents: Contents) -> Findings {
    Findings {
        server: Server {
            location: "h:5432".into(),
            version: "17.5".into(),
            role: "dumper".into(),
            superuser: false,
            pooler: None,
            in_recovery: false,
            reads_role_passwords: true,
            lock_slots: 6400,
        },
        client: Ok(Client {
            major: 17,
            version: "17.5".into(),
        }),
        databases: BTreeMap::from([("orders".to_owned(), contents)]),
    }
}

fn old_client() -> Client {
    Client {
        major: 15,
        version: "15.19".into(),
    }
}

fn refused(rest: &str, change: impl FnOnce(&mut Findings)) -> String {
    let mut findings = findings(contents());
    change(&mut findings);
    decide(&planned(rest), &findings).unwrap_err().sentence()
}

fn change_contents(change: impl FnOnce(&mut Contents)) -> impl FnOnce(&mut Findings) {
    |findings| change(findings.databases.get_mut("orders").unwrap())
}

#[test]
fn the_sentences_of_a_refused_backup_help() {
    let names = |count: usize| (0..count).map(|n| format!("\"s\".\"t{n}\"")).collect::<Vec<_>>();
    let with_old_client = |findings: &mut Findings| findings.client = Ok(old_client());
    insta::assert_snapshot!(
        [
            refused("", |f| f.server.pooler =
                Some(Refusal::permanent(reasons::POOLER_IN_FRONT, "pooled"))),
            refused("", |f| f.client =
                Err(Refusal::permanent(reasons::SERVER_TOO_NEW, "too new"))),
            refused("compression: {method: Lz4}", with_old_client),
            refused("compression: {method: Zstd, level: 3}", with_old_client),
            refused("schemas: {exclude: [gone]}", |_| {}),
            refused("tables: {excludeData: [{schema: sales, name: gone}]}", |_| {}),
            refused("", change_contents(|c| c.closed_schemas = vec!["\"secret\"".into()])),
            refused("", change_contents(|c| c.unreadable_tables = names(1))),
            refused("", change_contents(|c| c.unreadable_tables = names(7))),
            refused("", change_contents(|c| c.unreadable_sequences = names(2))),
            refused("", change_contents(|c| c.unreadable_large_objects = 3)),
            refused("", change_contents(|c| c.row_security = names(1))),
            refused("unloggedTableData: Include", |f| {
                f.server.in_recovery = true;
                f.databases.get_mut("orders").unwrap().unlogged_tables = 1;
            }),
            refused("", change_contents(|c| c.locked_tables = 10_000)),
            refused("schemas: {include: [sales]}", |f| {
                f.databases.insert("billing".into(), Contents::default());
            }),
        ]
        .join("\n")
    );
}

#[test]
fn what_goes_on_with_a_warning_says_so() {
    let warnings = |rest: &str, change: &dyn Fn(&mut Findings)| {
        let mut findings = findings(contents());
        change(&mut findings);
        decide(&planned(rest), &findings).unwrap().warnings.join("\n")
    };
    insta::assert_snapshot!(
        [
            warnings("", &|f| f.server.reads_role_passwords = false),
            warnings("", &|f| f.client = Ok(old_client())),
            warnings("", &|f| f.databases.get_mut("orders").unwrap().locked_tables = 4000),
            warnings("", &|f| f.databases.get_mut("orders").unwrap().subscriptions =
                vec!["feed".into()]),
            warnings("schemas: {include: [sales]}", &|_| {}),
            warnings(
                "tables: {include: [{schema: sales, name: 'odd \"table\".name'}]}",
                &|_| {}
            ),
        ]
        .join("\n")
    );
    let quiet = [
        warnings("", &|_| {}),
        warnings("compression: {method: Gzip}", &|f| f.client = Ok(old_client())),
        warnings("rolePasswords: Omit", &|f| f.server.reads_role_passwords = false),
        warnings("schemaOnly: true", &|f| {
            f.databases.get_mut("orders").unwrap().unreadable_large_objects = 1;
        }),
    ];
    assert_eq!(quiet.concat(), "");
}

#[test]
fn the_steps_read_as_a_plan() {
    let describe = |rest: &str| {
        let steps = decide(&planned(rest), &findings(contents())).unwrap();
        let lines = steps.describe(StepState::Planned).into_iter();
        lines
            .map(|step| format!("{}: {}", step.name, step.description.unwrap()))
            .collect::<Vec<_>>()
            .join("\n")
    };
    insta::assert_snapshot!(
        [
            describe(""),
            describe("dataOnly: true\nforeignCredentials: Keep\ncompression: {method: Gzip}\nrolePasswords: Omit"),
            describe(
                "schemas: {exclude: [sales]}\ncompression: {method: None}\n\
                 tables: {exclude: [{schema: sales, name: 'odd \"table\".name'}]}"
            ),
            describe("dataFormat: Chunks\nparallelism: 1\ncompression: {method: Zstd, level: 3}"),
        ]
        .join("\n\n")
    );
}

#[test]
fn the_hash_tells_of_the_steps_and_not_of_the_moment() {
    let plan = planned("");
    let hash = |change: &dyn Fn(&mut Findings)| {
        let mut findings = findings(contents());
        change(&mut findings);
        decide(&plan, &findings).unwrap().hash()
    };
    let first = hash(&|_| {});
    assert_eq!(
        hash(&|f| f.databases.get_mut("orders").unwrap().locked_tables = 4000),
        first
    );
    let mut later = plan.clone();
    later.run.uid = "another".into();
    let later = decide(&later, &findings(contents())).unwrap();
    assert_eq!(
        later.hash(),
        first,
        "a run elsewhere stores the same under another name"
    );
    assert_ne!(hash(&|f| f.server.reads_role_passwords = false), first);
    assert_ne!(
        hash(&|f| {
            f.databases.insert("billing".into(), contents());
        }),
        first
    );
}

#[test]
fn the_default_compression_is_what_the_client_can_do() {
    let compression = |major| {
        let client = Client {
            major,
            version: major.to_string(),
        };
        let (compression, warning) = super::compression(&planned(""), &client).unwrap();
        (compression.method, warning.is_some())
    };
    assert_eq!(compression(15), (CompressionMethod::Gzip, true));
    assert_eq!(compression(16), (CompressionMethod::Zstd, false));
}

#[test]
fn chunks_are_compressed_by_zstd_whatever_the_client_can_do() {
    let steps = |rest: &str, client: Option<Client>| {
        let mut findings = findings(contents());
        findings.client = client.map_or(findings.client, Ok);
        decide(&planned(rest), &findings).unwrap()
    };
    let level_3 = "dataFormat: Chunks\ncompression: {method: Zstd, level: 3}";
    for client in [None, Some(old_client())] {
        let steps = steps(level_3, client);
        let rows = steps.compression_of_rows();
        assert_eq!((rows.method, rows.level), (CompressionMethod::Zstd, Some(3)));
        assert_eq!(steps.warnings, Vec::<String>::new());
    }
    let old = steps(level_3, Some(old_client())).compression;
    assert_eq!((old.method, old.level), (CompressionMethod::Gzip, None));
}

#[test]
fn without_rows_there_are_no_chunks() {
    let chunks = |rest: &str| decide(&planned(rest), &findings(contents())).unwrap().chunks;
    assert_eq!(chunks("dataFormat: Chunks\nschemaOnly: true"), None);
    let chunk_steps = ChunkSteps {
        parallelism: 4,
        zstd_level: 1,
    };
    assert_eq!(chunks("dataFormat: Chunks\ndataOnly: true"), Some(chunk_steps));
}

fn server_with(names: &[&str]) -> Vec<Database> {
    let open = names.iter().map(|name| Database {
        name: (*name).into(),
        allows_connections: *name != "template0",
        may_connect: *name != "private",
    });
    open.collect()
}

#[test]
fn databases_are_chosen_as_the_plan_says() {
    let server = server_with(&["postgres", "orders", "template0", "template1", "rdsadmin", "billing"]);
    let chosen = |choice, connection| {
        choose_databases(&choice, connection, &server, "dumper")
            .unwrap()
            .join(" ")
    };
    assert_eq!(chosen(DatabaseChoice::OfConnection, Some("orders")), "orders");
    assert_eq!(
        chosen(DatabaseChoice::OfConnection, None),
        "billing orders postgres template1"
    );
    assert_eq!(
        chosen(DatabaseChoice::OfConnection, Some("*")),
        "billing orders postgres template1"
    );
    assert_eq!(
        chosen(DatabaseChoice::Include(vec!["rdsadmin".into()]), Some("orders")),
        "rdsadmin"
    );
    assert_eq!(
        chosen(
            DatabaseChoice::Exclude(vec!["postgres".into(), "template1".into()]),
            Some("orders")
        ),
        "billing orders"
    );
}

#[test]
fn the_sentences_of_refused_databases_help() {
    let server = server_with(&["orders", "template0", "private"]);
    let refused = |choice, connection| {
        choose_databases(&choice, connection, &server, "dumper")
            .unwrap_err()
            .sentence()
    };
    insta::assert_snapshot!(
        [
            refused(DatabaseChoice::OfConnection, Some("gone")),
            refused(DatabaseChoice::Include(vec!["Orders".into()]), None),
            refused(DatabaseChoice::Include(vec!["template0".into()]), None),
            refused(DatabaseChoice::Exclude(vec!["gone".into()]), None),
            refused(DatabaseChoice::Exclude(vec!["orders".into(), "private".into()]), None),
            refused(DatabaseChoice::OfConnection, None),
        ]
        .join("\n")
    );
}
