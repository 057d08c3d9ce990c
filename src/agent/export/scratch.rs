//! A server of PostgreSQL for as long as an export runs: in a folder of its own, reached by a socket there and nothing
//! else.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use uuid::Uuid;

use super::ExportError;
use crate::plan::Refusal;
use crate::plan::connection::ConnectionPlan;
use crate::postgres::client_tools::ToolSet;
use crate::postgres::connection::ConnectionSettings;
use crate::references::manifests::ManifestReferences;

/// PostgreSQL does not run as root: this is `nobody`, who has a name everywhere.
const NOBODY: u32 = 65534;

/// How long the server may take to start.
const START: Duration = Duration::from_mins(1);

/// How often the server is asked whether it has started.
const POLL: Duration = Duration::from_millis(20);

/// Ends the server and removes its folder when the standard input ends: so also when pgrescue is killed.
const WATCHDOG: &str = r#"
folder=$1; shift
{ "$@" >"$folder/log" 2>&1 & echo $! >"$folder/pid"; wait $!; echo $? >"$folder/exited"; } &
read -r _
kill -QUIT "$(cat "$folder/pid")" 2>/dev/null
wait
rm -rf "$folder"
"#;

/// The role that makes the types and prints the rows: what a backup defines gets no more rights than that.
const ROLE: &str = "export";

/// A running server. Dropped, it ends and leaves nothing.
pub(super) struct ScratchServer {
    folder: PathBuf,
    watchdog: Option<Child>,
    settings: ConnectionSettings,
}

impl ScratchServer {
    /// The database of the types.
    pub(super) const DATABASE: &str = "export";

    /// Makes and starts it, for `jobs` sessions in a database of this encoding.
    pub(super) async fn start(programs: &ToolSet, jobs: usize, encoding: &str) -> Result<Self, Refusal> {
        let unique = Uuid::new_v4().simple().to_string();
        let folder = std::env::temp_dir().join(format!("pgrescue-{}", &unique[..8]));
        make_folder(&folder)?;
        let data = folder.join("data");
        // The programs begin in another folder.
        let bin = std::path::absolute(&programs.bin).unwrap_or_else(|_| programs.bin.clone());
        let mut server = Self {
            settings: settings(&folder, ROLE, Self::DATABASE).await?,
            folder,
            watchdog: None,
        };
        server.initdb(&bin, &data).await?;
        server.run(&bin, &data, jobs)?;
        server.wait_until_ready(&data).await?;
        server.make_database(encoding).await?;
        Ok(server)
    }

    /// How the database is reached.
    pub(super) const fn settings(&self) -> &ConnectionSettings {
        &self.settings
    }

    async fn initdb(&self, bin: &Path, data: &Path) -> Result<(), ExportError> {
        let mut command = command(&bin.join("initdb"));
        command
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "-D"])
            .arg(data)
            .stdin(Stdio::null());
        let ended = tokio::task::spawn_blocking(move || command.output()).await;
        let output = ended.unwrap_or_else(|error| Err(io::Error::other(error)));
        let output = output.map_err(|error| self.failed("could not be made", &error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(self.failed("could not be made", &String::from_utf8_lossy(&output.stderr)))
    }

    fn run(&mut self, bin: &Path, data: &Path, jobs: usize) -> Result<(), ExportError> {
        let connections = jobs + 8;
        let settings = [
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", self.folder.display()),
            format!("max_connections={connections}"),
            // Nothing of it is kept.
            "fsync=off".to_owned(),
            "synchronous_commit=off".to_owned(),
            "full_page_writes=off".to_owned(),
            "wal_level=minimal".to_owned(),
            "max_wal_senders=0".to_owned(),
            "shared_buffers=16MB".to_owned(),
            "temp_buffers=4MB".to_owned(),
        ];
        let mut command = command(Path::new("/bin/sh"));
        command
            .args(["-c", WATCHDOG, "pgrescue-watchdog"])
            .arg(&self.folder)
            .arg(bin.join("postgres"))
            .arg("-D")
            .arg(data)
            .args(settings.iter().flat_map(|setting| ["-c", setting.as_str()]))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C at the terminal reaches pgrescue alone.
            .process_group(0);
        let child = command.spawn();
        self.watchdog = Some(child.map_err(|error| self.failed("could not be started", &error.to_string()))?);
        Ok(())
    }

    /// The eighth line of `postmaster.pid` says how far the server is (`LOCK_FILE_LINE_PM_STATUS`).
    async fn wait_until_ready(&mut self, data: &Path) -> Result<(), ExportError> {
        let deadline = Instant::now() + START;
        let is_ready = || {
            fs::read_to_string(data.join("postmaster.pid"))
                .is_ok_and(|pid| pid.lines().nth(7).is_some_and(|state| state.trim() == "ready"))
        };
        while !is_ready() {
            if self.folder.join("exited").exists() || Instant::now() > deadline {
                return Err(self.failed("did not start", &self.log()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn make_database(&self, encoding: &str) -> Result<(), Refusal> {
        let session = settings(&self.folder, "postgres", "postgres").await?.connect().await?;
        let sql = [
            format!("CREATE ROLE {ROLE} LOGIN"),
            format!(
                "CREATE DATABASE {} OWNER {ROLE} TEMPLATE template0 ENCODING '{encoding}'",
                Self::DATABASE
            ),
        ];
        for sql in sql {
            let made = session.batch_execute(&sql).await;
            made.map_err(|error| session.refusal(&error, "preparing the temporary server", None))?;
        }
        Ok(())
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    fn failed(&self, what: &'static str, messages: &str) -> ExportError {
        ExportError::Server {
            folder: self.folder.clone(),
            what,
            messages: messages.trim().to_owned(),
        }
    }
}

impl Drop for ScratchServer {
    fn drop(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
        // Where the server never ran, or the watchdog could not.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn make_folder(folder: &Path) -> Result<(), ExportError> {
    let made = DirBuilder::new().mode(0o700).create(folder).and_then(|()| {
        if geteuid().is_root() {
            return chown(folder, Some(NOBODY), Some(NOBODY));
        }
        Ok(())
    });
    made.map_err(|error| ExportError::Server {
        folder: folder.into(),
        what: "could not be made",
        messages: error.to_string(),
    })
}

/// A program of the server, as a user whom PostgreSQL accepts, without libpq's variables.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PG") {
            command.env_remove(variable);
        }
    }
    command.env("LC_ALL", "C").current_dir("/");
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

async fn settings(folder: &Path, user: &str, database: &str) -> Result<ConnectionSettings, Refusal> {
    let plan = ConnectionPlan {
        host: Some(folder.display().to_string()),
        port: Some(5432),
        user: Some(user.to_owned()),
        database: Some(database.to_owned()),
        ..ConnectionPlan::default()
    };
    Ok(ConnectionSettings::resolve(&plan, &ManifestReferences::default()).await?)
}
