//! Certificates for TLS, made by `openssl` for one test process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A certificate authority with a server and a client certificate that it
/// signed, and another authority that signed nothing here. PEM throughout.
#[derive(Debug, Clone)]
pub struct Certificates {
    pub root: String,
    pub server: String,
    pub server_key: String,
    /// For the PostgreSQL role `postgres` (its common name).
    pub client: String,
    pub client_key: String,
    pub unrelated_root: String,
}

impl Certificates {
    /// One set for all servers of this process: valid for `localhost` and 127.0.0.1.
    pub fn of_this_process() -> &'static Self {
        static MADE: OnceLock<Certificates> = OnceLock::new();
        MADE.get_or_init(|| {
            let folder = super::process::new_folder("certificates");
            let made = Self::make(&folder);
            fs::remove_dir_all(&folder).expect("the folder is ours");
            made
        })
    }

    fn make(folder: &Path) -> Self {
        for authority in ["root", "unrelated_root"] {
            openssl(
                folder,
                &format!(
                    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
                     -subj /CN={authority} -keyout {authority}.key -out {authority}.crt \
                     -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign"
                ),
            );
        }
        for (name, common_name, extensions) in [
            (
                "server",
                "server",
                "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
            ),
            ("client", super::SUPERUSER, "extendedKeyUsage=clientAuth\n"),
        ] {
            fs::write(
                folder.join("extensions"),
                format!("basicConstraints=CA:FALSE\n{extensions}"),
            )
            .expect("the folder is ours");
            openssl(
                folder,
                &format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                     -subj /CN={common_name} -keyout {name}.key -out {name}.csr"
                ),
            );
            openssl(
                folder,
                &format!(
                    "x509 -req -days 30 -CA root.crt -CAkey root.key -CAcreateserial \
                     -in {name}.csr -out {name}.crt -extfile extensions"
                ),
            );
        }
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect("openssl has written the file");
        Self {
            root: read("root.crt"),
            server: read("server.crt"),
            server_key: read("server.key"),
            client: read("client.crt"),
            client_key: read("client.key"),
            unrelated_root: read("unrelated_root.crt"),
        }
    }

    /// Writes one of the texts to a file that its owner alone may read.
    pub fn write(text: &str, path: &Path) -> PathBuf {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .expect("the folder is writable");
        path.to_owned()
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
