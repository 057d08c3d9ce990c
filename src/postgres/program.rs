//! One run of a client program: its connection without a secret in arguments or environment, its pipes, its end.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::SecretString;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client_tools::ToolSet;
use super::connection::{ConnectionError, ConnectionSettings};
use super::memory_file::MemoryFile;
use messages::Messages;
pub(crate) use messages::without as without_secrets;

mod messages;

use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::refusal::sentence;

/// First descriptor in a child that is handed on; the ones below may be taken by pipes.
const FIRST_DESCRIPTOR: RawFd = 10;

/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// A client program that could not run or be waited for.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its connection cannot be described.
    #[error(transparent)]
    Connection(#[from] Box<ConnectionError>),
    /// It could not be waited for.
    #[error("{program} could not be waited for: {source}")]
    Wait {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was stopped because the run was told to stop.
    #[error("{program} was stopped before it was done")]
    Stopped {
        /// Its name.
        program: String,
    },
    /// It ended with an error.
    #[error("{program} failed ({how}): {messages}")]
    Failed {
        /// Its name.
        program: String,
        /// Exit code or signal.
        how: String,
        /// What it wrote to its standard error, secrets masked.
        messages: String,
    },
}

impl ProgramError {
    /// As a refusal; `reason` is given where the program itself failed, such as `reasons::DUMP_FAILED`.
    #[must_use]
    pub fn refusal(self, reason: &str) -> Refusal {
        let message = sentence(&self.to_string());
        match self {
            Self::Start { program, .. } => Refusal::permanent(reasons::CLIENT_TOOLS_MISSING, message)
                .object(program)
                .hint("Check that the client programs are installed and may be executed."),
            Self::Connection(source) => (*source).into(),
            Self::Wait { program, .. } => Refusal::temporary(reasons::INTERNAL, message).object(program),
            Self::Stopped { program } => {
                let mut refusal = Refusal::temporary(reasons::INTERRUPTED, message).object(program);
                refusal.class = crate::api::status::FailureClass::Interrupted;
                refusal
            }
            Self::Failed { program, .. } => Refusal::permanent(reason, message).object(program),
        }
    }
}

/// A client program before it starts.
#[derive(Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<String, OsString>,
    connection: Option<ConnectionSettings>,
    files: Vec<MemoryFile>,
    masked: Vec<SecretString>,
    pipe_stdin: bool,
    pipe_stdout: bool,
}

impl Program {
    /// `program` is `pg_dump`, `pg_dumpall`, `pg_restore` or `psql`.
    #[must_use]
    pub fn new(tools: &ToolSet, program: &str) -> Self {
        Self {
            name: program.to_owned(),
            path: tools.bin.join(program),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            connection: None,
            files: Vec::new(),
            masked: Vec::new(),
            pipe_stdin: false,
            pipe_stdout: false,
        }
    }

    /// Connects to this database: `--dbname` with everything but the password, which goes by a password file in memory.
    #[must_use]
    pub fn connect_to(mut self, settings: &ConnectionSettings, database: &str) -> Self {
        self.connection = Some(settings.with_database(database));
        self
    }

    /// One argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Several arguments.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// One environment variable. It must not be a secret: `/proc/PID/environ` shows it.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Hands a file on and returns the path under which the program (and what it forks) opens it.
    pub fn pass(&mut self, file: MemoryFile) -> PathBuf {
        let descriptor = FIRST_DESCRIPTOR + RawFd::try_from(self.files.len()).unwrap_or(RawFd::MAX);
        self.files.push(file);
        PathBuf::from(format!("/proc/self/fd/{descriptor}"))
    }

    /// A secret that the program's messages must not show, such as a password in a statement that may fail.
    #[must_use]
    pub fn mask(mut self, secret: SecretString) -> Self {
        self.masked.push(secret);
        self
    }

    /// Gives `RunningProgram::stdin`; otherwise the standard input is empty.
    #[must_use]
    pub fn pipe_stdin(mut self) -> Self {
        self.pipe_stdin = true;
        self
    }

    /// Gives `RunningProgram::stdout`; otherwise the standard output is thrown away.
    #[must_use]
    pub fn pipe_stdout(mut self) -> Self {
        self.pipe_stdout = true;
        self
    }

