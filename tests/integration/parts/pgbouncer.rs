//! A connection pooler that hands out server connections per transaction.

use std::fs;

use super::process::{ServerProcess, new_folder, not_as_root};
use super::{PASSWORD, PostgresServer, SUPERUSER, cache, install, network};

/// A running pgbouncer in front of one server; log in as there.
#[derive(Debug)]
pub struct PgBouncer {
    pub port: u16,
    _process: ServerProcess,
}

impl PgBouncer {
    /// `pool_mode = transaction`: two transactions of one client may meet two server sessions.
    pub fn start_with_transaction_pooling(server: &PostgresServer) -> Self {
        install("pgbouncer");
        for _ in 0..5 {
            let folder = new_folder("pgbouncer");
            let port = network::free_port();
            let users = folder.join("users");
            fs::write(
                &users,
                format!("\"{SUPERUSER}\" \"{}\"\n", PASSWORD.replace('"', "\"\"")),
            )
            .expect("the folder is ours");
            let configuration = folder.join("pgbouncer.ini");
            fs::write(
                &configuration,
                format!(
                    "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\n\
                     listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                     auth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
                     ignore_startup_parameters = extra_float_digits,options\n",
                    server.port,
                    users.display()
                ),
            )
            .expect("the folder is ours");
            let installation = cache().join("pgbouncer");
            let mut command = not_as_root(&installation.join("bin/pgbouncer"));
            command.push(configuration.display().to_string());
            let libraries = [("LD_LIBRARY_PATH", installation.join("lib").display().to_string())];
            let process = ServerProcess::start(folder, "KILL", &command, &libraries);
            if process.wait_until(|| network::accepts(port)) {
                return Self {
                    port,
                    _process: process,
                };
            }
            eprintln!("{}", process.log());
        }
        panic!("pgbouncer ended five times as it started");
    }
}
