//! What is stored can be read by the program `age` of another author, with the identity file alone.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use pgrescue::store::manifest::{ObjectKind, RowFormat};

use super::{Key, back_up, format, to};
use crate::backup::{Objects, in_folder};
use crate::parts::{PostgresServer, shell_tools};

/// What `age --decrypt` makes of these bytes.
fn decrypted(identity: &std::path::Path, stored: &[u8]) -> Vec<u8> {
    let mut child = Command::new(shell_tools().join("age"))
        .args(["--decrypt", "--identity"])
        .arg(identity)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("age is installed");
    let mut input = child.stdin.take().expect("piped");
    let stored = stored.to_vec();
    let writing = std::thread::spawn(move || input.write_all(&stored));
    let output = child.wait_with_output().expect("age ends");
    writing.join().expect("no panic").expect("age reads all");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn the_program_age_decrypts_archives_texts_and_chunks_with_a_key_of_age_keygen() {
    let source = PostgresServer::shared(18).create_database("by_hand");
    source.load_shop(0.01);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identity = folder.path().join("identity.txt");
    let keygen = Command::new(shell_tools().join("age-keygen"))
        .arg("--output")
        .arg(&identity)
        .output()
        .expect("age-keygen is installed");
    assert!(keygen.status.success());
    let file = fs::read_to_string(&identity).expect("a text");
    let recipient = file.lines().find_map(|line| line.strip_prefix("# public key: "));
    let key = Key {
        recipient: recipient.expect("a public key").to_owned(),
        identity: String::new(),
    };
    let backups = folder.path().join("backups");
    let (request, _) = back_up(&source, to(in_folder(&backups), &[&key]), format("Chunks"));
    let objects = Objects(backups);
    let manifest = objects.manifest(&request.snapshot());
    for object in &manifest.objects {
        let content = decrypted(&identity, &objects.read(&object.key));
        match object.kind {
            ObjectKind::Archive => assert!(content.starts_with(b"PGDMP")),
            ObjectKind::Globals | ObjectKind::PreData => {
                assert!(String::from_utf8(content).expect("SQL").contains("PostgreSQL database"));
            }
        }
    }
    let relations = manifest.databases[0].relations.iter();
    for rows in relations.filter_map(|relation| relation.chunks.as_ref()) {
        for chunk in &rows.chunks {
            let (start, length) = (
                usize::try_from(chunk.offset).expect("in memory"),
                usize::try_from(chunk.stored_bytes).expect("in memory"),
            );
            let frame = decrypted(&identity, &objects.read(&chunk.object)[start..start + length]);
            let stream = zstd::stream::decode_all(&frame[..]).expect("one frame");
            assert_eq!(stream.len() as u64, chunk.bytes);
            if rows.format == RowFormat::Binary {
                assert!(stream.starts_with(b"PGCOPY\n"));
            }
        }
    }
    // And pgrescue reads the file that age-keygen wrote.
    let target = source.server.reserve_database("by_hand_copy");
    super::restore_with(&request, &target, &file).succeed();
    source.content().assert_same(&target.content());
}
