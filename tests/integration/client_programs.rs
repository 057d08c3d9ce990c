//! The stock client programs as pgrescue runs them: connected by password and certificate, with no secret where others
//! can read it, stopped when told to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgrescue::api::reasons;
use pgrescue::api::status::FailureClass;
use pgrescue::postgres::client_tools::{ClientTools, ToolSet};
use pgrescue::postgres::memory_file::MemoryFile;
use pgrescue::postgres::program::{Program, ProgramError, RunningProgram};
use secrecy::SecretString;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use crate::parts::{Certificates, PASSWORD, PostgresServer, TlsMode, cache, client_folder};
use crate::reach::settings;

/// Major versions whose client programs are at hand.
const CLIENTS: [u32; 5] = [14, 15, 16, 17, 18];

fn tools(major: u32) -> ToolSet {
    client_folder(major);
    let tools = ClientTools::find(Some(&cache().join("pg"))).expect("programs are installed");
    tools
        .sets()
        .find(|set| set.major == major)
        .expect("this version")
        .clone()
}

async fn finished(mut running: RunningProgram) -> (bool, Vec<u8>, String) {
    let mut stdout = Vec::new();
    if let Some(mut pipe) = running.stdout.take() {
        pipe.read_to_end(&mut stdout).await.expect("a pipe");
    }
    let output = running.wait(&CancellationToken::new()).await.expect("it ended");
    (output.is_success(), stdout, output.stderr)
}

