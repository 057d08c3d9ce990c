//! Archives of real `pg_dump`s of 14 to 18: passed on, counted, cut, damaged, taken apart and restored.

use std::io::{Cursor, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};

use pgrescue::postgres::archive::{ArchiveError, ArchiveReader, DataSummary, Toc};
use pgrescue::postgres::memory_file::MemoryFile;

use crate::parts::{Database, PostgresServer};

/// An archive that `pg_dump` wrote to a pipe.
pub fn dump(from: &Database<'_>, client: u32, arguments: &[&str]) -> Vec<u8> {
    let output = from
        .server
        .client(client, "pg_dump", &from.name)
        .args(["-Fc", "--lock-wait-timeout=60s"])
        .args(arguments)
        .output()
        .expect("pg_dump is installed");
    assert!(
        output.status.success(),
        "pg_dump: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// An archive that `pg_dump` wrote to a standard output that is a file: from 16 on, a second table of contents is
/// appended there.
fn dump_redirected(from: &Database<'_>, client: u32) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    let output = from
        .server
        .client(client, "pg_dump", &from.name)
        .arg("-Fc")
        .stdout(file.reopen().expect("the file is there"))
        .output()
        .expect("pg_dump is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(file.path()).expect("written")
}

/// What the reader makes of an archive: table of contents, data part, counts.
pub async fn read(archive: Vec<u8>) -> Result<(Toc, Vec<u8>, DataSummary), ArchiveError> {
    let mut reader = ArchiveReader::open(Cursor::new(archive)).await?;
    let mut data = Vec::new();
    while let Some(bytes) = reader.next_block_bytes().await? {
        data.extend_from_slice(&bytes);
    }
    let summary = reader.summary().expect("the archive was read to its end").clone();
    Ok((reader.into_toc(), data, summary))
}

fn finish(command: &mut Command, input: &[u8]) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pg_restore is installed");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("pg_restore can be waited for");
    let _ = writer.join(); // it may have ended before it read everything
    assert!(
        output.status.success(),
        "pg_restore: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Restores with stock `pg_restore` from its standard input.
pub fn restore_from_stdin(to: &Database<'_>, client: u32, arguments: &[&str], archive: &[u8]) {
    let mut command = to.server.client(client, "pg_restore", &to.name);
    command.args(["--exit-on-error", "-d", &to.name]).args(arguments);
    finish(&mut command, archive);
}

/// Restores with stock `pg_restore` from a file in memory.
pub fn restore_from_memory(to: &Database<'_>, client: u32, arguments: &[&str], archive: &[u8]) {
    let file = MemoryFile::new("archive", archive).expect("memory can be had");
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_fd().as_raw_fd());
    let mut command = to.server.client(client, "pg_restore", &to.name);
    command
        .args(["--exit-on-error", "-d", &to.name])
        .args(arguments)
        .arg(path);
    finish(&mut command, b"");
}

/// Every table's rows as the server counts them and as the reader did.
fn assert_counts(from: &Database<'_>, toc: &Toc, summary: &DataSummary) {
    let mut tables = 0;
    for block in &summary.blocks {
        let entry = toc.entry(block.dump_id).expect("every block belongs to an entry");
        if entry.description != "TABLE DATA" {
            assert_eq!(block.rows, None);
            continue;
        }
        let oid = entry.catalog_oid;
        // Of an extension's table, the rows that the extension does not bring are dumped.
        let of_extension = format!("SELECT count(*) FROM pg_depend WHERE objid = {oid} AND deptype = 'e'");
        if from.psql(&of_extension) != "0" {
            continue;
        }
        let sql = format!("SELECT format('SELECT count(*) FROM ONLY %s', {oid}::regclass) \\gexec\n");
        let counted = from.psql(&sql);
        assert_eq!(
            block.rows.map(|rows| rows.to_string()),
            Some(counted),
            "{}",
            entry.label()
        );
        tables += 1;
    }
    assert!(tables > 20, "only {tables} tables were counted");
    let objects = from.psql("SELECT count(*) FROM pg_largeobject_metadata");
    assert_eq!(summary.large_objects().to_string(), objects);
}

async fn archives_pass_through(major: u32) {
    let server = PostgresServer::shared(major);
    let source = server.create_database("archive_source");
    source.load_everything();
    let compressions: &[&str] = if major >= 16 {
        &["-Znone", "-Zgzip:1", "-Zlz4", "-Zzstd:1"]
    } else {
        &["-Z0", "-Z1"]
    };
    for compression in compressions {
        let archive = dump(&source, major, &[compression]);
        let (toc, data, summary) = read(archive.clone()).await.expect("the archive is whole");
        assert_counts(&source, &toc, &summary);
        let head = toc.to_bytes();
        assert_eq!(
            archive[..head.len()],
            head,
            "the table of contents is written as it was read"
        );
        assert_eq!(archive[head.len()..head.len() + data.len()], data, "{compression}");
        for block in &summary.blocks {
            let at = head.len() + usize::try_from(block.offset).expect("small");
            assert!(matches!(archive[at], 1 | 3), "a block begins where it is said to");
        }
        let stored: u64 = summary.blocks.iter().map(|block| block.stored_bytes).sum();
        assert_eq!(stored, data.len() as u64);

        let target = server.create_database_with("archive_target", "TEMPLATE template0");
        restore_from_stdin(&target, major, &[], &[head, data].concat());
        source.content().assert_same(&target.content());
        source.schema().assert_same(&target.schema());
    }
}

macro_rules! on_every_client {
    ($($name:ident: $major:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            archives_pass_through($major).await;
        }
    )*};
}

on_every_client! {
    an_archive_of_14_passes_through_unchanged_and_is_counted: 14;
    an_archive_of_15_passes_through_unchanged_and_is_counted: 15;
    an_archive_of_16_passes_through_unchanged_and_is_counted: 16;
    an_archive_of_17_passes_through_unchanged_and_is_counted: 17;
    an_archive_of_18_passes_through_unchanged_and_is_counted: 18;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pre_data_data_and_post_data_of_one_archive_make_the_whole() {
    for major in [15, 16, 18] {
        let server = PostgresServer::shared(major);
        let source = server.create_database("sections_source");
        source.load_everything();
        let (toc, data, _) = read(dump(&source, major, &[])).await.expect("whole");
        let definitions = toc.without_data().to_bytes();
        let target = server.create_database_with("sections_target", "TEMPLATE template0");
        restore_from_memory(&target, major, &["--section=pre-data"], &definitions);
        let all = [toc.to_bytes(), data].concat();
        restore_from_stdin(&target, major, &["--section=data"], &all);
        restore_from_memory(&target, major, &["--section=post-data", "-j4"], &definitions);
        source.content().assert_same(&target.content());
        source.schema().assert_same(&target.schema());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_latin1_archive_is_passed_on_byte_for_byte() {
    let server = PostgresServer::with(15).encoding("LATIN1").start();
    let source = server.create_database("latin");
    source.psql(
        "CREATE TABLE \"größe\" (\"maß\" text); INSERT INTO \"größe\" VALUES ('fünf'), ('sechs'); \
         COMMENT ON TABLE \"größe\" IS 'übel'",
    );
    let archive = dump(&source, 15, &["-E", "LATIN1"]);
    let (toc, data, summary) = read(archive.clone()).await.expect("whole");
    assert_eq!(toc.encoding(), Some("LATIN1"));
    assert_eq!(summary.rows(), 2);
    assert!(
        toc.entries
            .iter()
            .any(|entry| entry.tag.as_ref().is_some_and(|tag| tag.to_str().is_none()))
    );
    assert_eq!(
        [toc.to_bytes(), data].concat(),
        archive,
        "15 appends no second table of contents"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_archive_is_an_error_wherever_it_is_cut() {
    for major in [15, 16, 18] {
        let server = PostgresServer::shared(major);
        let source = server.create_database("cut");
        source.load_plain();
        let archive = dump_redirected(&source, major);
        let (toc, data, summary) = read(archive.clone()).await.expect("whole");
        let head = toc.to_bytes().len();
        let begins = |offset: u64| head + usize::try_from(offset).expect("small");
        let between_blocks: Vec<_> = summary.blocks.iter().map(|block| begins(block.offset)).collect();
        assert!(between_blocks.len() > 1);
        let whole = toc.to_bytes().len() + data.len();
        if major >= 16 {
            assert!(
                archive.len() > whole,
                "pg_dump {major} appends a second table of contents"
            );
        }
        // Every byte near what has a meaning of its own, and steps elsewhere.
        let marks = [&between_blocks[..], &[0, whole, archive.len()]].concat();
        let interesting = |cut: usize| cut.is_multiple_of(23) || marks.iter().any(|mark| cut.abs_diff(*mark) < 40);
        for cut in (0..archive.len()).filter(|cut| interesting(*cut) && *cut != whole) {
            let Err(error) = read(archive[..cut].to_vec()).await else {
                panic!(
                    "an archive of {major} cut at {cut} of {} is taken as whole",
                    archive.len()
                );
            };
            assert!(error.is_truncation(), "cut at {cut}: {error}");
        }
        assert!(
            read(archive[..whole].to_vec()).await.is_ok(),
            "the second table of contents is not needed"
        );
        for tail in [&b"x"[..], b"\0", b"\x01", b"\0\0\0\0\0"] {
            let grown = [&archive[..whole], tail].concat();
            assert!(read(grown).await.is_err(), "{tail:?} after the last block");
            let grown = [&archive[..], tail].concat();
            assert!(read(grown).await.is_err(), "{tail:?} at the end");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_data_is_an_error() {
    let server = PostgresServer::shared(18);
    let source = server.create_database("damaged");
    source.psql("CREATE TABLE t AS SELECT i, md5(i::text) AS hash FROM generate_series(1, 20000) i");
    for compression in ["-Zgzip:1", "-Zlz4", "-Zzstd:1"] {
        let archive = dump(&source, 18, &[compression]);
        let (toc, data, summary) = read(archive.clone()).await.expect("whole");
        assert_eq!(summary.rows(), 20000);
        let head = toc.to_bytes().len();
        // Lengths and stream headers are at the beginning of the block.
        for at in [0, 1, 3, 6, 7, 11, 12, 13] {
            let mut damaged = archive.clone();
            damaged[head + at] ^= 0x55;
            assert!(read(damaged).await.is_err(), "{compression}, byte {at} of the block");
        }
        // Of the three, zlib alone has a checksum of what was compressed.
        if compression == "-Zgzip:1" {
            let mut zeroed = archive.clone();
            zeroed[head + data.len() / 2..head + data.len() / 2 + 64].fill(0);
            assert!(read(zeroed).await.is_err(), "64 bytes zeroed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_pg_dump_writes_to_a_file_is_read_and_restored_from_a_pipe() {
    for major in [14, 17] {
        let server = PostgresServer::shared(major);
        let source = server.create_database("file");
        source.load_plain();
        let file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
        dump(&source, major, &["-f", file.path().to_str().expect("a plain path")]);
        let archive = std::fs::read(file.path()).expect("written");
        let (toc, data, _) = read(archive).await.expect("whole");
        let target = server.create_database_with("file_target", "TEMPLATE template0");
        restore_from_stdin(&target, major, &[], &[toc.to_bytes(), data].concat());
        source.content().assert_same(&target.content());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_reader_ends_its_writer() {
    let server = PostgresServer::shared(18);
    let source = server.create_database("dropped");
    source.psql("CREATE TABLE t AS SELECT i, md5(i::text) AS hash FROM generate_series(1, 400000) i");
    let mut command = tokio::process::Command::from(server.client(18, "pg_dump", &source.name));
    let mut child = command
        .args(["-Fc", "-Znone"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_dump is installed");
    let mut reader = ArchiveReader::open(child.stdout.take().expect("a pipe"))
        .await
        .expect("whole");
    assert!(reader.next_block_bytes().await.expect("readable").is_some());
    drop(reader);
    let status = tokio::time::timeout(std::time::Duration::from_mins(1), child.wait())
        .await
        .expect("pg_dump ends when nobody reads")
        .expect("it can be waited for");
    assert!(!status.success());
}
