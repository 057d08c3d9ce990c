//! PostgreSQL servers of every supported major version, and databases in them.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::data_template;
use super::process::{ServerProcess, new_data_folder, not_as_root};
use super::{Certificates, MAJORS, NEWEST_CLIENT, cache, client_folder, install, network};

pub const SUPERUSER: &str = "postgres";

/// The superuser's password. It holds what breaks careless quoting, in shells,
/// in SQL, in URIs and in `.pgpass`, and it is a canary to search for.
pub const PASSWORD: &str = r#"canary:su per'user\"$1"#;

/// Who must bring what over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// The server has no TLS.
    Off,
    /// TLS is offered; connections without it are accepted too.
    Offered,
    /// Connections without TLS are refused.
    Required,
    /// A client certificate is required besides the password.
    ClientCertificate,
}

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Builder {
    major: u32,
    encoding: &'static str,
    tls: TlsMode,
    settings: Vec<(String, String)>,
    host_based_authentication: Option<String>,
}

impl Builder {
    /// The encoding of `template0`, `template1` and `postgres`; UTF8 where not said.
    pub fn encoding(mut self, encoding: &'static str) -> Self {
        self.encoding = encoding;
        self
    }

    /// A line of `postgresql.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn tls(mut self, tls: TlsMode) -> Self {
        self.tls = tls;
        self
    }

    /// The whole `pg_hba.conf`, in place of a password for everyone.
    pub fn host_based_authentication(mut self, lines: &str) -> Self {
        self.host_based_authentication = Some(lines.to_owned());
        self
    }

    pub fn start(self) -> PostgresServer {
        install(&format!("pg{}", self.major));
        install(&format!("pg{NEWEST_CLIENT}"));
        // Another process may take the free port first.
        for _ in 0..5 {
            if let Some(server) = self.try_start() {
                return server;
            }
        }
        panic!("PostgreSQL {} ended five times as it started", self.major);
    }

    fn try_start(&self) -> Option<PostgresServer> {
        let folder = new_data_folder(&format!("pg{}", self.major));
        let data = folder.join("data");
        data_template::copy(self.major, self.encoding, &data);
        let port = network::free_port();
        self.configure(&data, port);

        let installation = cache().join(format!("pg/{}", self.major));
        let mut command = not_as_root(&installation.join("bin/postgres"));
        command.extend(["-D".to_owned(), data.display().to_string()]);
        let libraries = [("LD_LIBRARY_PATH", installation.join("lib").display().to_string())];
        // SIGQUIT: an immediate shutdown; the data goes anyway.
        let process = ServerProcess::start(folder, "QUIT", &command, &libraries);
        let ready = process.wait_until(|| {
            fs::read_to_string(data.join("postmaster.pid"))
                .is_ok_and(|pid| pid.lines().nth(7).is_some_and(|state| state.trim() == "ready"))
        });
        if !ready {
            eprintln!("{}", process.log());
            return None;
        }
        Some(PostgresServer {
            major: self.major,
            port,
            process,
        })
    }

    fn configure(&self, data: &Path, port: u16) {
        let mut settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n\
             fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n\
             autovacuum = off\nshared_buffers = '16MB'\nmax_connections = 60\n\
             wal_level = logical\nmax_wal_size = '1GB'\ntimezone = 'UTC'\nlog_timezone = 'UTC'\n"
        );
        if self.tls != TlsMode::Off {
            let certificates = Certificates::of_this_process();
            for (name, text) in [
                ("server.crt", &certificates.server),
                ("server.key", &certificates.server_key),
                ("root.crt", &certificates.root),
            ] {
                Certificates::write(text, &data.join(name));
            }
            settings.push_str("ssl = on\nssl_ca_file = 'root.crt'\n");
        }
        for (name, value) in &self.settings {
            let _ = writeln!(settings, "{name} = '{}'", value.replace('\'', "''"));
        }
        let allowed = self.host_based_authentication.as_deref().unwrap_or(match self.tls {
            TlsMode::Off | TlsMode::Offered => "host all all 127.0.0.1/32 scram-sha-256\n",
            TlsMode::Required => "hostssl all all 127.0.0.1/32 scram-sha-256\n",
            TlsMode::ClientCertificate => "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n",
        });
        fs::write(data.join("pg_hba.conf"), allowed).expect("the data folder is ours");
        fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .expect("initdb has written postgresql.conf");
    }
}

/// A running server on loopback, gone when dropped.
#[derive(Debug)]
pub struct PostgresServer {
    pub major: u32,
    pub port: u16,
    process: ServerProcess,
}

impl PostgresServer {
    pub fn with(major: u32) -> Builder {
        Builder {
            major,
            encoding: "UTF8",
            tls: TlsMode::Off,
            settings: Vec::new(),
            host_based_authentication: None,
        }
    }

