//! Backups that are encrypted before they leave the agent: nothing of the database is in the store but what the
//! manifest says, the identity alone opens them, and it is shown nowhere.

mod by_hand;
mod command_line;
mod refusals;

use std::path::Path;

use pgrescue::plan::restore::SnapshotSource;
use pgrescue::store::layout;
use pgrescue::store::manifest::Manifest;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::backup::{self, Objects, in_bucket, in_folder, new_bucket, s3};
use crate::parts::{Database, PostgresServer};
use crate::restore::{self, runtime};

/// What must not be in a store: a row alone, one among many that do not compress, a function's body, and a setting of
/// a role.
const CANARIES: [&str; 4] = [
    "canary-row-7f3a",
    "canary-of-many-02bb",
    "canary-body-91c2",
    "canary-global-55d0",
];

/// Beside the shop: what the canaries are in, and a chunk that is too large for a pack.
const MORE: &str = "
CREATE TABLE one_row (body text);
INSERT INTO one_row VALUES ('canary-row-7f3a');
CREATE TABLE many_rows (id int PRIMARY KEY, body text);
INSERT INTO many_rows SELECT i, (SELECT string_agg(md5((i * 64 + j)::text), '') FROM generate_series(1, 32) j)
    || CASE i WHEN 1500 THEN 'canary-of-many-02bb' ELSE '' END FROM generate_series(1, 3000) i;
CREATE FUNCTION told() RETURNS text LANGUAGE sql AS $$ SELECT 'canary-body-91c2'::text $$";

/// A key pair as age-keygen makes it.
struct Key {
    recipient: String,
    identity: String,
}

impl Key {
    fn new() -> Self {
        let identity = age::x25519::Identity::generate();
        Self {
            recipient: identity.to_public().to_string(),
            identity: identity.to_string().expose_secret().to_owned(),
        }
    }

    /// What age-keygen writes.
    fn file(&self) -> String {
        let Self { recipient, identity } = self;
        format!("# created: 2026-01-02T03:04:05Z\n# public key: {recipient}\n{identity}\n")
    }
}

/// A storage with encryption to these.
fn to(mut storage: Value, recipients: &[&Key]) -> Value {
    let recipients: Vec<_> = recipients.iter().map(|key| &key.recipient).collect();
    storage["encryption"] = json!({"age": {"recipients": recipients}});
    storage
}

/// Without compression of the archive, so that a search finds what is there; with the rows of unlogged tables, and
/// with all that the shop's foreign servers need, so that it restores without rules and is the same.
fn format(data_format: &str) -> Value {
    let mut more = json!({"dataFormat": data_format, "foreignCredentials": "Keep", "unloggedTableData": "Include"});
    if data_format == "Custom" {
        more["compression"] = json!({"method": "None"});
    }
    more
}

fn source_of(request: &backup::Request) -> SnapshotSource {
    SnapshotSource {
        storage: request.plan.storage.clone(),
        snapshot: Some(request.snapshot()),
        backup_namespace: request.plan.run.namespace.clone(),
        backup_name: request.plan.run.name.clone(),
        manifest_sha256: None,
        database: None,
        identity: None,
    }
}

/// A restore with this text as the identity file.
fn restore_with(request: &backup::Request, target: &Database<'_>, identity_file: &str) -> restore::Request {
    let decryption = json!({"age": {"identitySecretRef": {"name": "identity", "key": "identity.txt"}}});
    restore::Request::of(source_of(request), target.server.port, &target.name)
        .secret("s3", &backup::s3_keys())
        .secret("identity", &json!({ "identity.txt": identity_file }))
        .with(
            "source",
            json!({"backup": {"name": "orders"}, "decryption": decryption}),
        )
}

fn back_up(source: &Database<'_>, storage: Value, more: Value) -> (backup::Request, pgrescue::api::status::Artifact) {
    let request = backup::request(source, storage, more);
    let artifact = runtime().block_on(request.run()).artifact().clone();
    (request, artifact)
}

/// Which canaries are in some object of a bucket.
fn found_in(bucket: &str) -> Vec<&'static str> {
    let objects: Vec<Vec<u8>> = s3().keys(bucket).iter().map(|key| s3().object(bucket, key)).collect();
    let is_in = |canary: &str| {
        let needle = canary.as_bytes();
        objects
            .iter()
            .any(|object| memchr::memmem::find(object, needle).is_some())
    };
    CANARIES.into_iter().filter(|canary| is_in(canary)).collect()
}

/// Every object but the manifest and the description of the repository is one age file, or begins with one.
fn assert_encrypted(objects: &Objects, manifest: &Manifest) {
    assert!(manifest.objects.len() >= 3, "{:?}", manifest.objects);
    for object in &manifest.objects {
        assert_eq!(
            object.key.rsplit_once('.').map(|(_, end)| end),
            Some("age"),
            "{}",
            object.key
        );
        let stored = objects.read(&object.key);
        assert!(stored.starts_with(b"age-encryption.org/v1\n"), "{}", object.key);
        assert_eq!(stored.len() as u64, object.size);
    }
    for chunk in manifest.chunks() {
        let object = objects.read(&chunk.object);
        let offset = usize::try_from(chunk.offset).expect("in memory");
        assert!(
            object[offset..].starts_with(b"age-encryption.org/v1\n"),
            "{}",
            chunk.object
        );
    }
}

