//! Tests of the manifest.

use super::*;
use crate::postgres::foreign::{CredentialHolder, LocalUser, StrippedCredential};
use crate::store::StoredObject;

fn manifest() -> Manifest {
    let stored = |key: &str| StoredObject {
        key: key.into(),
        size: 3,
        sha256: "00".into(),
    };
    Manifest {
        format_version: PLAIN_FORMAT_VERSION,
        snapshot: "20260102T030405Z-0123456789".into(),
        backup: BackupReference::default(),
        started: Timestamp::UNIX_EPOCH,
        completed: Timestamp::UNIX_EPOCH,
        tools: ToolManifest::default(),
        data_format: DataFormat::Custom,
        encryption: None,
        selection: SelectionManifest::default(),
        server: ServerManifest::default(),
        roles: vec![],
        memberships: vec![],
        role_settings: vec![],
        tablespaces: vec![],
        databases: vec![DatabaseManifest {
            name: "a b".into(),
            relations: vec![RelationManifest::default()],
            stripped_credentials: vec![StrippedCredential {
                holder: CredentialHolder::UserMapping {
                    server: "s".into(),
                    user: LocalUser::Public,
                },
                options: vec!["password".into()],
                unknown: false,
            }],
            ..DatabaseManifest::default()
        }],
        objects: vec![ObjectManifest::new(stored("x"), ObjectKind::Archive, Some("a b"))],
        chunks: None,
        object_lock: None,
        omissions: vec![],
        warnings: vec![],
    }
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let manifest = manifest();
    assert_eq!(Manifest::read(&manifest.to_bytes().unwrap()).unwrap(), manifest);
}

#[test]
fn a_newer_format_is_refused_whatever_else_it_holds() {
    let error = Manifest::read(br#"{"formatVersion": 3, "databases": "another form"}"#).unwrap_err();
    assert!(matches!(error, ManifestError::TooNew { found: 3 }));
    let refusal = Refusal::from(error);
    assert_eq!(refusal.reason, reasons::MANIFEST_TOO_NEW);
    insta::assert_snapshot!(refusal.message, @"The manifest has format 3; this release of pgrescue reads formats up to 2.");
}

#[test]
fn a_field_that_a_later_release_adds_is_passed_over() {
    let mut value = serde_json::to_value(manifest()).unwrap();
    value["later"] = serde_json::json!({"a": 1});
    assert!(Manifest::read(value.to_string().as_bytes()).is_ok());
}

#[test]
fn a_database_without_an_archive_is_refused() {
    let mut manifest = manifest();
    manifest.objects.clear();
    assert!(matches!(manifest.to_bytes(), Err(ManifestError::Inconsistent(_))));
}

/// `UPDATE_SCHEMA=1` writes the file anew.
#[test]
fn the_published_schema_is_the_one_that_is_written() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manifest.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, manifest_schema()).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        published == manifest_schema(),
        "{path} is out of date: run `UPDATE_SCHEMA=1 cargo test --lib manifest`"
    );
}

#[test]
fn an_encrypted_backup_has_a_format_that_older_releases_refuse_and_another_one_has_not() {
    let encryption = |recipients: &[&str]| {
        Some(EncryptionManifest {
            age: AgeManifest {
                recipients: recipients.iter().copied().map(str::to_owned).collect(),
            },
        })
    };
    let of = |format_version, encryption| Manifest {
        format_version,
        encryption,
        ..manifest()
    };
    let encrypted = of(2, encryption(&["age1x"]));
    assert_eq!(
        Manifest::read(&encrypted.to_bytes().unwrap()).unwrap().recipients(),
        ["age1x"]
    );
    for contradiction in [of(1, encryption(&["age1x"])), of(2, None), of(2, encryption(&[]))] {
        assert!(matches!(contradiction.to_bytes(), Err(ManifestError::Inconsistent(_))));
        let bytes = serde_json::to_vec(&contradiction).unwrap();
        assert!(matches!(Manifest::read(&bytes), Err(ManifestError::Inconsistent(_))));
    }
}
