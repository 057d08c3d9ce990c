//! What the archive itself holds, as files of the directory format (`pg_backup_directory.c`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::folder::Unfinished;
use crate::postgres::archive::{DataSink, TocEntry};

/// Writes the rows of each entry into its file, and each large object into one of its own, with a list of them.
pub(super) struct ArchiveFiles {
    folder: Arc<Unfinished>,
    /// File names by entry.
    names: BTreeMap<i32, String>,
    /// Rows of the entry, or data of the large object.
    data: Option<File>,
    /// List of the entry's large objects: a line each, its OID and its file.
    list: Option<BufWriter<File>>,
}

impl ArchiveFiles {
    pub(super) const fn new(folder: Arc<Unfinished>, names: BTreeMap<i32, String>) -> Self {
        Self {
            folder,
            names,
            data: None,
            list: None,
        }
    }
}

impl DataSink for ArchiveFiles {
    fn begin(&mut self, entry: &TocEntry) -> io::Result<()> {
        let name = self.names.get(&entry.dump_id);
        let name = name.ok_or_else(|| io::Error::other(format!("{} has no file", entry.label())))?;
        let file = self.folder.create(name)?;
        if Path::new(name).extension().is_some_and(|extension| extension == "toc") {
            self.list = Some(BufWriter::new(file));
        } else {
            self.data = Some(file);
        }
        Ok(())
    }

    fn large_object(&mut self, oid: u32) -> io::Result<()> {
        let name = format!("blob_{oid}.dat");
        if let Some(list) = &mut self.list {
            writeln!(list, "{oid} {name}")?;
        }
        self.data = Some(self.folder.create(&name)?);
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match &mut self.data {
            Some(file) => file.write_all(data),
            None => Err(io::Error::other("data came that belongs to nothing")),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some(file) = self.data.take() {
            file.sync_all()?;
        }
        if let Some(list) = self.list.take() {
            list.into_inner()?.sync_all()?;
        }
        Ok(())
    }
}
