//! What must not be in a store: every object of a backup is searched, the last byte included.

use pgrescue::store::manifest::ObjectKind;
use serde_json::{Value, json};

use super::{Objects, in_bucket, new_bucket, request, s3};
use crate::fixtures::CANARY;
use crate::parts::PostgresServer;

/// Everything of one backup, uncompressed so that a search finds what is there; lines of text and pieces of the
/// archive that hold the canary.
async fn leaks(major: u32, more: Value) -> Vec<(ObjectKind, String)> {
    let source = PostgresServer::shared(major).create_database("secrets");
    source.load_everything();
    let bucket = new_bucket();
    let request = request(&source, in_bucket(&bucket), more);
    let ended = request.run().await;
    ended.artifact();
    let status = serde_json::to_string(&ended.status.warnings).expect("JSON");
    assert!(!status.contains(CANARY), "{status}");
    let objects = Objects::of_bucket(&bucket);
    let key = pgrescue::store::layout::manifest(&request.snapshot());
    let manifest = String::from_utf8(objects.read(&key)).expect("JSON");
    assert!(!manifest.contains(CANARY));
    let manifest = objects.manifest(&request.snapshot());
    assert_eq!(s3().keys(&bucket).len(), manifest.objects.len() + 1);
    let mut found = Vec::new();
    for object in &manifest.objects {
        let text = String::from_utf8_lossy(&objects.read(&object.key)).into_owned();
        let lines = text.lines().filter(|line| line.contains(CANARY));
        found.extend(lines.map(|line| (object.kind, line.to_owned())));
    }
    found
}

async fn no_credential_is_stored(major: u32) {
    let found = leaks(
        major,
        json!({"compression": {"method": "None"}, "rolePasswords": "Omit"}),
    )
    .await;
    // The setting of a role is stored as it is, with a warning.
    let leaked: Vec<_> = found
        .iter()
        .filter(|(kind, line)| *kind != ObjectKind::Globals || !line.contains("SET \"fixture.token\""))
        .collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
    assert_eq!(found.len(), 1, "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_of_a_backup_of_14_holds_a_credential() {
    no_credential_is_stored(14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_of_a_backup_of_18_holds_a_credential() {
    no_credential_is_stored(18).await;
}

/// The search finds what is there.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_stored_where_they_are_to_be_kept() {
    let kept = json!({"compression": {"method": "None"}, "foreignCredentials": "Keep"});
    let found = leaks(17, kept).await;
    for kind in [ObjectKind::Archive, ObjectKind::PreData] {
        assert!(found.iter().any(|(of, _)| *of == kind), "{kind:?}");
    }
}
