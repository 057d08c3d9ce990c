//! Runs commands and measures them.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Unit of the kernel's processor times (`USER_HZ`, 100 on every Linux).
const TICK: Duration = Duration::from_millis(10);

/// How often a process is looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// How long something took, and what it needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    pub wall: Duration,
    /// Most memory that the process itself had resident, in MiB; its children are not in it.
    pub peak_mib: f64,
    /// The same of the largest of its children.
    pub child_peak_mib: f64,
    /// Processor time of the process.
    pub cpu: Duration,
    /// The same of its children.
    pub children_cpu: Duration,
    /// The same of the database server.
    pub server_cpu: Duration,
    /// The same of the store.
    pub store_cpu: Duration,
}

impl Run {
    pub fn seconds(&self) -> f64 {
        self.wall.as_secs_f64()
    }

    /// Processor time of everything that took part.
    pub fn busy(&self) -> Duration {
        self.cpu + self.children_cpu + self.server_cpu + self.store_cpu
    }
}

impl fmt::Display for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:7.2} s; processors: itself {:.1} s, children {:.1} s, server {:.1} s, store {:.1} s, idle {:.1} s; \
             peak {:.0} MiB, largest child {:.0} MiB",
            self.seconds(),
            self.cpu.as_secs_f64(),
            self.children_cpu.as_secs_f64(),
            self.server_cpu.as_secs_f64(),
            self.store_cpu.as_secs_f64(),
            (cores() * self.seconds() - self.busy().as_secs_f64()).max(0.0),
            self.peak_mib,
            self.child_peak_mib
        )
    }
}

/// Processors of this machine.
pub fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// Runs a command to its end. What it prints goes to the file `output`: its last line says why it failed.
pub fn run(command: &mut Command, output: &Path) -> Run {
    command.stdout(File::create(output).expect("the folder is ours"));
    let begin = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (status, seen) = watch(&mut child);
    let wall = begin.elapsed();
    let printed = || std::fs::read_to_string(output).unwrap_or_default();
    assert!(
        status.success(),
        "{command:?} ended with {status}: {}",
        printed().lines().last().unwrap_or_default()
    );
    Run { wall, ..seen }
}

/// The kernel keeps the peak of memory, but only as long as the process lives: the last look is at most one period
/// before its end. Processor times stay until the process is waited for.
fn watch(child: &mut Child) -> (ExitStatus, Run) {
    let pid = child.id();
    let mut seen = Run::default();
    loop {
        seen.peak_mib = seen.peak_mib.max(peak_mib(pid));
        for child in children(pid) {
            seen.child_peak_mib = seen.child_peak_mib.max(peak_mib(child));
        }
        if let Some(stat) = Stat::of(pid) {
            (seen.cpu, seen.children_cpu) = (stat.own, stat.children);
            if !stat.has_ended {
                std::thread::sleep(PERIOD);
                continue;
            }
        }
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return (status, seen);
        }
    }
}

/// `VmHWM` of `/proc/<pid>/status` (`proc_pid_status(5)`): peak resident set size.
fn peak_mib(pid: u32) -> f64 {
    let peak = |status: String| {
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let kib = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(peak);
    f64::from(kib.unwrap_or_default()) / 1024.0
}

/// Children by `/proc/<pid>/task/<thread>/children`: each hangs on the thread that made it.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let files = threads.flatten().map(|thread| thread.path().join("children"));
    let lists = files.filter_map(|file| std::fs::read_to_string(file).ok());
    let pids = |list: String| list.split_whitespace().flat_map(str::parse).collect::<Vec<u32>>();
    lists.flat_map(pids).collect()
}

/// Processor time of a server and all its processes since it started, also of those that have ended.
pub fn cpu_of_server(pid: u32) -> Duration {
    let alive = children(pid).into_iter().chain([pid]);
    let stats = alive.filter_map(Stat::of);
    stats.map(|stat| stat.own + stat.children).sum()
}

/// What `/proc/<pid>/stat` says (`proc_pid_stat(5)`).
struct Stat {
    has_ended: bool,
    own: Duration,
    /// Of children that were waited for.
    children: Duration,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name of the program, in parentheses, may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The state is field 3 of the line.
        let ticks = |field: usize| Some(TICK * fields.get(field - 3)?.parse::<u32>().ok()?);
        Some(Self {
            has_ended: *fields.first()? == "Z",
            own: ticks(14)? + ticks(15)?,
            children: ticks(16)? + ticks(17)?,
        })
    }
}