    /// Starts it, in a process group of its own, so that a Ctrl-C at the terminal reaches pgrescue alone.
    pub fn spawn(mut self) -> Result<RunningProgram, ProgramError> {
        let name = self.name.clone();
        let start = |source| ProgramError::Start {
            program: name.clone(),
            source,
        };
        let mut command = Command::new(&self.path);
        command.args(self.connection_arguments()?).args(&self.arguments);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PG") {
                command.env_remove(variable);
            }
        }
        command.env("LC_ALL", "C").envs(&self.environment);
        command
            .stdin(if self.pipe_stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(if self.pipe_stdout {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mappings = (FIRST_DESCRIPTOR..)
            .zip(self.files.drain(..))
            .map(|(child_fd, file)| FdMapping {
                parent_fd: OwnedFd::from(file),
                child_fd,
            });
        command
            .fd_mappings(mappings.collect())
            .map_err(|collision| start(io::Error::other(collision)))?;
        let mut child = command.spawn().map_err(start)?;
        let stderr = child.stderr.take();
        let masked = std::mem::take(&mut self.masked);
        Ok(RunningProgram {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            group: child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw),
            messages: tokio::spawn(async move { Messages::read(stderr, &masked).await }),
            program: self.name,
            child,
        })
    }

    fn connection_arguments(&mut self) -> Result<Vec<OsString>, ProgramError> {
        let Some(settings) = self.connection.take() else {
            return Ok(Vec::new());
        };
        self.masked.extend(settings.secrets());
        let name = self.name.clone();
        let io = |source| ProgramError::Start { program: name, source };
        let for_programs = settings.for_programs().map_err(Box::new)?;
        let mut conninfo = for_programs.parameters;
        let mut files = Vec::new();
        for (parameter, file, content) in for_programs.files {
            files.push((parameter, MemoryFile::new(file, content.as_bytes())));
        }
        for (parameter, file) in files {
            match file {
                Ok(file) => {
                    let path = self.pass(file).display().to_string();
                    conninfo.insert(parameter.to_owned(), path);
                }
                Err(source) => return Err(io(source)),
            }
        }
        if let Some(path) = conninfo.remove("passfile") {
            self.environment.insert("PGPASSFILE".into(), path.into());
        }
        let pairs = conninfo.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Ok(vec![
            format!("--dbname={}", super::connection::render_conninfo(pairs)).into(),
        ])
    }
}

/// A client program that runs. Dropped, it and what it forked are killed.
#[derive(Debug)]
pub struct RunningProgram {
    /// Its standard input, where `Program::pipe_stdin` asked for it. Close it by dropping it.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, where `Program::pipe_stdout` asked for it.
    pub stdout: Option<ChildStdout>,
    program: String,
    child: Child,
    group: Option<Pid>,
    messages: JoinHandle<Messages>,
}

/// How a client program ended.
#[derive(Debug, Clone)]
pub struct ProgramOutput {
    /// Its name.
    pub program: String,
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to its standard error, secrets masked; beginning and end where it was long.
    pub stderr: String,
    /// Whether the middle of `stderr` was left out.
    pub stderr_truncated: bool,
}

impl ProgramOutput {
    /// Whether it ended with exit code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// An error where it did not end with exit code 0.
    pub fn require_success(self) -> Result<Self, ProgramError> {
        if self.is_success() {
            return Ok(self);
        }
        let how = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown end".to_owned(),
        };
        Err(ProgramError::Failed {
            program: self.program,
            how,
            messages: self.stderr.trim_end().to_owned(),
        })
    }
}

impl RunningProgram {
    /// Its process id, while it has not been waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end. `stop` ends it by SIGTERM, and by SIGKILL 5 s later. The pipes that were not taken are
    /// closed first.
    pub async fn wait(mut self, stop: &CancellationToken) -> Result<ProgramOutput, ProgramError> {
        self.stdin.take();
        self.stdout.take();
        let waited = tokio::select! {
            status = self.child.wait() => Some(status),
            () = stop.cancelled() => None,
        };
        let Some(status) = waited else {
            self.signal(Signal::TERM);
            if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
                self.signal(Signal::KILL);
                let _ = self.child.wait().await;
            }
            return Err(ProgramError::Stopped {
                program: self.program.clone(),
            });
        };
        let status = status.map_err(|source| ProgramError::Wait {
            program: self.program.clone(),
            source,
        })?;
        Ok(self.output(status).await)
    }

    async fn output(&mut self, status: ExitStatus) -> ProgramOutput {
        // A fork that outlives its parent may hold the pipe open.
        let messages = match tokio::time::timeout(GRACE, &mut self.messages).await {
            Ok(Ok(messages)) => messages,
            Ok(Err(_)) | Err(_) => Messages::default(),
        };
        self.group = None;
        let (stderr, stderr_truncated) = messages.into_text();
        ProgramOutput {
            program: self.program.clone(),
            code: status.code(),
            signal: status.signal(),
            stderr,
            stderr_truncated,
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It fails only where the group is gone already.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        if self.child.id().is_some() {
            self.signal(Signal::KILL);
        }
        self.messages.abort();
    }
}
