//! Files that exist in memory alone: passwords, keys and archives' tables of contents for the client programs.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};

/// A file without a name in any folder. It is gone when the last descriptor is closed.
///
/// A child program opens it as `/proc/self/fd/N` once it has been handed on by `Program::pass`. libpq demands that a
/// password file and a private key are regular files that nobody else may read (libpq, `passwordFromFile` and
/// `initialize_SSL`): the mode is 0600.
#[derive(Debug)]
pub struct MemoryFile {
    file: File,
}

impl MemoryFile {
    /// Makes a file with this content. `name` is shown by `/proc/PID/fd` alone and need not be unique.
    pub fn new(name: &str, content: &[u8]) -> io::Result<Self> {
        let descriptor = memfd_create(name, MemfdFlags::CLOEXEC)?;
        fchmod(&descriptor, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(descriptor);
        file.write_all(content)?;
        Ok(Self { file })
    }

    /// Another descriptor of the same file.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
        })
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<MemoryFile> for OwnedFd {
    fn from(file: MemoryFile) -> Self {
        file.file.into()
    }
}
