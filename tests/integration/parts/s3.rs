//! A real S3 server (versitygw) on a temporary folder, over HTTP or HTTPS.

use std::fs;
use std::path::{Path, PathBuf};

use super::process::{ServerProcess, new_folder};
use super::{Certificates, cache, install, network};

/// A running S3 server. Objects are files, so tests can read and damage them
/// without asking the server.
#[derive(Debug)]
pub struct S3Server {
    pub port: u16,
    /// Such as `http://127.0.0.1:7070`.
    pub endpoint: String,
    process: ServerProcess,
}

impl S3Server {
    pub const ACCESS_KEY: &str = "CANARYACCESSKEY";
    pub const SECRET_KEY: &str = "canary+secret/key";
    pub const REGION: &str = "eu-central-1";

    pub fn start() -> Self {
        Self::start_with(false, false)
    }

    /// Buckets may keep the versions of their objects; those with object lock do.
    pub fn start_with_versions() -> Self {
        Self::start_with(false, true)
    }

    /// With the server certificate of [`Certificates::of_this_process`].
    pub fn start_tls() -> Self {
        Self::start_with(true, false)
    }

    /// In a network of its own, which is gone with the server. `connect` gets the process of the server, makes a way
    /// there and returns the address.
    pub fn start_apart(connect: impl FnOnce(u32) -> String) -> Self {
        const PORT: u16 = 7070;
        install("versitygw");
        let folder = new_folder("s3");
        let mut command = ["unshare", "--net", "--"].map(str::to_owned).to_vec();
        command.extend(Self::command(&folder, &format!("0.0.0.0:{PORT}")));
        let process = Self::run(folder, command, Vec::new());
        let is_apart = || process.pid().is_some_and(network::is_apart);
        assert!(process.wait_until(is_apart), "{}", process.log());
        let address = connect(process.pid().expect("the server runs"));
        assert!(
            process.wait_until(|| network::accepts_at(&address, PORT)),
            "{}",
            process.log()
        );
        Self {
            port: PORT,
            endpoint: format!("http://{address}:{PORT}"),
            process,
        }
    }

    fn start_with(tls: bool, versions: bool) -> Self {
        install("versitygw");
        for _ in 0..5 {
            if let Some(server) = Self::try_start(tls, versions) {
                return server;
            }
        }
        panic!("versitygw ended five times as it started");
    }

    fn command(folder: &Path, listen: &str) -> Vec<String> {
        fs::create_dir(folder.join("buckets")).expect("the folder is ours");
        fs::create_dir(folder.join("accounts")).expect("the folder is ours");
        vec![
            cache().join("bin/versitygw").display().to_string(),
            "--keep-alive".to_owned(), // as S3 does
            "--port".to_owned(),
            listen.to_owned(),
            "--region".to_owned(),
            Self::REGION.to_owned(),
            "--iam-dir".to_owned(),
            folder.join("accounts").display().to_string(),
        ]
    }

    /// Runs what `command` begins, with these options for the folder of objects.
    fn run(folder: PathBuf, mut command: Vec<String>, posix: Vec<String>) -> ServerProcess {
        command.push("posix".to_owned());
        command.extend(posix);
        command.push(folder.join("buckets").display().to_string());
        let credentials = [
            ("ROOT_ACCESS_KEY", Self::ACCESS_KEY.to_owned()),
            ("ROOT_SECRET_KEY", Self::SECRET_KEY.to_owned()),
        ];
        ServerProcess::start(folder, "KILL", &command, &credentials)
    }

    fn try_start(tls: bool, versions: bool) -> Option<Self> {
        let folder = new_folder("s3");
        let port = network::free_port();
        let mut command = Self::command(&folder, &format!("127.0.0.1:{port}"));
        if tls {
            let certificates = Certificates::of_this_process();
            for (option, name, text) in [
                ("--cert", "server.crt", &certificates.server),
                ("--key", "server.key", &certificates.server_key),
            ] {
                let path = Certificates::write(text, &folder.join(name));
                command.extend([option.to_owned(), path.display().to_string()]);
            }
        }
        let posix = if versions {
            fs::create_dir(folder.join("versions")).expect("the folder is ours");
            vec![
                "--versioning-dir".to_owned(),
                folder.join("versions").display().to_string(),
            ]
        } else {
            Vec::new()
        };
        let process = Self::run(folder, command, posix);
        if !process.wait_until(|| network::accepts(port)) {
            eprintln!("{}", process.log());
            return None;
        }
        let endpoint = format!("{}://127.0.0.1:{port}", if tls { "https" } else { "http" });
        Some(Self {
            port,
            endpoint,
            process,
        })
    }

    /// A client for HTTP endpoints, for this server or a proxy before it.
    pub fn client(endpoint: &str) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version_latest()
            .region(aws_sdk_s3::config::Region::new(Self::REGION))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .credentials_provider(aws_sdk_s3::config::Credentials::new(
                Self::ACCESS_KEY,
                Self::SECRET_KEY,
                None,
                None,
                "tests",
            ))
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// A folder is a bucket.
    pub fn create_bucket(&self, bucket: &str) {
        fs::create_dir(self.bucket_folder(bucket)).expect("the bucket is new");
    }

    /// A bucket with object lock; on a server that keeps versions it keeps them.
    pub async fn create_locked_bucket(&self, bucket: &str) {
        let request = Self::client(&self.endpoint).create_bucket().bucket(bucket);
        let request = request.object_lock_enabled_for_bucket(true);
        request.send().await.expect("the bucket is new");
    }

    /// The folder that holds a bucket's objects as files.
    pub fn bucket_folder(&self, bucket: &str) -> PathBuf {
        self.process.folder.join("buckets").join(bucket)
    }

    /// The keys of all objects, sorted; parts of unfinished uploads are not among them.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let root = self.bucket_folder(bucket);
        let mut keys = Vec::new();
        collect_files(&root, &mut keys);
        let mut keys: Vec<String> = keys
            .iter()
            .map(|path| {
                path.strip_prefix(&root)
                    .expect("inside the bucket")
                    .display()
                    .to_string()
            })
            .filter(|key| !key.starts_with(".sgwtmp/"))
            .collect();
        keys.sort();
        keys
    }

    /// The parts of uploads that were neither completed nor aborted.
    pub fn orphan_parts(&self, bucket: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect_files(&self.bucket_folder(bucket).join(".sgwtmp/multipart"), &mut files);
        files
    }

    pub fn object(&self, bucket: &str, key: &str) -> Vec<u8> {
        fs::read(self.bucket_folder(bucket).join(key)).unwrap_or_else(|error| panic!("object {key}: {error}"))
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.process.pid().expect("the server was started")
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return; // not there: nothing in it
    };
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            collect_files(&path, files);
        } else {
            files.push(path);
        }
    }
}
