//! README.md and docs/: what they show is true. Commands that need a cluster are run by the end-to-end tests.

pub mod blocks;
mod commands;

use std::collections::BTreeSet;
use std::fs;

use pgrescue::api::{PgBackup, PgRestore, reasons};
use pgrescue::cli::manifests::{Manifests, Resource};
use pgrescue::plan::storage::Place;
use pgrescue::plan::{Refusal, Run, RunKind, backup, restore};
use serde_json::{Value, json};

use blocks::{Block, Home, blocks, pages, repository};

#[test]
fn every_manifest_of_the_docs_is_one_that_the_operator_accepts() {
    for block in blocks() {
        match &block.home {
            Home::Manifests => accepted(&block, &block.text),
            Home::FieldsOf(kind) => accepted(&block, &with_other_fields(&block, kind)),
            _ => {}
        }
    }
}

#[test]
fn a_manifest_that_the_docs_show_from_a_file_is_that_file() {
    for block in blocks() {
        if let Home::SameAs(path) = &block.home {
            let file = fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(block.text, file, "{}: not what {path} holds", block.place);
            accepted(&block, &block.text);
        }
    }
}

#[test]
fn the_docs_name_only_targets_that_the_makefile_has() {
    let makefile = fs::read_to_string(repository().join("Makefile")).expect("the Makefile is there");
    for block in blocks().iter().filter(|block| block.home == Home::MakeTargets) {
        for line in block.text.lines() {
            let command = line.split('#').next().unwrap_or_default().trim();
            let target = command
                .strip_prefix("make ")
                .unwrap_or_else(|| panic!("{}: {line}", block.place));
            let target = target.split(' ').next().unwrap_or_default();
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "{}: no target {target}", block.place);
        }
    }
}

#[test]
fn the_page_on_troubleshooting_explains_every_reason_and_no_other() {
    let page = fs::read_to_string(repository().join("docs/troubleshooting.md")).expect("the page is there");
    let explained: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(explained, reasons::ALL.iter().copied().collect());
}

#[test]
fn every_link_of_the_docs_leads_to_a_file() {
    for (page, text) in pages() {
        let folder = repository().join(&page);
        let folder = folder.parent().expect("a page is in a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            assert!(
                link.contains("://") || path.is_empty() || folder.join(path).exists(),
                "{page}: the link {link} leads nowhere"
            );
        }
    }
}

/// Reads and plans manifests, as the operator does.
fn accepted(block: &Block, yaml: &str) {
    let place = &block.place;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("manifest.yaml");
    fs::write(&file, yaml).expect("the folder is ours");
    let manifests = Manifests::read(&file).unwrap_or_else(|error| panic!("{place}: {error}"));
    for resource in &manifests.resources {
        let planned = match resource {
            Resource::Backup(backup) => plan_backup(backup),
            Resource::Restore(restore) => plan_restore(restore),
        };
        planned.unwrap_or_else(|refusal| panic!("{place}: {refusal}"));
    }
}

fn plan_backup(resource: &PgBackup) -> Result<(), Refusal> {
    backup::plan(&resource.spec, run(RunKind::PgBackup), Place::Cluster).map(drop)
}

fn plan_restore(resource: &PgRestore) -> Result<(), Refusal> {
    let storage = serde_json::from_value(json!({"s3": {"bucket": "backups"}})).expect("a storage");
    let source = restore::SnapshotSource {
        storage: pgrescue::plan::storage::plan(&storage, Place::Cluster, "spec.storage")?,
        snapshot: Some("20260101T000000Z-0123456789".to_owned()),
        backup_namespace: "shop".to_owned(),
        backup_name: resource.spec.source.backup.name.clone(),
        manifest_sha256: None,
        database: resource.spec.source.backup.database.clone(),
        identity: None,
    };
    restore::plan(&resource.spec, run(RunKind::PgRestore), source).map(drop)
}

fn run(kind: RunKind) -> Run {
    Run {
        kind,
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
        uid: "f2f9a1d6-0000-0000-0000-000000000000".to_owned(),
        generation: 1,
        created: "2026-01-01T00:00:00Z".parse().expect("a time"),
        deadline_seconds: None,
    }
}

/// A manifest of a kind whose `spec` has the block's fields, and the required ones where the block has not.
fn with_other_fields(block: &Block, kind: &str) -> String {
    let fields: Value = serde_saphyr::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.place));
    let mut spec = match kind {
        "PgBackup" => {
            json!({"connection": {"secretRef": {"name": "production-db"}}, "storage": {"s3": {"bucket": "backups"}}})
        }
        "PgRestore" => json!({
            "source": {"backup": {"name": "orders"}}, "target": {"connection": {"secretRef": {"name": "staging-db"}}},
        }),
        _ => panic!("{}: there is no kind {kind}", block.place),
    };
    for (name, value) in fields.as_object().expect("fields are a map") {
        spec[name] = value.clone();
    }
    json!({"apiVersion": "pgrescue.dev/v1alpha1", "kind": kind, "metadata": {"name": "orders"}, "spec": spec})
        .to_string()
}
