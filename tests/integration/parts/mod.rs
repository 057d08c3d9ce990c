//! The real parts that the tests run against: servers that start in under a
//! second, stop when they are dropped (also when the test process is killed),
//! and ways to compare what databases hold. Nothing of the product belongs here.

#![allow(dead_code, reason = "a part offers more than the tests of one moment use")]

mod certificates;
mod content;
mod data_template;
mod faulty;
mod network;
mod pgbouncer;
mod postgres;
mod process;
mod s3;
mod schema;
mod toxiproxy;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

pub use certificates::Certificates;
pub use content::Content;
pub use faulty::{Fault, FaultyProxy, Request};
pub use pgbouncer::PgBouncer;
pub use postgres::{Database, PASSWORD, PostgresServer, SUPERUSER, TlsMode, quoted};
pub use process::not_as_root;
pub use s3::S3Server;
pub use schema::Schema;
pub use toxiproxy::{Proxy, Toxiproxy};

/// Every major version that the product supports as a server.
pub const MAJORS: [u32; 7] = [12, 13, 14, 15, 16, 17, 18];

/// The newest client programs; they talk to every supported server.
pub const NEWEST_CLIENT: u32 = 18;

/// The folder outside the checkout where the parts are installed.
pub fn cache() -> PathBuf {
    std::env::var_os("PGRESCUE_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/pgrescue"),
        PathBuf::from,
    )
}

/// Installs a part of `tests/parts/install.sh` where it is missing, once per test process.
fn install(part: &str) {
    static INSTALLED: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    let mut installed = INSTALLED
        .get_or_init(Mutex::default)
        .lock()
        .expect("no installation panicked");
    if installed.iter().any(|done| done == part) {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parts/install.sh");
    let output = Command::new(script).arg(part).output().expect("bash is installed");
    assert!(
        output.status.success(),
        "{script} {part}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    installed.push(part.to_owned());
}

/// The installed version of a part.
pub fn version(part: &str) -> String {
    install(part);
    let stamp = std::fs::read_to_string(cache().join("stamps").join(part)).expect("installed");
    stamp.trim().to_owned()
}

/// A stock tool that uploads standard input to an S3 server.
pub fn rclone() -> PathBuf {
    install("rclone");
    cache().join("rclone/rclone")
}

/// The folder with `zstd`, `age` and `jq`, which a restore by hand needs.
pub fn shell_tools() -> PathBuf {
    install("shell-tools");
    cache().join("shell-tools/bin")
}

/// The folder with the client programs of a major version (14 and later), for `--pg-bin-dir`.
pub fn client_folder(major: u32) -> PathBuf {
    assert!(
        major >= 14,
        "only servers of PostgreSQL {major} are at hand, no clients"
    );
    install(&format!("pg{major}"));
    cache().join(format!("pg/{major}/bin"))
}
