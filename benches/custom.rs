//! Group `custom`: a backup in pg_dump's custom format to an S3 server on loopback, beside `pg_dump | upload`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::database;
use crate::figures::{Figure, median};
use crate::machine;
use crate::measured::{self, Run};
use crate::parts::{self, Database, PASSWORD, PostgresServer, S3Server, SUPERUSER};

const MAJOR: u32 = 18;
const BUCKET: &str = "bench";

/// Pairs of runs that count; one more warms everything up.
const PAIRS: usize = 5;

/// The least that an archive of the database takes: less means that something was left out.
const LEAST_ARCHIVE: u64 = 100 * 1024 * 1024;

pub fn measure() -> Vec<Figure> {
    let server = database::server(MAJOR);
    let store = S3Server::start();
    store.create_bucket(BUCKET);
    let (database, size) = database::fill(&server);
    let bench = Bench {
        server: &server,
        store: &store,
        database: &database,
        rclone: parts::rclone(),
        folder: tempfile::tempdir().expect("a temporary folder"),
    };
    bench.print_versions(size);

    let (mut ours, mut stock) = (Vec::new(), Vec::new());
    for pair in 0..=PAIRS {
        // In turns, and in turns who is first: what drifts hits both alike.
        let (our, their) = if pair % 2 == 0 {
            let our = bench.pgrescue();
            (our, bench.stock())
        } else {
            let their = bench.stock();
            (bench.pgrescue(), their)
        };
        let note = if pair == 0 { " (not counted)" } else { "" };
        println!(
            "run {pair}: pgrescue {:.2} s, {:.0} MiB; stock {:.2} s{note}",
            our.wall.as_secs_f64(),
            our.peak_mib,
            their.wall.as_secs_f64()
        );
        if pair > 0 {
            ours.push(our);
            stock.push(their);
        }
    }
    let seconds = |runs: &[Run]| median(runs.iter().map(|run| run.wall.as_secs_f64()).collect());
    let (our_seconds, stock_seconds) = (seconds(&ours), seconds(&stock));
    println!("median: pgrescue {our_seconds:.2} s, stock {stock_seconds:.2} s");
    let peak = ours.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
    vec![
        Figure::at_most(
            "backup.custom_vs_stock_zstd",
            our_seconds / stock_seconds,
            "ratio",
            1.10,
        ),
        Figure::at_most("agent.custom_peak_mib", peak, "MiB", 128.0),
    ]
}

struct Bench<'parts> {
    server: &'parts PostgresServer,
    store: &'parts S3Server,
    database: &'parts Database<'parts>,
    rclone: PathBuf,
    folder: tempfile::TempDir,
}

impl Bench<'_> {
    fn print_versions(&self, size: u64) {
        let tools = parts::client_folder(MAJOR);
        machine::row("server", &self.server.psql("postgres", "SELECT version()"));
        machine::row("pg_dump", &machine::version(&tools.join("pg_dump"), "--version"));
        machine::row("store", &format!("versitygw {}, loopback", parts::version("versitygw")));
        machine::row(
            "upload",
            &format!("rclone rcat, {}", machine::version(&self.rclone, "version")),
        );
        machine::row("database", &format!("{} MB", size / 1_000_000));
        machine::row("stock", "pg_dump -Fc --compress=zstd:1 | rclone rcat");
        machine::row(
            "backup",
            "pgrescue run -f backup.yaml, Zstd level 1, foreignCredentials Strip",
        );
    }

    /// `pgrescue run` of a backup of the database.
    fn pgrescue(&self) -> Run {
        let manifest = self.folder.path().join("backup.yaml");
        std::fs::write(&manifest, self.manifest()).expect("the folder is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrescue"));
        command
            .args(["run", "-f"])
            .arg(&manifest)
            .arg("--pg-bin-dir")
            .arg(parts::client_folder(MAJOR))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        forget_aws(&mut command);
        let run = measured::run(&mut command);
        let keys = self.store.keys(BUCKET);
        assert!(
            keys.iter().any(|key| key.ends_with("/manifest.json")),
            "no backup in {keys:?}"
        );
        self.check_and_remove();
        run
    }

    /// The same by the tools at hand.
    fn stock(&self) -> Run {
        let mut command = self.server.client(MAJOR, "pg_dump", &self.database.name);
        let program = command.get_program().to_owned();
        // One shell for both ends of the pipe; the names come as arguments, so nothing has to be quoted.
        let mut pipe = Command::new("bash");
        pipe.args(["-o", "pipefail", "-c"])
            .arg("\"$1\" -Fc --compress=zstd:1 | \"$2\" rcat --quiet --s3-no-check-bucket \"$3\"")
            .arg("bash")
            .args([program, self.rclone.clone().into_os_string()])
            .arg(format!("store:{BUCKET}/stock.dump"))
            .stdin(Stdio::null());
        for (name, value) in command.env("RCLONE_CONFIG", "/dev/null").get_envs() {
            match value {
                Some(value) => pipe.env(name, value),
                None => pipe.env_remove(name),
            };
        }
        for (name, value) in [
            ("TYPE", "s3"),
            ("PROVIDER", "Other"),
            ("ENDPOINT", &self.store.endpoint),
            ("REGION", S3Server::REGION),
            ("ACCESS_KEY_ID", S3Server::ACCESS_KEY),
            ("SECRET_ACCESS_KEY", S3Server::SECRET_KEY),
        ] {
            pipe.env(format!("RCLONE_CONFIG_STORE_{name}"), value);
        }
        forget_aws(&mut pipe);
        let run = measured::run(&mut pipe);
        self.check_and_remove();
        run
    }

    /// Each run writes to an empty bucket.
    fn check_and_remove(&self) {
        let folder = self.store.bucket_folder(BUCKET);
        let bytes: u64 = self
            .store
            .keys(BUCKET)
            .iter()
            .map(|key| size_of(&folder.join(key)))
            .sum();
        assert!(bytes > LEAST_ARCHIVE, "only {bytes} bytes were stored");
        assert!(self.store.orphan_parts(BUCKET).is_empty(), "parts were left");
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
        self.store.create_bucket(BUCKET);
    }

    fn manifest(&self) -> String {
        let secret = |name: &str, keys: serde_json::Value| serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys});
        let documents = [
            secret(
                "database",
                serde_json::json!({
                    "host": "127.0.0.1",
                    "port": self.server.port.to_string(),
                    "user": SUPERUSER,
                    "password": PASSWORD,
                    "dbname": self.database.name,
                }),
            ),
            secret(
                "s3",
                serde_json::json!({
                    "AWS_ACCESS_KEY_ID": S3Server::ACCESS_KEY,
                    "AWS_SECRET_ACCESS_KEY": S3Server::SECRET_KEY,
                }),
            ),
            serde_json::json!({
                "apiVersion": "pgrescue.dev/v1alpha1",
                "kind": "PgBackup",
                "metadata": {"name": "bench", "namespace": "default"},
                "spec": {
                    "connection": {"secretRef": {"name": "database"}},
                    "storage": {"s3": {
                        "bucket": BUCKET,
                        "region": S3Server::REGION,
                        "endpoint": self.store.endpoint,
                        "forcePathStyle": true,
                        "credentialsSecretRef": {"name": "s3"},
                    }},
                    "compression": {"method": "Zstd", "level": 1},
                },
            }),
        ];
        // JSON is YAML.
        documents.map(|document| document.to_string()).join("\n---\n")
    }
}

/// What the environment says about some other store is for none of both.
fn forget_aws(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
