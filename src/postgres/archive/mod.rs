//! Custom-format archives of `pg_dump` (versions 1.12 to 1.16, PostgreSQL 9 to 18), read and written as streams.
//!
//! The layout is that of PostgreSQL's `pg_backup_archiver.c` (`WriteHead`, `WriteToc`) and `pg_backup_custom.c`
//! (`_StartData`, `_CustomWriteFunc`, `_CloseArchive`): a header, a table of contents, one data block for each entry
//! that carries rows or large objects, and, where the output is a file opened for appending, a second table of contents
//! that nothing reads. Integers, timestamps and decoders come from `libpgdump`; its own reader needs UTF-8 texts and a
//! file that it can seek in, so entries and blocks are read here.

mod attach;
mod blocks;
mod compression;
mod edit;
mod entry;
mod error;
mod extract;
mod feed;
mod primitives;
mod reader;
mod rows;
mod text;
mod toc;

pub use compression::Compression;
pub use entry::{Section, TocEntry};
pub use error::ArchiveError;
pub use extract::{DataSink, extract};
pub use reader::{ArchiveReader, DataBlock, DataProgress, DataSummary};
pub use text::Text;
pub use toc::{ArchiveVersion, Toc};

#[cfg(test)]
pub(crate) mod sample;
