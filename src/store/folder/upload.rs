//! Writing an object as a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::{FolderStore, failed, run_blocking};
use crate::store::content::ObjectHash;
use crate::store::key::UNFINISHED;
use crate::store::{StoreError, StoredObject, Upload};

/// The unfinished file; gone with the value unless it was renamed.
#[derive(Debug)]
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[derive(Debug)]
pub(super) struct FolderUpload {
    store: FolderStore,
    key: String,
    target: PathBuf,
    file: File,
    temporary: Temporary,
    replace: bool,
    size: u64,
    sha256: ObjectHash,
}

impl FolderUpload {
    /// Of an object that takes the place of what is at `target`, or with `replace` false fails where anything is.
    pub(super) fn new(
        store: &FolderStore,
        key: &str,
        target: PathBuf,
        unfinished: (File, PathBuf),
        replace: bool,
    ) -> Self {
        let (file, temporary) = unfinished;
        Self {
            store: store.clone(),
            key: key.to_owned(),
            target,
            file,
            temporary: Temporary(Some(temporary)),
            replace,
            size: 0,
            sha256: ObjectHash::new(),
        }
    }
}

#[async_trait]
impl Upload for FolderUpload {
    fn set_sha256(&mut self, sha256: &str) {
        self.sha256 = ObjectHash::Known(sha256.to_owned());
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.sha256.update(&bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(&bytes).await.map_err(failed("write", &self.target))
    }

    async fn finish(mut self: Box<Self>) -> Result<StoredObject, StoreError> {
        self.file.flush().await.map_err(failed("write", &self.target))?;
        self.file.sync_all().await.map_err(failed("write", &self.target))?;
        let (target, replace, root) = (self.target.clone(), self.replace, self.store.root.clone());
        let Some(temporary) = self.temporary.0.clone() else {
            return Err(self.store.missing(&self.key));
        };
        let publish = move || publish(&temporary, &target, replace, &root);
        match run_blocking("write", &self.target, publish).await {
            Ok(()) => {}
            Err(StoreError::FileSystem { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StoreError::ObjectExists {
                    location: self.store.location.clone(),
                    key: self.key.clone(),
                });
            }
            Err(error) => return Err(error),
        }
        self.temporary.0 = None;
        Ok(StoredObject {
            key: self.key.clone(),
            size: self.size,
            sha256: self.sha256.finish(),
        })
    }

    async fn abort(mut self: Box<Self>) -> Result<(), StoreError> {
        let Some(temporary) = self.temporary.0.take() else {
            return Ok(());
        };
        match tokio::fs::remove_file(&temporary).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete", &temporary)(error)),
            _ => Ok(()),
        }
    }
}

/// Gives the file its name and makes the name last.
fn publish(temporary: &Path, target: &Path, replace: bool, root: &Path) -> io::Result<()> {
    if replace {
        std::fs::rename(temporary, target)?;
    } else {
        rename_new(temporary, target)?;
    }
    for folder in target.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        match std::fs::File::open(folder)?.sync_all() {
            // Some network file systems cannot sync a folder: its entries are on the server already.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// A link fails where the name is taken, a rename does not. File systems without links get the check that they can do.
fn rename_new(temporary: &Path, target: &Path) -> io::Result<()> {
    match std::fs::hard_link(temporary, target) {
        Ok(()) => std::fs::remove_file(temporary),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if target.try_exists()? => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => std::fs::rename(temporary, target),
    }
}

/// A name that no other process, pod or machine gives.
pub(super) fn unfinished_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let time = Timestamp::now().as_nanosecond();
    format!("{UNFINISHED}{:x}-{time:x}-{number:x}", std::process::id())
}
