//! The `pgrescue` binary; everything is in the library.
#![forbid(unsafe_code)]

use clap::Parser as _;
use pgrescue::cli::{CommandLine, main as run};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    // Two TLS stacks of the dependencies share one provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let code = run(CommandLine::parse()).await;
    std::process::ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
