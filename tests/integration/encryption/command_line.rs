//! The same as people and pipelines do it, and where the identity must not be seen: output, logs, and the arguments and
//! environments of the programs that are started.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::Key;
use crate::parts::{Database, PASSWORD, PostgresServer, SUPERUSER, client_folder};

const MAJOR: u32 = 17;

/// Client programs that write down how they were called, and then do their work.
fn telling_programs(folder: &Path, told: &Path) {
    let real = client_folder(MAJOR);
    for program in ["pg_dump", "pg_dumpall", "pg_restore", "psql"] {
        let script = format!(
            "#!/bin/sh\n{{ echo \"$0 $*\"; cat /proc/$$/environ; }} >>'{}'\nexec '{}' \"$@\"\n",
            told.display(),
            real.join(program).display()
        );
        let path = folder.join(program);
        fs::write(&path, script).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    }
}

fn manifests(source: &Database<'_>, target: &Database<'_>, key: &Key) -> [Value; 4] {
    let of = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "pgrescue.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let secret = |name: &str, keys: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys});
    let connection = json!({"host": "127.0.0.1", "port": source.server.port, "user": SUPERUSER, "database": source.name,
        "passwordSecretRef": {"name": "db", "key": "password"}});
    let encryption = json!({"age": {"recipients": [key.recipient]}});
    let decryption = json!({"age": {"identitySecretRef": {"name": "identity", "key": "identity.txt"}}});
    [
        secret("db", json!({ "password": PASSWORD })),
        secret("identity", json!({ "identity.txt": key.file() })),
        of(
            "PgBackup",
            "orders",
            json!({"connection": connection, "dataFormat": "Chunks", "foreignCredentials": "Keep",
                "unloggedTableData": "Include", "storage": {"folder": {"path": "backups"}, "encryption": encryption}}),
        ),
        of(
            "PgRestore",
            "copy",
            json!({"source": {"backup": {"name": "orders"}, "decryption": decryption},
                "target": {"connection": connection, "database": target.name}, "unmatchedForeignServers": "Keep"}),
        ),
    ]
}

fn write(folder: &Path, name: &str, manifests: &[Value]) {
    let documents: Vec<String> = manifests.iter().map(Value::to_string).collect();
    fs::write(folder.join(name), documents.join("\n---\n")).expect("the folder is ours");
}

#[test]
fn an_identity_is_in_no_output_no_log_no_argument_and_no_environment() {
    let source = PostgresServer::shared(MAJOR).create_database("unseen");
    source.load_shop(0.01);
    let target = source.server.reserve_database("unseen_copy");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (bin, told) = (folder.path().join("bin"), folder.path().join("told"));
    fs::create_dir(&bin).expect("the folder is ours");
    telling_programs(&bin, &told);
    let key = Key::new();
    let manifests = manifests(&source, &target, &key);
    write(folder.path(), "all.yaml", &manifests);
    fs::write(folder.path().join("identity.txt"), key.file()).expect("the folder is ours");
    let stranger = Key::new();
    fs::write(folder.path().join("stranger.txt"), stranger.file()).expect("the folder is ours");
    // Its beginning is enough to know it by; sentences name what every identity begins with.
    let secrets = [&key, &stranger].map(|key| {
        let file = key.file();
        let line = file.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1"));
        line.expect("an identity")[..32].to_owned()
    });
    let assert_silent = |text: &[u8], of: &[&str]| {
        let text = String::from_utf8_lossy(text).to_ascii_uppercase();
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{of:?}: {text}");
    };
    let pgrescue = |arguments: &[&str]| -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_pgrescue"))
            .args(arguments)
            .current_dir(folder.path())
            .env("PGRESCUE_LOG", "trace")
            .output()
            .expect("cargo has built it");
        assert_silent(&output.stdout, arguments);
        assert_silent(&output.stderr, arguments);
        output
    };
    let code = |output: &Output| output.status.code();
    let bin = bin.display().to_string();
    let run = pgrescue(&["run", "-f", "all.yaml", "--output", "json", "--pg-bin-dir", &bin]);
    assert_eq!(code(&run), Some(0), "{}", String::from_utf8_lossy(&run.stdout));
    source.content().assert_same(&target.content());
    let told = fs::read(&told).expect("programs were started");
    assert_silent(&told, &["the programs"]);
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("pg_restore") && told.contains("pg_dump "), "{told}");

    let listed = pgrescue(&["snapshots", "-f", "all.yaml"]);
    assert!(
        String::from_utf8_lossy(&listed.stdout).contains("Chunks+age"),
        "{listed:?}"
    );
    let listed = pgrescue(&["snapshots", "-f", "all.yaml", "--output", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["recipients"], json!([key.recipient]));
    for (arguments, expected, text) in [
        (&["--level", "1"][..], 0, ""),
        (&["--level", "2"], 0, ""),
        (&["--level", "3", "--identity-file", "identity.txt"], 0, ""),
        (&["--level", "3"], 10, "no identity was given"),
        (
            &["--level", "3", "--identity-file", "stranger.txt"],
            10,
            "none of the given identities opens it",
        ),
        (
            &["--level", "3", "--identity-file", "all.yaml"],
            10,
            "is no identity file of age",
        ),
        (&["--level", "3", "--identity-file", "absent.txt"], 10, "cannot be read"),
    ] {
        let output = pgrescue(&[&["check", "-f", "all.yaml"], arguments].concat());
        let told = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        assert_eq!(code(&output), Some(expected), "{arguments:?}: {told}");
        assert!(told.contains(text), "{arguments:?}: {told}");
    }
}

#[test]
fn a_secret_key_in_the_place_of_a_recipient_is_refused_and_not_repeated() {
    let server = PostgresServer::shared(MAJOR);
    let source = server.reserve_database("never_backed_up");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = Key::new();
    let mut manifests = manifests(&source, &source, &key);
    manifests[2]["spec"]["storage"]["encryption"]["age"]["recipients"] = json!([key.recipient, key.identity]);
    write(folder.path(), "backup.yaml", &manifests[..3]);
    let output = Command::new(env!("CARGO_BIN_EXE_pgrescue"))
        .args(["run", "-f", "backup.yaml"])
        .current_dir(folder.path())
        .env("PGRESCUE_LOG", "trace")
        .output()
        .expect("cargo has built it");
    let told = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(10), "{told}");
    assert!(told.contains("recipients[1] is a secret key"), "{told}");
    assert!(!told.contains(&key.identity), "{told}");
    assert!(!folder.path().join("backups").exists());
}