    pub fn start(major: u32) -> Self {
        Self::with(major).start()
    }

    /// One server per major version for all tests that keep to databases and
    /// roles of their own.
    pub fn shared(major: u32) -> &'static Self {
        static SHARED: [OnceLock<PostgresServer>; MAJORS.len()] = [const { OnceLock::new() }; MAJORS.len()];
        let index = MAJORS
            .iter()
            .position(|known| *known == major)
            .expect("a supported major version");
        SHARED[index].get_or_init(|| Self::start(major))
    }

    /// An empty database with a name of its own, dropped with the value.
    pub fn create_database(&self, purpose: &str) -> Database<'_> {
        self.create_database_with(purpose, "")
    }

    /// `options` are those of `CREATE DATABASE`, such as `ENCODING 'LATIN1' TEMPLATE template0`.
    pub fn create_database_with(&self, purpose: &str, options: &str) -> Database<'_> {
        let database = self.reserve_database(purpose);
        self.psql(
            "postgres",
            &format!("CREATE DATABASE {} {options}", quoted(&database.name)),
        );
        database
    }

    /// A name for a database that something else creates; dropped with the value.
    pub fn reserve_database(&self, purpose: &str) -> Database<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Database {
            server: self,
            name: format!("{purpose}_{number}"),
        }
    }

    /// Runs SQL (and psql's own commands) and gives what it printed: one row a
    /// line, columns separated by `|`. Panics on the first error.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql)
            .unwrap_or_else(|error| panic!("psql, PostgreSQL {}, database {database}: {error}", self.major))
    }

    /// Like `psql`; the error is what psql wrote to its standard error.
    pub fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut command = self.client(NEWEST_CLIENT, "psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        run_with_input(&mut command, sql)
    }

    /// A client program with the connection in its environment.
    pub fn client(&self, major: u32, program: &str, database: &str) -> Command {
        let mut command = Command::new(client_folder(major).join(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", database)
            .env("PGCLIENTENCODING", "UTF8")
            .env("PGCONNECT_TIMEOUT", "10");
        if fs::metadata(self.data_folder().join("server.crt")).is_ok() {
            let certificates = Certificates::of_this_process();
            let own = |name: &str, text: &str| {
                let path = self.process.folder.join(name);
                if !path.exists() {
                    Certificates::write(text, &path);
                }
                path
            };
            command
                .env("PGSSLMODE", "verify-ca")
                .env("PGSSLROOTCERT", own("client-root.crt", &certificates.root))
                .env("PGSSLCERT", own("client.crt", &certificates.client))
                .env("PGSSLKEY", own("client.key", &certificates.client_key));
        }
        command
    }

    /// A connection that stays open, without TLS, for sessions that hold locks.
    pub async fn connect(&self, database: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(self.port)
            .user(SUPERUSER)
            .password(PASSWORD)
            .dbname(database)
            .connect(tokio_postgres::NoTls)
            .await
            .expect("the server accepts connections");
        tokio::spawn(connection);
        client
    }

    /// The server's data folder.
    pub fn data_folder(&self) -> PathBuf {
        self.process.folder.join("data")
    }

    /// The postmaster's process.
    pub fn pid(&self) -> u32 {
        self.process.pid().expect("the server was started")
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Sends a signal to the postmaster, such as `KILL`, `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }
}

/// A database of one test.
#[derive(Debug)]
pub struct Database<'server> {
    pub server: &'server PostgresServer,
    pub name: String,
}

impl Database<'_> {
    pub fn psql(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql)
    }

    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        self.server.try_psql(&self.name, sql)
    }

    pub fn exists(&self) -> bool {
        let sql = format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(&self.name));
        self.server.psql("postgres", &sql) == "1"
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // A subscription keeps its database from being dropped.
        let drop_subscriptions = "SELECT format('ALTER SUBSCRIPTION %1$I DISABLE; \
             ALTER SUBSCRIPTION %1$I SET (slot_name = NONE); DROP SUBSCRIPTION %1$I', subname) \
             FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid \
             WHERE datname = current_database() \\gexec\n";
        let _ = self.try_psql(drop_subscriptions);
        let _ = self.server.try_psql(
            "postgres",
            &format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {};\n\
                 DROP DATABASE IF EXISTS {}",
                literal(&self.name),
                quoted(&self.name)
            ),
        );
    }
}

/// A quoted identifier.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted literal, for strings without a backslash.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Runs a command with this standard input; the error holds its standard error.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is installed");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the program can be waited for");
    let _ = writer.join(); // the program may have ended before it read everything
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end_matches('\n')
            .to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
