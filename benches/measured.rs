//! Runs commands and measures them.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long something took, and what it needed.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub wall: Duration,
    /// Most memory that the process itself had resident, in MiB; its children are not in it.
    pub peak_mib: f64,
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    let begin = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (status, peak_mib) = wait(&mut child);
    let wall = begin.elapsed();
    assert!(status.success(), "{command:?} ended with {status}");
    Run { wall, peak_mib }
}

/// The kernel keeps the peak, but only as long as the process lives: the last look is at most 5 ms before its end.
fn wait(child: &mut Child) -> (ExitStatus, f64) {
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    loop {
        if let Some(kib) = std::fs::read_to_string(&status_file).ok().as_deref().and_then(peak) {
            peak_kib = peak_kib.max(kib);
        }
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return (status, f64::from(peak_kib) / 1024.0);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `VmHWM` of `/proc/<pid>/status` (`proc_pid_status(5)`): peak resident set size in KiB.
fn peak(status: &str) -> Option<u32> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
