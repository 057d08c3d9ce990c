//! What stands against restoring an encrypted backup: found before the target is touched, and told without a word of
//! what was given as the identity.

use std::fs;

use pgrescue::api::reasons;
use pgrescue::plan::Refusal;
use serde_json::json;

use super::{Key, archive_key, back_up, format, restore_with, to};
use crate::backup::{Request, in_folder};
use crate::parts::{Database, PostgresServer};

/// An encrypted backup in a folder.
struct Encrypted {
    folder: tempfile::TempDir,
    key: Key,
    request: Request,
    source: Database<'static>,
}

fn encrypted(data_format: &str) -> Encrypted {
    let source = PostgresServer::shared(17).create_database("refused");
    source.load_shop(0.01);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = Key::new();
    let (request, _) = back_up(&source, to(in_folder(folder.path()), &[&key]), format(data_format));
    Encrypted {
        folder,
        key,
        request,
        source,
    }
}

impl Encrypted {
    /// Why a restore with this identity file ends before it begins.
    #[track_caller]
    fn refused(&self, identity_file: &str) -> Refusal {
        let target = self.source.server.reserve_database("refused_copy");
        let failed = restore_with(&self.request, &target, identity_file).fail();
        assert!(!target.exists(), "the target is untouched");
        failed.refusal
    }
}

#[test]
fn without_an_identity_or_with_a_wrong_one_nothing_is_touched_and_the_recipients_are_named() {
    for data_format in ["Custom", "Chunks"] {
        let backup = encrypted(data_format);
        let target = backup.source.server.reserve_database("refused_copy");
        let without = restore_with(&backup.request, &target, &backup.key.file())
            .with("source", json!({"backup": {"name": "orders"}}))
            .fail();
        assert!(!target.exists());
        let stranger = Key::new();
        for (refusal, reason) in [
            (without.refusal, reasons::IDENTITY_MISSING),
            (backup.refused(&stranger.file()), reasons::IDENTITY_WRONG),
        ] {
            assert_eq!(refusal.reason, reason);
            assert!(refusal.message.contains(&backup.key.recipient), "{refusal}");
            assert!(refusal.hint.is_some());
            assert!(!format!("{refusal:?}").contains(&stranger.identity));
        }
    }
}

#[test]
fn what_is_no_identity_file_is_refused_without_a_word_of_it() {
    let backup = encrypted("Custom");
    let cut = &backup.key.identity[..backup.key.identity.len() - 2];
    for garbage in [
        "hunter2",
        cut,
        "# a comment",
        "",
        &backup.key.recipient,
        "age-encryption.org/v1\nx",
    ] {
        let refusal = backup.refused(garbage);
        assert_eq!(refusal.reason, reasons::IDENTITY_WRONG);
        assert_eq!(refusal.object.as_deref(), Some("Secret/identity"));
        let told = format!("{refusal:?}");
        assert!(garbage.len() < 7 || !told.contains(garbage), "{told}");
        assert!(
            !told.contains("hunter2") && !told.contains(&backup.key.identity[20..40]),
            "{told}"
        );
    }
}

/// A restore ends with the damaged object's name, and the target does not exist.
#[test]
fn a_damaged_age_file_is_found_before_the_target_is_touched() {
    let backup = encrypted("Custom");
    let key = archive_key(&backup.request, &backup.source.name);
    let path = backup.folder.path().join(&key);
    let manifest_path = backup
        .folder
        .path()
        .join(pgrescue::store::layout::manifest(&backup.request.snapshot()));
    let (whole, manifest) = (
        fs::read(&path).expect("the archive"),
        fs::read_to_string(&manifest_path).expect("the manifest"),
    );
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let other = encrypted("Custom");
    let swapped = fs::read(
        other
            .folder
            .path()
            .join(archive_key(&other.request, &other.source.name)),
    );
    let swapped = swapped.expect("the other archive");
    for (content, reason) in [
        (&whole[..whole.len() - 1], reasons::OBJECT_CHANGED),
        (&flipped, reasons::OBJECT_CHANGED),
        (&whole[..50], reasons::OBJECT_CHANGED),
        (&swapped, reasons::IDENTITY_WRONG),
    ] {
        fs::write(&path, content).expect("the folder is ours");
        let sha256 = |bytes: &[u8]| hex::encode(<sha2::Sha256 as sha2::Digest>::digest(bytes));
        // As it is, and by somebody who changed the manifest with it.
        let edited = manifest.replace(&sha256(&whole), &sha256(content)).replace(
            &format!("\"size\": {}", whole.len()),
            &format!("\"size\": {}", content.len()),
        );
        for manifest in [&manifest, &edited] {
            fs::write(&manifest_path, manifest).expect("the folder is ours");
            let refusal = backup.refused(&backup.key.file());
            let size_told = refusal.reason == reasons::OBJECT_CHANGED;
            assert!(refusal.reason == reason || size_told, "{refusal:?}");
            assert!(
                refusal.message.contains("archive.dump.age") || refusal.message.contains(&backup.key.recipient),
                "{refusal}"
            );
        }
    }
}
