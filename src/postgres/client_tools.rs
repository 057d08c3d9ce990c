//! The stock client programs: where they are, and which major version of them does what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::refusal::sentence;

/// Programs that make a folder a set of client tools.
const PROGRAMS: [&str; 4] = ["pg_dump", "pg_dumpall", "pg_restore", "psql"];

/// Oldest major version of a server that pgrescue supports.
pub const OLDEST_SERVER: u32 = 12;

/// Newest major version that cannot read what newer clients write: archives of format 1.16, and
/// `SET transaction_timeout` (both came with 17).
const LAST_WITHOUT_TRANSACTION_TIMEOUT: u32 = 16;

/// The client programs of one major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolSet {
    /// Major version.
    pub major: u32,
    /// Version as the programs tell it, such as `18.1`.
    pub version: String,
    /// Folder that holds them.
    pub bin: PathBuf,
}

/// All client programs of this machine, the best set per major version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTools {
    sets: BTreeMap<u32, ToolSet>,
}

/// No fitting client programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientToolsError {
    /// None at all.
    #[error("the client programs of PostgreSQL (pg_dump, pg_dumpall, pg_restore, psql) are not installed")]
    NoneInstalled,
    /// The folder that the user named holds none.
    #[error("{} holds no client programs of PostgreSQL (pg_dump, pg_dumpall, pg_restore, psql)", .folder.display())]
    NoneInFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The server is older than what pgrescue supports.
    #[error("the server is PostgreSQL {server}; the oldest that pgrescue supports is {OLDEST_SERVER}")]
    ServerTooOld {
        /// Its major version.
        server: u32,
    },
    /// The server is newer than every client.
    #[error(
        "the server is PostgreSQL {server}; the newest client programs here are of {newest}, and an older client cannot dump a newer server"
    )]
    ServerTooNew {
        /// Its major version.
        server: u32,
        /// Newest client.
        newest: u32,
    },
    /// Only clients that are too new are installed.
    #[error(
        "PostgreSQL {server} cannot restore what the client programs of {oldest_usable} and later write, and no older ones are installed"
    )]
    DumpNotRestorable {
        /// Major version of the server.
        server: u32,
        /// Oldest client that could dump it.
        oldest_usable: u32,
    },
    /// No installed `pg_restore` reads the archive.
    #[error("no pg_restore here reads an archive of pg_dump {archive_client}; the newest is of {newest}")]
    ArchiveTooNew {
        /// Major version of the pg_dump that made the archive.
        archive_client: u32,
        /// Newest client.
        newest: u32,
    },
    /// No installed `pg_restore` reads the archive and serves the target.
    #[error(
        "no pg_restore here reads an archive of pg_dump {archive_client} and restores it into PostgreSQL {target} (installed: {installed})"
    )]
    NoRestorer {
        /// Major version of the pg_dump that made the archive.
        archive_client: u32,
        /// Major version of the target.
        target: u32,
        /// Major versions installed, for the reader.
        installed: String,
    },
}

impl From<ClientToolsError> for Refusal {
    fn from(error: ClientToolsError) -> Self {
        let message = sentence(&error.to_string());
        match error {
            ClientToolsError::NoneInstalled | ClientToolsError::NoneInFolder { .. } => {
                Self::permanent(reasons::CLIENT_TOOLS_MISSING, message)
                    .hint("Install the PostgreSQL client programs (package postgresql-client), or name their folder with --pg-bin-dir.")
            }
            ClientToolsError::ServerTooOld { .. } => {
                Self::permanent(reasons::SERVER_TOO_OLD, message).hint("Upgrade the server, or dump it with its own pg_dump.")
            }
            ClientToolsError::ServerTooNew { server, .. } => Self::permanent(reasons::SERVER_TOO_NEW, message).hint(format!(
                "Use a release of pgrescue whose agent image has the client programs of {server}, or install them and name their folder with --pg-bin-dir."
            )),
            ClientToolsError::DumpNotRestorable { server, .. } => {
                let wanted = server.max(LAST_WITHOUT_TRANSACTION_TIMEOUT);
                Self::permanent(reasons::CLIENT_TOOLS_MISSING, message)
                    .hint(format!("Install the client programs of PostgreSQL {wanted}, or name their folder with --pg-bin-dir."))
            }
            ClientToolsError::ArchiveTooNew { archive_client, .. } => {
                Self::permanent(reasons::CLIENT_TOOLS_MISSING, message).hint(format!(
                    "Install the client programs of PostgreSQL {archive_client} or later, or name their folder with --pg-bin-dir."
                ))
            }
            ClientToolsError::NoRestorer { archive_client, target, .. } => {
                if archive_client > LAST_WITHOUT_TRANSACTION_TIMEOUT && target <= LAST_WITHOUT_TRANSACTION_TIMEOUT {
                    Self::permanent(reasons::TARGET_TOO_OLD, message)
                        .hint(format!("Restore into PostgreSQL {} or later.", LAST_WITHOUT_TRANSACTION_TIMEOUT + 1))
                } else {
                    Self::permanent(reasons::CLIENT_TOOLS_MISSING, message).hint(format!(
                        "Install the client programs of PostgreSQL {archive_client}, or name their folder with --pg-bin-dir."
                    ))
                }
            }
        }
    }
}

