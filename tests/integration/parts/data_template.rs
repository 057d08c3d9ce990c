//! Data folders as initdb made them, kept in the cache for the next start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{new_folder, not_as_root};
use super::{Certificates, PASSWORD, SUPERUSER, cache};

/// Puts a new data folder to `data`, which is not there yet.
pub fn copy(major: u32, encoding: &str, data: &Path) {
    copy_folder(&template(major, encoding), data);
}

/// The folder that is copied; made where it is missing.
fn template(major: u32, encoding: &str) -> PathBuf {
    let stamp = fs::read_to_string(cache().join(format!("stamps/pg{major}"))).expect("installed");
    let template = cache().join(format!("data/{}-{encoding}", stamp.trim()));
    if template.exists() {
        return template;
    }
    let folder = new_folder(&format!("initdb{major}"));
    let password = Certificates::write(PASSWORD, &folder.join("password"));
    let installation = cache().join(format!("pg/{major}"));
    let made = folder.join("data");
    let initdb = not_as_root(&installation.join("bin/initdb"));
    let output = Command::new(&initdb[0])
        .args(&initdb[1..])
        .args([
            "-U",
            SUPERUSER,
            "-A",
            "scram-sha-256",
            "-E",
            encoding,
            "--locale=C",
            "-N",
        ])
        .arg(format!("--pwfile={}", password.display()))
        .arg("-D")
        .arg(&made)
        .env("LD_LIBRARY_PATH", installation.join("lib"))
        .output()
        .expect("initdb is installed");
    assert!(
        output.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::create_dir_all(cache().join("data")).expect("the cache is writable");
    // Whoever comes first wins; the temporary folder may be on another file system.
    let beside = cache().join(format!("data/.{}-{encoding}-{}", stamp.trim(), std::process::id()));
    copy_folder(&made, &beside);
    if fs::rename(&beside, &template).is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    let _ = fs::remove_dir_all(&folder);
    template
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .args([from, to])
        .status()
        .expect("cp is installed");
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}
