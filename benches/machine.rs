//! What the figures were taken on.

use std::path::Path;
use std::process::Command;

pub fn print() {
    let cpu = first_value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = first_value("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    row("machine", &format!("{cpu}, {cores} cores, {memory}"));
    row("kernel", kernel.trim());
    row("pgrescue", env!("CARGO_PKG_VERSION"));
}

/// A line of the table: what, and which version or value.
pub fn row(name: &str, value: &str) {
    println!("{name:<12} {value}");
}

/// The first line that a program says about its version.
pub fn version(program: &Path, option: &str) -> String {
    let output = Command::new(program).arg(option).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().unwrap_or_default().to_owned()
}

fn first_value(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
