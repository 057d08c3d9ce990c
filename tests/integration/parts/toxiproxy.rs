//! Slow, cut and broken connections: toxiproxy in front of another server.

use std::process::Command;

use super::process::{ServerProcess, new_folder};
use super::{cache, install, network};

/// A running toxiproxy, without proxies at first.
#[derive(Debug)]
pub struct Toxiproxy {
    api_port: u16,
    _process: ServerProcess,
}

/// One listening port whose connections go to one server.
#[derive(Debug)]
pub struct Proxy<'toxiproxy> {
    pub port: u16,
    name: String,
    toxiproxy: &'toxiproxy Toxiproxy,
}

impl Toxiproxy {
    pub fn start() -> Self {
        install("toxiproxy");
        for _ in 0..5 {
            let api_port = network::free_port();
            let command = [
                cache().join("bin/toxiproxy-server").display().to_string(),
                "-host".to_owned(),
                "127.0.0.1".to_owned(),
                "-port".to_owned(),
                api_port.to_string(),
            ];
            let process = ServerProcess::start(new_folder("toxiproxy"), "KILL", &command, &[]);
            if process.wait_until(|| network::accepts(api_port)) {
                return Self {
                    api_port,
                    _process: process,
                };
            }
            eprintln!("{}", process.log());
        }
        panic!("toxiproxy ended five times as it started");
    }

    /// Listens on a new port and passes connections on to `upstream_port` of loopback.
    pub fn proxy(&self, upstream_port: u16) -> Proxy<'_> {
        let port = network::free_port();
        let name = format!("to-{upstream_port}-from-{port}");
        self.command(&[
            "create",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--upstream",
            &format!("127.0.0.1:{upstream_port}"),
            &name,
        ]);
        Proxy {
            port,
            name,
            toxiproxy: self,
        }
    }

    fn command(&self, arguments: &[&str]) {
        let output = Command::new(cache().join("bin/toxiproxy-cli"))
            .arg("--host")
            .arg(format!("http://127.0.0.1:{}", self.api_port))
            .args(arguments)
            .output()
            .expect("toxiproxy-cli is installed");
        assert!(
            output.status.success(),
            "toxiproxy-cli {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Proxy<'_> {
    /// Closes every connection and refuses new ones, until called again.
    pub fn toggle(&self) {
        self.toxiproxy.command(&["toggle", &self.name]);
    }

    /// Adds a fault by toxiproxy's name for it, such as `limit_data` with
    /// `bytes=100000`, to what clients send (`upstream`) or receive.
    pub fn add_toxic(&self, kind: &str, attributes: &[&str], upstream: bool) {
        let direction = if upstream { "--upstream" } else { "--downstream" };
        let mut arguments = vec!["toxic", "add", "--type", kind, "--toxicName", kind, direction];
        for attribute in attributes {
            arguments.extend(["--attribute", attribute]);
        }
        arguments.push(&self.name);
        self.toxiproxy.command(&arguments);
    }

    pub fn remove_toxic(&self, kind: &str) {
        self.toxiproxy
            .command(&["toxic", "remove", "--toxicName", kind, &self.name]);
    }
}
