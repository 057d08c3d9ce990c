//! Every type that goes in binary is exported as the server that it came from writes it.

use std::collections::BTreeMap;
use std::fs;

use pgrescue::store::manifest::RowFormat;
use serde_json::json;

use super::Backup;
use crate::backup::chunks::types::load;
use crate::parts::{Database, PostgresServer, quoted};

/// As `pg_dump` sets its session.
const SETTINGS: &str = "SET search_path = pg_catalog; SET datestyle = ISO; SET intervalstyle = postgres; SET extra_float_digits = 3; \
    SET timezone = 'UTC'; SET lc_monetary = 'C'; SET xmloption = content; SET row_security = off";

/// What stands behind the rows of a table.
const END: &str = "the end of a table\n";

/// The rows of each table as the server itself copies them out.
fn copied(database: &Database<'_>, tables: &[(String, String, RowFormat)]) -> Vec<String> {
    let mut copies = Vec::new();
    for (table, ..) in tables {
        copies.push("-c".to_owned());
        copies.push(format!("COPY public.{} TO STDOUT", quoted(table)));
        copies.push("-c".to_owned());
        copies.push(format!("\\echo '{}'", END.trim_end()));
    }
    let output = database
        .server
        .client(18, "psql", &database.name)
        .args(["-X", "-q", "-c", SETTINGS])
        .args(copies)
        .output()
        .expect("psql is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let copied: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .split(END)
        .map(str::to_owned)
        .collect();
    assert_eq!(copied.len(), tables.len() + 1);
    copied
}

/// Data files by the table that `pg_restore --list` names them for.
fn files(backup: &Backup, folder: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let list = std::process::Command::new(crate::parts::client_folder(18).join("pg_restore"))
        .arg("--list")
        .arg(folder)
        .output()
        .expect("pg_restore is installed");
    assert!(
        list.status.success(),
        "{} {}",
        backup.snapshot,
        String::from_utf8_lossy(&list.stderr)
    );
    let list = String::from_utf8(list.stdout).expect("text");
    list.lines()
        .filter_map(|line| {
            let (number, rest) = line.split_once("; 0 ")?;
            let (_, name) = rest.split_once(" TABLE DATA public ")?;
            let rows = fs::read(folder.join(format!("{number}.dat"))).expect("a data file");
            Some((name.split(' ').next()?.to_owned(), rows))
        })
        .collect()
}

async fn every_type_is_printed(major: u32) {
    let server = PostgresServer::shared(major);
    let source = server.create_database("printed");
    let tables = load(&source, major);
    let backup = Backup::of(&source, json!({"dataFormat": "Chunks"})).await;
    let (folder, report) = backup.export("types", &[]);
    assert!(report["convertedTables"].as_u64().expect("a number") > 60, "{report}");
    let files = files(&backup, &folder);
    for ((table, of, _), copied) in tables.iter().zip(copied(&source, &tables)) {
        let Some(file) = files.get(table) else {
            assert_eq!(copied, "", "{of}");
            continue;
        };
        assert_eq!(String::from_utf8_lossy(file), copied + "\\.\n\n\n", "{of} from {major}");
    }
}

macro_rules! of_every_server {
    ($($name:ident: $major:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            every_type_is_printed($major).await;
        }
    )*};
}

of_every_server! {
    every_type_of_12_is_exported_as_the_server_writes_it: 12;
    every_type_of_15_is_exported_as_the_server_writes_it: 15;
    every_type_of_18_is_exported_as_the_server_writes_it: 18;
}
