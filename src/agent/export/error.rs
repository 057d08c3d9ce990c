//! What can go wrong with an export.

use std::io;
use std::path::PathBuf;

use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::refusal::sentence;
use crate::postgres::wire::WireError;

/// An error of an export. Nothing is left at the target.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Something is there already.
    #[error("{} exists already", .path.display())]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// The target names no folder that can be made.
    #[error("{} cannot be the folder of an export", .path.display())]
    TargetUnusable {
        /// The target.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("the disk of {} has no room ({source})", .path.display())]
    DiskFull {
        /// What could not be written.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file or a folder cannot be made or written.
    #[error("{} cannot be written ({source})", .path.display())]
    File {
        /// What could not be written.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The backup has no such database.
    #[error("the backup has no database {database:?}")]
    DatabaseMissing {
        /// The database.
        database: String,
        /// Those that it has.
        there: Vec<String>,
    },
    /// The backup has several databases, and none was named.
    #[error("the backup holds {} databases", .there.len())]
    DatabaseNeeded {
        /// Those that it has.
        there: Vec<String>,
    },
    /// The archive and the manifest contradict each other.
    #[error("the backup contradicts itself: {0}")]
    Inconsistent(String),
    /// What was written does not read as it should.
    #[error("pg_restore does not list {missing} of the entries that were written, the first of them {first}")]
    NotListed {
        /// How many.
        missing: usize,
        /// The first of them.
        first: String,
    },
    /// No server can print the binary rows.
    #[error(
        "{tables} tables have rows in binary, which a server of PostgreSQL {needed} or later turns into text, and none is installed"
    )]
    ServerMissing {
        /// Tables with binary rows.
        tables: usize,
        /// Oldest major version that will do.
        needed: u32,
    },
    /// The temporary server does not run.
    #[error("the temporary server of PostgreSQL in {} {what}: {messages}", .folder.display())]
    Server {
        /// Its folder.
        folder: PathBuf,
        /// What went wrong.
        what: &'static str,
        /// What it said.
        messages: String,
    },
    /// The temporary server has not the types of a table.
    #[error("the temporary server cannot make the columns of {table}: {problem}")]
    TypesMissing {
        /// The table.
        table: String,
        /// What the server says.
        problem: String,
        /// What `pg_restore` said as it made the types.
        messages: String,
    },
    /// The temporary server did not take or give the rows.
    #[error("turning {chunk} into text failed: {source}")]
    Conversion {
        /// The chunk.
        chunk: String,
        /// What the server says.
        #[source]
        source: WireError,
    },
    /// The rows are not as many as they should be.
    #[error("{chunk} has {expected} rows, and {found} are in its text")]
    Rows {
        /// The chunk.
        chunk: String,
        /// In the manifest.
        expected: u64,
        /// In the text.
        found: u64,
    },
}

impl From<ExportError> for Refusal {
    fn from(error: ExportError) -> Self {
        let message = sentence(&error.to_string());
        let named = |there: Vec<String>| {
            let names: Vec<_> = there.iter().map(|name| format!("{name:?}")).collect();
            format!("Name one of {} with --database.", names.join(", "))
        };
        match error {
            ExportError::TargetExists { path } => Self::permanent(reasons::INVALID_SPEC, message)
                .object(path.display().to_string())
                .hint("Name a folder that is not there yet with --to; nothing was changed."),
            ExportError::TargetUnusable { path } => Self::permanent(reasons::INVALID_SPEC, message)
                .object(path.display().to_string())
                .hint("Name a folder that is not there yet, in one that is, with --to."),
            ExportError::DiskFull { path, .. } => Self::permanent(reasons::STORE_FULL, message)
                .object(path.display().to_string())
                .hint("Make room, or export to another disk; nothing is left of this export."),
            ExportError::File { path, .. } => Self::permanent(reasons::STORE_FAILED, message)
                .object(path.display().to_string())
                .hint("Check that the folder is there and may be written; nothing is left of this export."),
            ExportError::DatabaseMissing { there, .. } => {
                Self::permanent(reasons::DATABASE_MISSING, message).hint(named(there))
            }
            ExportError::DatabaseNeeded { there } => {
                Self::permanent(reasons::INVALID_SPEC, message).hint(named(there))
            }
            ExportError::Inconsistent(_) => Self::permanent(reasons::OBJECT_CHANGED, message)
                .hint("An object was changed after the backup: use another backup."),
            ExportError::NotListed { .. } => Self::permanent(reasons::INTERNAL, message)
                .hint("Report it with the version of pg_restore; nothing is left of this export."),
            ExportError::ServerMissing { needed, .. } => Self::permanent(reasons::CLIENT_TOOLS_MISSING, message).hint(
                format!("Install the server of PostgreSQL {needed} or later (package postgresql) beside its client programs, or name the folder of both with --pg-bin-dir. The agent's image has one."),
            ),
            ExportError::Server { folder, .. } => Self::permanent(reasons::INTERNAL, message)
                .object(folder.display().to_string())
                .hint("It needs a folder of its own below TMPDIR, some room there, and a user with a name. Root runs it as nobody, who must be allowed to read the programs."),
            ExportError::TypesMissing { table, messages, .. } => {
                let hint = if messages.is_empty() {
                    "Restore the backup with pgrescue, and dump that with pg_dump.".to_owned()
                } else {
                    format!("Restore the backup with pgrescue, and dump that with pg_dump. Making the types said: {messages}")
                };
                Self::permanent(reasons::RESTORE_FAILED, message).object(table).hint(hint)
            }
            ExportError::Conversion { source, .. } => {
                let hint = source.refusal("printing rows", None).hint.unwrap_or_default();
                Self::permanent(reasons::RESTORE_FAILED, message).hint(hint)
            }
            ExportError::Rows { chunk, .. } => Self::permanent(reasons::VERIFICATION_FAILED, message)
                .object(chunk)
                .hint("Use another backup; if it ends like this too, report it with the table's definition."),
        }
    }
}
