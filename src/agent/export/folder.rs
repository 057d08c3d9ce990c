//! The folder of an export: it is written under another name beside its own, synced, and renamed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::ExportError;

/// How often a folder is removed into which a thread still writes, and how long is waited between.
const REMOVALS: u32 = 100;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(10);

/// A folder that is not finished.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    target: PathBuf,
    finished: AtomicBool,
}

impl Unfinished {
    /// Begins the folder `target`, which must not be there.
    pub(super) fn beside(target: &Path) -> Result<Removal, ExportError> {
        let unusable = || ExportError::TargetUnusable { path: target.into() };
        let target = std::path::absolute(target).map_err(|_| unusable())?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(unusable());
        };
        if fs::symlink_metadata(&target).is_ok() {
            return Err(ExportError::TargetExists { path: target });
        }
        let unique = Uuid::new_v4().simple().to_string();
        let path = parent.join(format!(".{}.unfinished-{}", name.to_string_lossy(), &unique[..8]));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| failed(&path, error))?;
        Ok(Removal(Arc::new(Self {
            path,
            target,
            finished: AtomicBool::new(false),
        })))
    }

    /// Where it is for now.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a file in it.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(self.path.join(name))
    }

    /// Writes a whole file.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), ExportError> {
        let written = self.create(name).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
        written.map_err(|error| failed(&self.path.join(name), error))
    }

    /// An error of a file in it.
    pub(super) fn failed(&self, error: io::Error) -> ExportError {
        failed(&self.target, error)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> Result<u64, ExportError> {
        let count = || -> io::Result<u64> {
            let mut bytes = 0;
            for entry in fs::read_dir(&self.path)? {
                bytes += entry?.metadata()?.len();
            }
            Ok(bytes)
        };
        count().map_err(|error| failed(&self.path, error))
    }

    /// Gives it its name, once everything in it is on the disk.
    pub(super) fn finish(&self) -> Result<(), ExportError> {
        let finish = || -> io::Result<()> {
            let folder = File::open(&self.path)?;
            // The files of large objects are many: they are synced at once.
            rustix::fs::syncfs(&folder)?;
            fs::rename(&self.path, &self.target)?;
            self.finished.store(true, Ordering::Relaxed);
            if let Some(parent) = self.target.parent() {
                File::open(parent)?.sync_all()?;
            }
            Ok(())
        };
        finish().map_err(|error| match error.kind() {
            // Somebody else made it meanwhile.
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                ExportError::TargetExists {
                    path: self.target.clone(),
                }
            }
            _ => failed(&self.target, error),
        })
    }
}

/// Removes a folder that is not finished when it is dropped: also when the run is told to stop, while another thread
/// still holds the folder.
pub(super) struct Removal(Arc<Unfinished>);

impl Removal {
    /// The folder.
    pub(super) const fn folder(&self) -> &Arc<Unfinished> {
        &self.0
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let Unfinished { path, finished, .. } = &*self.0;
        if finished.load(Ordering::Relaxed) {
            return;
        }
        let mut removed = fs::remove_dir_all(path);
        for _ in 0..REMOVALS {
            match &removed {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    std::thread::sleep(BETWEEN_REMOVALS);
                    removed = fs::remove_dir_all(path);
                }
                _ => break,
            }
        }
        if let Err(error) = removed {
            tracing::warn!("{} is left and can be removed: {error}", path.display());
        }
    }
}

fn failed(path: &Path, source: io::Error) -> ExportError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ExportError::DiskFull { path, source },
        _ => ExportError::File { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_its_name_when_it_is_finished_and_is_gone_when_it_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(parent.path()).unwrap().count();
        let target = parent.path().join("out put");
        let unfinished = Unfinished::beside(&target).unwrap();
        unfinished.folder().write("a", b"12").unwrap();
        assert!(!target.exists());
        let held = Arc::clone(unfinished.folder());
        drop(unfinished);
        assert_eq!(names(), 0);
        assert!(held.create("b").is_err());
        let finished = Unfinished::beside(&target).unwrap();
        finished.folder().write("a", b"12").unwrap();
        assert_eq!(finished.folder().bytes().unwrap(), 2);
        finished.folder().finish().unwrap();
        drop(finished);
        assert_eq!(fs::read(target.join("a")).unwrap(), b"12");
        assert_eq!(names(), 1);
    }

    #[test]
    fn what_is_there_already_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("taken");
        let begun = Unfinished::beside(&target).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("theirs"), "x").unwrap();
        let error = begun.folder().finish().unwrap_err();
        assert!(matches!(error, ExportError::TargetExists { .. }), "{error}");
        let error = Unfinished::beside(&target).err().unwrap();
        assert!(matches!(error, ExportError::TargetExists { .. }), "{error}");
        drop(begun);
        assert_eq!(fs::read(target.join("theirs")).unwrap(), b"x");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
