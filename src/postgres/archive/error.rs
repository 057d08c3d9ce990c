//! What can be wrong with an archive.

use std::io;

use crate::plan::Refusal;

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The input does not begin with `PGDMP`.
    #[error("this is not a custom-format archive of pg_dump")]
    NotAnArchive,
    /// A version of the format that is not read here.
    #[error("the archive has format version {major}.{minor}; versions 1.12 to 1.16 can be read")]
    VersionUnknown {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// An archive of another kind (directory or tar).
    #[error("the archive is not in the custom format (format byte {0})")]
    NotCustomFormat(u8),
    /// A compression that is not known.
    #[error("the archive is compressed in a way that is not known (byte {0})")]
    CompressionUnknown(u8),
    /// The header says something that no pg_dump writes.
    #[error("the header of the archive is damaged: {0}")]
    HeaderDamaged(&'static str),
    /// An entry says something that no pg_dump writes.
    #[error("entry {dump_id} of the archive is damaged: {what}")]
    EntryDamaged {
        /// Its dump id.
        dump_id: i32,
        /// What is wrong.
        what: &'static str,
    },
    /// The input ends before the archive does.
    #[error("the archive ends in the middle of {within}")]
    Truncated {
        /// Where it ends.
        within: String,
    },
    /// The input ends between two data blocks.
    #[error("the archive ends before the data of {missing} entries, the first of them {first}")]
    BlocksMissing {
        /// How many.
        missing: usize,
        /// The first of them.
        first: String,
    },
    /// A block belongs to no entry, or to one that has had its block.
    #[error("the archive has a data block with dump id {dump_id} that belongs to no entry")]
    BlockUnexpected {
        /// The dump id of the block.
        dump_id: i32,
    },
    /// The data of a block is damaged.
    #[error("the data of {entry} is damaged")]
    BlockDamaged {
        /// Which entry.
        entry: String,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// A block of rows does not end as COPY data does.
    #[error("the rows of {entry} do not end with the end marker of COPY")]
    RowsUnterminated {
        /// Which entry.
        entry: String,
    },
    /// After the last block stands something else than the second table of contents.
    #[error("after the last data block of the archive stands something that does not belong there")]
    TailUnexpected,
    /// The input could not be read.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// What the archive holds could not be handed on.
    #[error("the data of the archive cannot be written")]
    Write(#[source] io::Error),
    /// The reading thread ended without a result.
    #[error("reading the archive was interrupted")]
    Interrupted,
}

impl ArchiveError {
    /// Whether the archive just stops: its writer was killed, or the connection was cut.
    #[must_use]
    pub const fn is_truncation(&self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::BlocksMissing { .. })
    }

    /// As the answer of a step, with the reason that fits it. A cut or interrupted input may be whole the next time.
    #[must_use]
    pub fn into_refusal(self, reason: &str) -> Refusal {
        let mut message = self.to_string();
        if let Some(source) = std::error::Error::source(&self) {
            message = format!("{message}: {source}");
        }
        if self.is_truncation() || matches!(self, Self::Read(_) | Self::Interrupted) {
            Refusal::temporary(reason, message)
        } else {
            Refusal::permanent(reason, message)
        }
    }
}
