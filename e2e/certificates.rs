//! TLS of a PostgreSQL server, with certificates made by `openssl`.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::cluster::output;
use crate::servers::Postgres;

/// Certificates of a server and of its client, PEM.
pub struct Certificates {
    /// Of the authority that signed both.
    pub root: String,
    server: [String; 2],
    /// Certificate and key of the client that logs in as `postgres`.
    pub client: [String; 2],
}

impl Certificates {
    /// Makes an authority, and what it signs: for the server at `host`, and for its client.
    pub fn make(host: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let certificate = |name: &str, more: &[&str]| {
            let subject = format!("/CN={name}");
            let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
            let mut openssl = Command::new("openssl");
            openssl
                .current_dir(&folder)
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
                .args([
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    &subject,
                    "-keyout",
                    &key,
                    "-out",
                    &certificate,
                ])
                .args(more);
            output(&mut openssl, None).expect("openssl makes a certificate");
            let read = |name: &str| fs::read_to_string(Path::new(folder.path()).join(name)).expect("it was written");
            [read(&certificate), read(&key)]
        };
        let name = format!("subjectAltName=DNS:{host}");
        let signed = [
            "-CA",
            "root.crt",
            "-CAkey",
            "root.key",
            "-addext",
            "basicConstraints=CA:FALSE",
        ];
        let [root, _] = certificate("root", &[]);
        Self {
            root,
            server: certificate("server", &[&signed[..], &["-addext", &name]].concat()),
            client: certificate("postgres", &signed),
        }
    }

    /// Lets a server take its superuser over TLS alone, with a certificate of ours beside the password.
    pub fn demand(&self, server: &Postgres<'_>) {
        let rules = "local all all trust\n\
                     hostssl all postgres all scram-sha-256 clientcert=verify-ca\n\
                     host all billing all scram-sha-256\n";
        let [certificate, key] = &self.server;
        for (file, text) in [
            ("root.crt", self.root.as_str()),
            ("server.crt", certificate),
            ("server.key", key),
            ("pg_hba.conf", rules),
        ] {
            let program = format!("umask 077 && base64 --decode >/data/postgresql/{file}");
            server.psql(
                "postgres",
                &format!("COPY (SELECT '{}') TO PROGRAM '{program}'", BASE64.encode(text)),
            );
        }
        server.psql(
            "postgres",
            "ALTER SYSTEM SET ssl_ca_file = 'root.crt'; ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf();",
        );
    }
}
