//! Entries as `pg_dump` writes them: option names by `quote_ident`, values by `quote_literal` of the server.

use std::fmt::Write as _;

use crate::postgres::archive::sample::{entry, toc};
use crate::postgres::archive::{Toc, TocEntry};
use crate::postgres::quote::{identifier, literal};

pub(super) const SERVER: i32 = 20;
pub(super) const APP_MAPPING: i32 = 21;
pub(super) const PUBLIC_MAPPING: i32 = 22;
pub(super) const BARE_MAPPING: i32 = 23;
pub(super) const OTHER_SERVER: i32 = 30;
pub(super) const OTHER_MAPPING: i32 = 31;
pub(super) const TABLE: i32 = 40;
pub(super) const WRAPPER: i32 = 15;
pub(super) const ODD_SERVER: i32 = 50;
pub(super) const SUBSCRIPTION: i32 = 60;

fn options(pairs: &[(&str, &str)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let list: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{} {}", identifier(name), literal(value)))
        .collect();
    format!(" OPTIONS (\n    {}\n)", list.join(",\n    "))
}

pub(super) fn server(dump_id: i32, name: &str, wrapper: &str, pairs: &[(&str, &str)]) -> TocEntry {
    let name_sql = identifier(name);
    let sql = format!(
        "CREATE SERVER {name_sql} FOREIGN DATA WRAPPER {}{};\n",
        identifier(wrapper),
        options(pairs)
    );
    entry(dump_id, "SERVER", name, &sql)
}

/// `user` as SQL writes it.
pub(super) fn mapping(dump_id: i32, user: &str, server: &str, pairs: &[(&str, &str)]) -> TocEntry {
    let sql = format!(
        "CREATE USER MAPPING FOR {user} SERVER {}{};\n",
        identifier(server),
        options(pairs)
    );
    entry(
        dump_id,
        "USER MAPPING",
        &format!("USER MAPPING {user} SERVER {server}"),
        &sql,
    )
}

pub(super) fn table(
    dump_id: i32,
    name: &str,
    server: (&str, i32),
    pairs: &[(&str, &str)],
    column: &[(&str, &str)],
) -> TocEntry {
    let full = format!("remote.{}", identifier(name));
    let mut sql = format!(
        "CREATE FOREIGN TABLE {full} (\n    id integer,\n    \"a b\" text DEFAULT 'x;y'::text NOT NULL\n)\nSERVER {}{};\n",
        identifier(server.0),
        options(pairs).replacen("OPTIONS (", "\nOPTIONS (", 1)
    );
    if !column.is_empty() {
        let _ = writeln!(
            sql,
            "ALTER FOREIGN TABLE ONLY {full} ALTER COLUMN \"a b\"{};",
            options(column)
        );
    }
    entry(dump_id, "FOREIGN TABLE", name, &sql)
        .in_schema("remote")
        .needs(&[server.1])
}

pub(super) const APP_PASSWORD: &str = "canary:it's \"a\" \\back\\slash; $1 $$ -- x\nnewline";

/// Two servers on one host, one of an odd wrapper, mappings of every kind, a table, a subscription.
pub(super) fn example() -> Toc {
    toc([
        entry(
            WRAPPER,
            "FOREIGN DATA WRAPPER",
            "odd wrapper",
            &format!(
                "CREATE FOREIGN DATA WRAPPER \"odd wrapper\"{};\n",
                options(&[("api key", "canary:wrapper")])
            ),
        ),
        server(
            SERVER,
            "billing.remote \"x\" SERVER y",
            "postgres_fdw",
            &[
                ("dbname", "it's \\ \"odd\"; --"),
                ("host", "db.internal"),
                ("port", "5432"),
                ("sslmode", "require"),
            ],
        ),
        mapping(
            APP_MAPPING,
            "app",
            BILLING,
            &[("user", "u'\\"), ("password", APP_PASSWORD)],
        ),
        mapping(
            PUBLIC_MAPPING,
            "public",
            BILLING,
            &[("password", "canary:public"), ("user", "everyone")],
        ),
        mapping(BARE_MAPPING, "\"bare role\"", BILLING, &[]),
        server(
            OTHER_SERVER,
            "orders",
            "postgres_fdw",
            &[("host", "db.internal"), ("dbname", "orders")],
        ),
        mapping(OTHER_MAPPING, "app", "orders", &[("user", "o")]),
        table(
            TABLE,
            "in voice",
            (BILLING, SERVER),
            &[("schema_name", "sch'ema\\"), ("table_name", "x\"; DROP")],
            &[("column_name", "a';b")],
        ),
        server(
            ODD_SERVER,
            "odd",
            "odd wrapper",
            &[
                ("odd \" option", "x"),
                ("secret token", "canary:server"),
                ("url", "https://u:canary:url@h/"),
            ],
        ),
        entry(
            SUBSCRIPTION,
            "SUBSCRIPTION",
            "sub",
            &format!(
                "CREATE SUBSCRIPTION sub CONNECTION {} PUBLICATION p WITH (connect = false, slot_name = 'sub');\n",
                literal("host=h port=1 user=r password='canary:sub \\' \\\\ x' dbname=d")
            ),
        ),
    ])
}

pub(super) const BILLING: &str = "billing.remote \"x\" SERVER y";
