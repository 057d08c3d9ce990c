//! Objects as files of a folder: a volume in the cluster, or a local folder for `pgrescue run`.
//!
//! An object is written under a temporary name beside its own, synced, renamed, and the folder synced: after a crash
//! it is there whole or not at all.

mod upload;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::key::{self, UNFINISHED};
use super::{ByteStream, ObjectInfo, Retention, Store, StoreError, Upload};
use upload::{FolderUpload, unfinished_name};

/// Bytes read at once.
const READ_SIZE: usize = 256 * 1024;

/// Who may read what is written.
#[derive(Clone, Copy, Debug)]
struct Modes {
    file: u32,
    folder: u32,
}

/// A folder as a store.
#[derive(Clone, Debug)]
pub struct FolderStore {
    root: PathBuf,
    location: String,
    modes: Modes,
}

impl FolderStore {
    /// A local folder; it is made by the first write. Only its owner can read what is written there.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        let root = std::path::absolute(path.as_ref()).unwrap_or_else(|_| path.as_ref().to_owned());
        Self {
            location: format!("file://{}", root.display()),
            root,
            modes: Modes {
                file: 0o600,
                folder: 0o700,
            },
        }
    }

    /// A folder of a volume. Its group (`fsGroup`) can read what is written there: another pod may run as another user.
    pub(super) fn of_volume(root: PathBuf, location: String) -> Self {
        Self {
            root,
            location,
            modes: Modes {
                file: 0o660,
                folder: 0o770,
            },
        }
    }

    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        key::check(key)?;
        Ok(self.root.join(key))
    }

    fn missing(&self, key: &str) -> StoreError {
        StoreError::ObjectMissing {
            location: self.location.clone(),
            key: key.to_owned(),
        }
    }

    async fn begin(&self, key: &str, replace: bool) -> Result<Box<dyn Upload>, StoreError> {
        let target = self.path(key)?;
        let folder = target.parent().unwrap_or(&self.root).to_owned();
        let unfinished = self.make_unfinished(&folder).await?;
        Ok(Box::new(FolderUpload::new(self, key, target, unfinished, replace)))
    }

    async fn make_unfinished(&self, folder: &Path) -> Result<(File, PathBuf), StoreError> {
        let temporary = folder.join(unfinished_name());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(self.modes.file);
        self.make_folder(folder).await?;
        let opened = match options.open(&temporary).await {
            // A deletion beside us has taken the folder away as it became empty.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_folder(folder).await?;
                options.open(&temporary).await
            }
            opened => opened,
        };
        Ok((opened.map_err(failed("create", &temporary))?, temporary))
    }

    async fn make_folder(&self, folder: &Path) -> Result<(), StoreError> {
        let mut builder = tokio::fs::DirBuilder::new();
        builder.recursive(true).mode(self.modes.folder);
        builder.create(folder).await.map_err(failed("create", folder))
    }

    /// Every file below the root whose key begins with `prefix`, unfinished ones too. The part of the prefix before
    /// its last slash is a folder: nothing outside it is looked at.
    async fn files(&self, prefix: &str) -> Result<Vec<FoundFile>, StoreError> {
        let top = match prefix.rsplit_once('/') {
            Some((folder, _)) => {
                key::check(folder)?;
                folder.to_owned()
            }
            None => String::new(),
        };
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        let walk = move || {
            let mut found = Vec::new();
            walk(&root, &top, &mut found)?;
            found.retain(|file| file.key.starts_with(&prefix));
            found.sort_by(|one, other| one.key.cmp(&other.key));
            Ok(found)
        };
        run_blocking("list", &self.root, walk).await
    }
}

#[derive(Debug)]
struct FoundFile {
    key: String,
    size: u64,
    unfinished: bool,
}

/// Names that are not UTF-8 are not ours. Folders that go away meanwhile are empty.
fn walk(root: &Path, folder: &str, found: &mut Vec<FoundFile>) -> io::Result<()> {
    let entries = match std::fs::read_dir(root.join(folder)) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let key = if folder.is_empty() {
            name.clone()
        } else {
            format!("{folder}/{name}")
        };
        if metadata.is_dir() {
            walk(root, &key, found)?;
        } else if metadata.is_file() {
            found.push(FoundFile {
                unfinished: name.starts_with(UNFINISHED),
                size: metadata.len(),
                key,
            });
        }
    }
    Ok(())
}

