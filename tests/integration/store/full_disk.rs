//! No room: on the disk of the S3 server, and on a volume.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use pgrescue::api::reasons;
use pgrescue::plan::Refusal;
use pgrescue::plan::storage::StoragePlan;
use pgrescue::store::{self, StoreError};

use super::{BUCKET, PART, content, good_secret, open, unfinished_uploads};
use crate::parts::S3Server;

/// A small file system; unmounted when dropped.
pub struct SmallDisk {
    mounted_at: PathBuf,
    _image: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts 48 MiB at a folder. A file on a loop device, for a tmpfs keeps no attributes on older kernels, and the
    /// S3 server needs them.
    pub fn mount(at: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let image = folder.path().join("image");
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(48 * 1024 * 1024))
            .expect("room for the image");
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image.display().to_string()]);
        run(
            "mount",
            &["-o", "loop", &image.display().to_string(), &at.display().to_string()],
        );
        Self {
            mounted_at: at.to_owned(),
            _image: folder,
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.mounted_at.display().to_string()]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_full_bucket_is_said_to_be_full_and_keeps_no_parts() {
    let server = S3Server::start();
    server.create_bucket(BUCKET);
    let _disk = SmallDisk::mount(&server.bucket_folder(BUCKET));
    let store = open(&server.endpoint).await;

    let mut upload = store.create("archive").await.unwrap();
    let mut written = Ok(());
    for _ in 0..10 {
        written = upload.write(content(PART)).await;
        if written.is_err() {
            break;
        }
    }
    let error = written.expect_err("80 MiB do not fit 48");
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    upload.abort().await.unwrap();
    assert_eq!(unfinished_uploads(&server).await, 0);
    assert_eq!(server.orphan_parts(BUCKET).len(), 0);

    let error = store::put(&*store, "archive", content(10 * PART)).await.unwrap_err();
    assert_eq!(Refusal::from(error).reason, reasons::STORE_FULL);
    assert!(store.list("").await.unwrap().is_empty());
    store::put(&*store, "small", Bytes::from_static(b"x")).await.unwrap();
}

#[tokio::test]
async fn a_full_volume_is_said_to_be_full_and_keeps_no_half_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = SmallDisk::mount(folder.path());
    let plan = StoragePlan::Folder {
        path: folder.path().join("backups").display().to_string(),
    };
    let store = store::open(&plan, &good_secret()).await.unwrap();
    store.check_access(true).await.unwrap();
    let error = store::put(&*store, "archive", content(10 * PART)).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(store.list("").await.unwrap().is_empty());
    assert_eq!(store.abort_uploads("").await.unwrap(), 0);
    store::put(&*store, "fits", content(4 * PART)).await.unwrap();
    drop(disk);
}