impl ClientTools {
    /// Looks into `extra` (a folder of programs, or of several `<major>/bin`), the PATH, and the folders of Debian's,
    /// Red Hat's and Alpine's packages. Earlier places win.
    pub fn find(extra: Option<&Path>) -> Result<Self, ClientToolsError> {
        let mut tools = Self::default();
        if let Some(folder) = extra {
            tools.add(folder);
            tools.add_all(&below(folder, "", Some("bin")));
            if tools.sets.is_empty() {
                return Err(ClientToolsError::NoneInFolder { folder: folder.into() });
            }
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        tools.add_all(&std::env::split_paths(&path).collect::<Vec<_>>());
        tools.add_all(&below(Path::new("/usr/lib/postgresql"), "", Some("bin")));
        tools.add_all(&below(Path::new("/usr"), "pgsql-", Some("bin")));
        tools.add_all(&below(Path::new("/usr/libexec"), "postgresql", None));
        if tools.sets.is_empty() {
            return Err(ClientToolsError::NoneInstalled);
        }
        Ok(tools)
    }

    /// These sets, for tests and for callers that know where the programs are.
    #[must_use]
    pub fn of(sets: impl IntoIterator<Item = ToolSet>) -> Self {
        let sets = sets.into_iter().map(|set| (set.major, set)).collect();
        Self { sets }
    }

    /// The sets, oldest first.
    pub fn sets(&self) -> impl Iterator<Item = &ToolSet> {
        self.sets.values()
    }

    /// The set whose dump a server of the same major version restores as it was: the one of that major, or the next
    /// newer one. A newer client is not better: 15 and later leave `REVOKE CREATE ON SCHEMA public` out of the dump of
    /// a server before 15, 16 and later write subscription options that servers before 16 refuse, and 17 and later a
    /// `SET` that servers before 17 refuse (all tried).
    pub fn for_dump(&self, server_major: u32) -> Result<&ToolSet, ClientToolsError> {
        if server_major < OLDEST_SERVER {
            return Err(ClientToolsError::ServerTooOld { server: server_major });
        }
        let newest = self.newest()?;
        let (&major, set) = self
            .sets
            .range(server_major..)
            .next()
            .ok_or(ClientToolsError::ServerTooNew {
                server: server_major,
                newest,
            })?;
        if server_major <= LAST_WITHOUT_TRANSACTION_TIMEOUT && major > LAST_WITHOUT_TRANSACTION_TIMEOUT {
            return Err(ClientToolsError::DumpNotRestorable {
                server: server_major,
                oldest_usable: major,
            });
        }
        Ok(set)
    }

    /// The set whose pg_restore reads an archive of pg_dump `archive_client_major` and speaks to the target.
    pub fn for_restore(&self, archive_client_major: u32, target_major: u32) -> Result<&ToolSet, ClientToolsError> {
        self.newest()?;
        let found = if target_major <= LAST_WITHOUT_TRANSACTION_TIMEOUT {
            (archive_client_major <= LAST_WITHOUT_TRANSACTION_TIMEOUT)
                .then(|| {
                    self.sets
                        .range(archive_client_major..=LAST_WITHOUT_TRANSACTION_TIMEOUT)
                        .next_back()
                })
                .flatten()
        } else {
            let enough = archive_client_major.max(target_major);
            self.sets
                .range(enough..)
                .next()
                .or_else(|| self.sets.range(archive_client_major..).next_back())
        };
        found.map(|(_, set)| set).ok_or_else(|| ClientToolsError::NoRestorer {
            archive_client: archive_client_major,
            target: target_major,
            installed: self.sets.keys().map(u32::to_string).collect::<Vec<_>>().join(", "),
        })
    }

    /// The oldest set whose pg_restore reads an archive of pg_dump `archive_client_major`.
    pub fn for_archive(&self, archive_client_major: u32) -> Result<&ToolSet, ClientToolsError> {
        let newest = self.newest()?;
        let found = self.sets.range(archive_client_major..).next();
        found.map(|(_, set)| set).ok_or(ClientToolsError::ArchiveTooNew {
            archive_client: archive_client_major,
            newest,
        })
    }

    /// The newest set that has a server beside its client programs, one of this major version or later.
    #[must_use]
    pub fn with_server(&self, oldest: u32) -> Option<&ToolSet> {
        let sets = self.sets.range(oldest..).rev().map(|(_, set)| set);
        let has = |set: &ToolSet, program: &str| set.bin.join(program).is_file();
        sets.into_iter().find(|set| has(set, "postgres") && has(set, "initdb"))
    }

    /// The newest set, for programs that speak to every supported server, such as psql.
    pub fn newest_set(&self) -> Result<&ToolSet, ClientToolsError> {
        self.sets.values().next_back().ok_or(ClientToolsError::NoneInstalled)
    }

    fn newest(&self) -> Result<u32, ClientToolsError> {
        self.newest_set().map(|set| set.major)
    }

    fn add_all(&mut self, folders: &[PathBuf]) {
        for folder in folders {
            self.add(folder);
        }
    }

    fn add(&mut self, folder: &Path) {
        if let Some(set) = tool_set(folder) {
            self.sets.entry(set.major).or_insert(set);
        }
    }
}

/// Folders `parent/<prefix>*[/bin]`.
fn below(parent: &Path, prefix: &str, bin: Option<&str>) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| bin.map_or_else(|| entry.path(), |bin| entry.path().join(bin)))
        .collect();
    folders.sort();
    folders
}