fn nothing_is_stored_in_plain_and_everything_comes_back(major: u32) {
    let server = PostgresServer::start(major);
    let role = "CREATE ROLE teller; ALTER ROLE teller SET \"canary.token\" = 'canary-global-55d0'";
    server.psql("postgres", role);
    let source = server.create_database("encrypted");
    source.load_shop(0.01);
    source.psql(MORE);
    for data_format in ["Custom", "Chunks"] {
        // The search finds what is there; of chunks, which are always compressed, not what is one of many.
        let bucket = new_bucket();
        back_up(&source, in_bucket(&bucket), format(data_format));
        let mut there = CANARIES.to_vec();
        there.retain(|canary| data_format == "Custom" || *canary != "canary-of-many-02bb");
        assert_eq!(found_in(&bucket), there, "{data_format}");

        let bucket = new_bucket();
        let key = Key::new();
        let (request, _) = back_up(&source, to(in_bucket(&bucket), &[&key]), format(data_format));
        assert_eq!(found_in(&bucket), [""; 0], "{data_format}");
        let objects = Objects::of_bucket(&bucket);
        let manifest = objects.manifest(&request.snapshot());
        assert_eq!(
            (manifest.format_version, manifest.recipients()),
            (2, &[key.recipient.clone()][..])
        );
        assert_encrypted(&objects, &manifest);
        assert_eq!(manifest.chunks().count() > 0, data_format == "Chunks");
        assert_eq!(
            manifest.chunks().any(|chunk| chunk.object.starts_with("chunks/")),
            data_format == "Chunks",
            "one is too large for a pack"
        );

        let target = server.reserve_database("decrypted");
        let finished = restore_with(&request, &target, &key.file()).succeed();
        let status = format!("{:?} {:?}", finished.status, finished.done);
        assert!(!status.contains(&key.identity), "{status}");
        source.content().assert_same(&target.content());
        source.schema().assert_same(&target.schema());
    }
}

#[test]
fn a_backup_of_15_is_encrypted_as_a_whole_and_restored() {
    nothing_is_stored_in_plain_and_everything_comes_back(15);
}

#[test]
fn a_backup_of_18_is_encrypted_as_a_whole_and_restored() {
    nothing_is_stored_in_plain_and_everything_comes_back(18);
}

/// What a manifest says of its chunks: all of them, and how many were new.
fn chunks_of(folder: &Path, request: &backup::Request) -> (u64, u64) {
    let manifest = Objects(folder.to_owned()).manifest(&request.snapshot());
    let totals = manifest.chunks.expect("chunks");
    (totals.chunks, totals.new_chunks)
}

#[test]
fn recipients_can_be_changed_and_chunks_are_shared_among_backups_to_the_same_ones() {
    let source = PostgresServer::shared(17).create_database("recipients");
    source.load_shop(0.01);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (old, new) = (Key::new(), Key::new());
    let storage = |recipients: &[&Key]| to(in_folder(folder.path()), recipients);
    let chunks = || format("Chunks");
    let (plain, _) = back_up(&source, in_folder(folder.path()), chunks());
    let (first, _) = back_up(&source, storage(&[&old]), chunks());
    let (again, artifact) = back_up(&source, storage(&[&old]), chunks());
    let (both, _) = back_up(&source, storage(&[&new, &old]), chunks());
    let (both_again, _) = back_up(&source, storage(&[&old, &new]), chunks());
    let (all, of_plain) = chunks_of(folder.path(), &plain);
    assert!(all > 0 && all == of_plain);
    assert_eq!(chunks_of(folder.path(), &first), (all, all));
    assert_eq!(chunks_of(folder.path(), &again), (all, 0));
    assert!(artifact.new_bytes.expect("it is counted") < artifact.bytes);
    assert_eq!(chunks_of(folder.path(), &both), (all, all));
    assert_eq!(chunks_of(folder.path(), &both_again), (all, 0));
    // Each by its own keys, whatever came after it; the plain one needs none.
    let identities = format!("{}{}", old.file(), new.file());
    for (request, file) in [
        (&plain, new.file()),
        (&first, old.file()),
        (&both, new.file()),
        (&both_again, old.file()),
        (&again, identities),
    ] {
        let target = source.server.reserve_database("recipients_copy");
        restore_with(request, &target, &file).succeed();
        source.content().assert_same(&target.content());
    }
}

/// The archive's key in a store, as an encrypted backup has it.
fn archive_key(request: &backup::Request, database: &str) -> String {
    format!("{}.age", layout::archive(&request.snapshot(), database))
}