/// What everyone on the machine could read of a process and its children: arguments and environment.
fn visible(process: u32) -> String {
    let mut text = String::new();
    let mut todo = vec![process];
    while let Some(process) = todo.pop() {
        let folder = PathBuf::from(format!("/proc/{process}"));
        for name in ["cmdline", "environ"] {
            text.push_str(
                &String::from_utf8_lossy(&fs::read(folder.join(name)).unwrap_or_default()).replace('\0', "\n"),
            );
            text.push('\n');
        }
        let children = fs::read_to_string(folder.join(format!("task/{process}/children"))).unwrap_or_default();
        todo.extend(
            children
                .split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
    }
    text
}

/// Waits until the server shows this many sessions with the query.
fn wait_for_sessions(server: &PostgresServer, like: &str, count: usize) {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%{like}%'");
    let deadline = Instant::now() + Duration::from_mins(1);
    while server.psql("postgres", &sql).parse::<usize>().expect("a number") < count {
        assert!(Instant::now() < deadline, "no session with {like}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_programs_of_every_version_are_found_below_one_folder() {
    for major in CLIENTS {
        let set = tools(major);
        assert!(set.version.starts_with(&format!("{major}.")), "{set:?}");
    }
    let error = ClientTools::find(Some(Path::new("/proc"))).expect_err("no programs there");
    assert!(error.to_string().contains("/proc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_program_of_every_version_logs_in_by_password_and_certificate() {
    let server = PostgresServer::with(14).tls(TlsMode::ClientCertificate).start();
    let database = server.create_database("it's a \\ \"database\"");
    database.load_plain();
    let settings = settings(&server, &database.name).await;
    for major in CLIENTS {
        let tools = tools(major);
        let start = |program: &str| {
            Program::new(&tools, program)
                .connect_to(&settings, &database.name)
                .pipe_stdout()
        };

        let psql = start("psql").args(["-X", "-A", "-t", "-w", "-c", "SELECT current_database()"]);
        let (success, stdout, stderr) = finished(psql.spawn().expect("psql starts")).await;
        assert!(success, "{major}: {stderr}");
        assert_eq!(String::from_utf8_lossy(&stdout).trim_end(), database.name);

        let (success, globals, stderr) = finished(
            start("pg_dumpall")
                .args(["--globals-only", "-w"])
                .spawn()
                .expect("it starts"),
        )
        .await;
        assert!(
            success && String::from_utf8_lossy(&globals).contains("CREATE ROLE postgres"),
            "{major}: {stderr}"
        );

        let (success, archive, stderr) =
            finished(start("pg_dump").args(["-Fc", "-w"]).spawn().expect("it starts")).await;
        assert!(success && !archive.is_empty(), "{major}: {stderr}");
        if major > 16 {
            continue; // their archives ask for a setting that this server does not know
        }
        let target = server.create_database("target");
        let mut restore = Program::new(&tools, "pg_restore").connect_to(&settings, &target.name);
        let path = restore.pass(MemoryFile::new("archive", &archive).expect("memory"));
        let (success, _, stderr) =
            finished(restore.args(["-w", "-j", "3"]).arg(path).spawn().expect("it starts")).await;
        assert!(success, "{major}: {stderr}");
        target.content().assert_same(&database.content());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_stands_in_arguments_or_environment_of_a_program_or_what_it_forks() {
    let server = PostgresServer::with(14).tls(TlsMode::ClientCertificate).start();
    let database = server.create_database("watched");
    database.load_plain();
    let settings = settings(&server, &database.name).await;
    let certificates = Certificates::of_this_process();
    let key: BTreeSet<&str> = certificates
        .client_key
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let check = |running: &RunningProgram, program: &str| {
        let text = visible(running.id().expect("it runs"));
        assert!(text.contains(program) && text.contains("LC_ALL=C"), "{text}");
        assert!(!text.contains("canary") && !text.contains(PASSWORD), "{text}");
        assert!(key.iter().all(|line| !text.contains(line)), "{text}");
    };
    let holder = settings.connect().await.expect("a session");
    holder
        .batch_execute("BEGIN; LOCK TABLE customer IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("a lock");
    for major in CLIENTS {
        let start = |program: &str| Program::new(&tools(major), program).connect_to(&settings, &database.name);
        let stop = CancellationToken::new();

        let psql = start("psql")
            .args(["-X", "-w", "-c", "SELECT 'waits', pg_sleep(600)"])
            .spawn()
            .expect("it starts");
        wait_for_sessions(&server, "SELECT ''waits''", 1);
        check(&psql, "psql");

        let dump = start("pg_dump").args(["-Fc", "-w"]).spawn().expect("it starts");
        wait_for_sessions(&server, "LOCK TABLE public.%", 1);
        check(&dump, "pg_dump");

        // Told to stop, they end, and so do their sessions.
        stop.cancel();
        for running in [psql, dump] {
            let process = running.id().expect("it runs");
            let error = running.wait(&stop).await.expect_err("stopped");
            assert!(matches!(error, ProgramError::Stopped { .. }), "{error}");
            assert_eq!(error.refusal(reasons::DUMP_FAILED).class, FailureClass::Interrupted);
            assert!(!Path::new(&format!("/proc/{process}")).exists());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parallel_restore_forks_workers_that_read_the_memory_files_too() {
    let server = PostgresServer::with(15).tls(TlsMode::ClientCertificate).start();
    let (source, target) = (server.create_database("source"), server.create_database("target"));
    source.load_plain();
    let settings = settings(&server, &source.name).await;
    let tools = tools(15);
    let dump = Program::new(&tools, "pg_dump")
        .connect_to(&settings, &source.name)
        .args(["-Fc", "-w"])
        .pipe_stdout();
    let (_, archive, _) = finished(dump.spawn().expect("it starts")).await;
    // The rows wait for a lock that the workers meet.
    let mut schema = Program::new(&tools, "pg_restore")
        .connect_to(&settings, &target.name)
        .args(["-w", "--section=pre-data"]);
    let path = schema.pass(MemoryFile::new("archive", &archive).expect("memory"));
    assert!(finished(schema.arg(path).spawn().expect("it starts")).await.0);
    let holder = settings.with_database(&target.name).connect().await.expect("a session");
    holder
        .batch_execute("BEGIN; LOCK TABLE customer, purchase IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("a lock");

    let mut data = Program::new(&tools, "pg_restore")
        .connect_to(&settings, &target.name)
        .args(["-w", "--section=data", "-j", "2"]);
    let path = data.pass(MemoryFile::new("archive", &archive).expect("memory"));
    let running = data.arg(path).spawn().expect("it starts");
    wait_for_sessions(&server, "COPY public.", 2);
    let text = visible(running.id().expect("it runs"));
    assert!(
        text.matches("--section=data").count() >= 3,
        "the parent and two workers: {text}"
    );
    assert!(!text.contains("canary"), "{text}");

    // Killed with what it forked when it is dropped.
    drop(running);
    let deadline = Instant::now() + Duration::from_mins(1);
    holder.batch_execute("ROLLBACK").await.expect("the lock goes");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgrescue' AND query LIKE '%COPY public.%' AND state = 'active'";
    while server.psql("postgres", sql) != "0" {
        assert!(Instant::now() < deadline, "a worker lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_says_of_a_failure_is_kept_without_its_secrets() {
    let server = PostgresServer::shared(16);
    let settings = settings(server, "postgres").await;
    let secret = "canary:it's \\ one";
    let statement = "CREATE USER MAPPING FOR postgres SERVER missing OPTIONS (password E'canary:it''s \\\\ one')";
    let psql = Program::new(&tools(16), "psql")
        .connect_to(&settings, "postgres")
        .mask(SecretString::from(secret))
        .args(["-X", "-w", "-b", "-v", "ON_ERROR_STOP=1", "-c", statement]);
    let output = psql
        .spawn()
        .expect("it starts")
        .wait(&CancellationToken::new())
        .await
        .expect("it ended");
    assert!(!output.is_success());
    assert!(
        output.stderr.contains("missing") && output.stderr.contains("********"),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("canary"), "{}", output.stderr);
    let error = output.require_success().expect_err("exit code 1");
    let refusal = error.refusal(reasons::RESTORE_FAILED);
    assert_eq!(
        (refusal.reason.as_str(), refusal.class),
        (reasons::RESTORE_FAILED, FailureClass::Permanent)
    );
}

#[test]
fn a_program_that_cannot_start_is_named() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let nowhere = ToolSet {
        major: 18,
        version: "18.0".into(),
        bin: "/nonexistent".into(),
    };
    let error = runtime.block_on(async { Program::new(&nowhere, "pg_dump").spawn().expect_err("not there") });
    assert!(error.to_string().starts_with("pg_dump could not be started"), "{error}");
}
