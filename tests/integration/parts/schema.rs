//! The definitions of a database, as `pg_dump` sees them, in a form that two
//! databases can be compared by.

use std::collections::BTreeMap;

use super::{Database, NEWEST_CLIENT};

/// The entries of `pg_dump --schema-only`: the header line of each (name,
/// type, schema, owner) and its statements. Entries with one header are sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(pub BTreeMap<String, Vec<String>>);

impl Schema {
    fn parse(dump: &str) -> Self {
        let mut entries: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut header = "before the first entry".to_owned();
        let mut body = String::new();
        let mut close = |header: &str, body: &mut String| {
            let text = body.trim().to_owned();
            body.clear();
            if !text.is_empty() {
                entries.entry(header.to_owned()).or_default().push(text);
            }
        };
        for line in dump.lines() {
            if line.starts_with("-- Name: ") && line.contains("; Type: ") {
                close(&header, &mut body);
                line.trim_start_matches("-- ").clone_into(&mut header);
            } else if !is_noise(line) {
                body.push_str(line);
                body.push('\n');
            }
        }
        close(&header, &mut body);
        for bodies in entries.values_mut() {
            bodies.sort();
        }
        Self(entries)
    }

    /// What differs, with both texts; empty where nothing does.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names = self
            .0
            .keys()
            .chain(other.0.keys().filter(|name| !self.0.contains_key(*name)));
        names
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .map(|name| format!("{name}\n  {:?}\n  {:?}", self.0.get(name), other.0.get(name)))
            .collect()
    }

    /// Panics with what differs.
    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        let differences = self.differences(other);
        assert!(
            differences.is_empty(),
            "definitions differ:\n{}",
            differences.join("\n")
        );
    }
}

/// Lines that differ between versions, runs and servers while nothing of the
/// database does.
fn is_noise(line: &str) -> bool {
    line == "--"
        || [
            "\\restrict ",
            "\\unrestrict ",
            "-- PostgreSQL database dump",
            "-- Dumped ",
            "SET ",
            "SELECT pg_catalog.set_config('search_path'",
            "-- Started on",
            "-- Completed on",
        ]
        .iter()
        .any(|start| line.starts_with(start))
}

impl Database<'_> {
    /// The definitions as the newest `pg_dump` sees them, without the schema
    /// `pgrescue`, where the product notes its runs.
    pub fn schema(&self) -> Schema {
        let output = self
            .server
            .client(NEWEST_CLIENT, "pg_dump", &self.name)
            .args(["--schema-only", "--exclude-schema=pgrescue", "--lock-wait-timeout=60s"])
            .output()
            .expect("pg_dump is installed");
        assert!(
            output.status.success(),
            "pg_dump {}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        Schema::parse(&String::from_utf8_lossy(&output.stdout))
    }
}