#[async_trait]
impl Store for FolderStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    async fn create(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        self.begin(key, true).await
    }

    async fn create_new(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        self.begin(key, false).await
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<ByteStream, StoreError> {
        let path = self.path(key)?;
        let mut file = File::open(&path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => self.missing(key),
            _ => failed("read", &path)(error),
        })?;
        let metadata = file.metadata().await.map_err(failed("read", &path))?;
        if !metadata.is_file() {
            return Err(self.missing(key));
        }
        let range = range.unwrap_or(0..metadata.len());
        if range.start > range.end || range.end > metadata.len() {
            return Err(StoreError::RangeOutside {
                location: self.location.clone(),
                key: key.to_owned(),
                start: range.start,
                end: range.end,
            });
        }
        file.seek(io::SeekFrom::Start(range.start))
            .await
            .map_err(failed("read", &path))?;
        let bytes = ReaderStream::with_capacity(file.take(range.end - range.start), READ_SIZE);
        Ok(Box::pin(bytes.map_err(move |error| failed("read", &path)(error))))
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let path = self.path(key)?;
        match tokio::fs::metadata(&path).await {
            Ok(metadata) => Ok(metadata.is_file().then(|| ObjectInfo {
                key: key.to_owned(),
                size: metadata.len(),
            })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let finished = |file: FoundFile| {
            let FoundFile { key, size, unfinished } = file;
            (!unfinished).then_some(ObjectInfo { key, size })
        };
        Ok(self.files(prefix).await?.into_iter().filter_map(finished).collect())
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        for key in keys {
            let path = self.path(key)?;
            match tokio::fs::remove_file(&path).await {
                Ok(()) => self.remove_empty_folders(&path).await,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(failed("delete", &path)(error)),
            }
        }
        Ok(())
    }

    fn retention(&self) -> Option<Retention> {
        None
    }

    async fn lock(&self, _keys: &[String]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn locked_until(&self, _key: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn abort_uploads(&self, prefix: &str) -> Result<usize, StoreError> {
        let mut aborted = 0;
        for file in self.files(prefix).await?.into_iter().filter(|file| file.unfinished) {
            let path = self.root.join(&file.key);
            match tokio::fs::remove_file(&path).await {
                Ok(()) => aborted += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("delete", &path)(error)),
            }
        }
        Ok(aborted)
    }

    async fn check_access(&self, write: bool) -> Result<(), StoreError> {
        if write {
            self.make_folder(&self.root).await?;
        }
        if let Err(error) = tokio::fs::read_dir(&self.root).await {
            return Err(match error.kind() {
                io::ErrorKind::NotFound => StoreError::FolderMissing {
                    path: self.root.display().to_string(),
                },
                _ => failed("list", &self.root)(error),
            });
        }
        if write {
            self.begin("access", true).await?.abort().await?;
        }
        Ok(())
    }
}

impl FolderStore {
    /// A bucket has no empty folders, so neither has this, but for the root.
    async fn remove_empty_folders(&self, deleted: &Path) {
        for folder in deleted.ancestors().skip(1) {
            if folder == self.root || !folder.starts_with(&self.root) || tokio::fs::remove_dir(folder).await.is_err() {
                return;
            }
        }
    }
}

async fn run_blocking<T: Send + 'static>(
    action: &'static str,
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(failed(action, path))
}

/// Names the error of a system call for what it means to the store.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let object = path.display().to_string();
    move |error| match error.kind() {
        io::ErrorKind::StorageFull => StoreError::Full {
            object,
            code: "ENOSPC".into(),
        },
        io::ErrorKind::QuotaExceeded => StoreError::Full {
            object,
            code: "EDQUOT".into(),
        },
        io::ErrorKind::PermissionDenied => StoreError::AccessDenied {
            object,
            action,
            code: "EACCES".into(),
        },
        io::ErrorKind::ReadOnlyFilesystem => StoreError::AccessDenied {
            object,
            action,
            code: "EROFS".into(),
        },
        _ => StoreError::FileSystem {
            object,
            action,
            source: error,
        },
    }
}