fn tool_set(folder: &Path) -> Option<ToolSet> {
    let complete = PROGRAMS.iter().all(|program| {
        let path = folder.join(program);
        // Debian's wrapper chooses a version by itself, another one for each server.
        path.canonicalize()
            .is_ok_and(|real| real.file_name().is_some_and(|name| name != "pg_wrapper"))
    });
    if !complete {
        return None;
    }
    let output = Command::new(folder.join("pg_dump"))
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let (major, version) = parse_version(&String::from_utf8_lossy(&output.stdout))?;
    Some(ToolSet {
        major,
        version,
        bin: folder.to_owned(),
    })
}

/// Takes `pg_dump (PostgreSQL) 16.4 (Debian 16.4-1)` and `pg_dump (PostgreSQL) 19beta1` apart.
fn parse_version(line: &str) -> Option<(u32, String)> {
    let version = line.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let digits = version.split(|letter: char| !letter.is_ascii_digit()).next()?;
    Some((digits.parse().ok()?, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(majors: &[u32]) -> ClientTools {
        ClientTools::of(majors.iter().map(|&major| ToolSet {
            major,
            version: format!("{major}.1"),
            bin: PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
        }))
    }

    fn dump(majors: &[u32], server: u32) -> Result<u32, ClientToolsError> {
        tools(majors).for_dump(server).map(|set| set.major)
    }

    fn restore(majors: &[u32], archive: u32, target: u32) -> Result<u32, ClientToolsError> {
        tools(majors).for_restore(archive, target).map(|set| set.major)
    }

    const ALL: &[u32] = &[14, 15, 16, 17, 18];

    #[test]
    fn the_client_of_the_server_s_own_major_or_the_next_newer_one_dumps_it() {
        for (server, client) in [(12, 14), (13, 14), (14, 14), (15, 15), (16, 16), (17, 17), (18, 18)] {
            assert_eq!(dump(ALL, server), Ok(client), "server {server}");
        }
        assert_eq!(dump(&[14, 15, 18], 15), Ok(15));
        assert_eq!(dump(&[14, 18], 17), Ok(18));
    }

    #[test]
    fn a_server_without_a_fitting_client_is_refused() {
        assert_eq!(
            dump(ALL, 19),
            Err(ClientToolsError::ServerTooNew { server: 19, newest: 18 })
        );
        assert_eq!(dump(ALL, 11), Err(ClientToolsError::ServerTooOld { server: 11 }));
        assert_eq!(
            dump(&[14, 17, 18], 15),
            Err(ClientToolsError::DumpNotRestorable {
                server: 15,
                oldest_usable: 17
            })
        );
        assert_eq!(dump(&[], 15), Err(ClientToolsError::NoneInstalled));
    }

    #[test]
    fn pg_restore_reads_the_archive_and_says_nothing_that_the_target_does_not_know() {
        assert_eq!(restore(ALL, 16, 12), Ok(16));
        assert_eq!(restore(ALL, 15, 15), Ok(16));
        assert_eq!(restore(ALL, 16, 17), Ok(17));
        assert_eq!(restore(ALL, 16, 18), Ok(18));
        assert_eq!(restore(ALL, 18, 17), Ok(18));
        assert_eq!(restore(ALL, 16, 19), Ok(18));
        assert!(restore(ALL, 17, 16).is_err());
        assert!(restore(&[14, 15], 16, 16).is_err());
    }

    #[test]
    fn versions_of_packages_and_betas_are_read() {
        assert_eq!(
            parse_version("pg_dump (PostgreSQL) 16.4 (Debian 16.4-1.pgdg120+2)\n"),
            Some((16, "16.4".into()))
        );
        assert_eq!(
            parse_version("pg_dump (PostgreSQL) 19beta1\n"),
            Some((19, "19beta1".into()))
        );
        assert_eq!(parse_version("pg_dump: nothing"), None);
    }
}
