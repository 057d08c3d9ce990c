//! A server process with a folder of its own, both gone when the value is
//! dropped or the test process ends in whatever way.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Starts the server and waits for the end of its standard input, a pipe that
/// the test process holds: it closes with that process, even on SIGKILL.
const WATCHDOG: &str = r#"
folder=$1 signal=$2; shift 2
{ "$@" >"$folder/log" 2>&1 & echo $! >"$folder/pid"; wait $!; echo $? >"$folder/exited"; } &
read -r _
kill -s "$signal" "$(cat "$folder/pid")" 2>/dev/null
wait
rm -rf "$folder"
"#;

/// How long a server may take to start before the test fails.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// A file system in memory: shm_overview(7).
const MEMORY: &str = "/dev/shm";

/// A private folder, removed with the process that runs in it.
pub fn new_folder(name: &str) -> PathBuf {
    new_folder_below(&std::env::temp_dir(), name)
}

/// The same for a server's data. In memory where the machine has much of it and no disk is to be measured: on a disk,
/// the file system's search for inodes is a sixth of what tests cost that make hundreds of databases.
pub fn new_data_folder(name: &str) -> PathBuf {
    const MUCH: u64 = 16 << 30; // bytes
    static HAS_MUCH: LazyLock<bool> = LazyLock::new(|| {
        let in_memory = rustix::fs::statvfs(MEMORY).is_ok_and(|place| place.f_bavail * place.f_frsize >= MUCH);
        let available = fs::read_to_string("/proc/meminfo").ok().and_then(|numbers| {
            let line = numbers.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        });
        in_memory && available.is_some_and(|kilobytes| kilobytes << 10 >= MUCH)
    });
    if crate::DATA_IN_MEMORY && *HAS_MUCH {
        new_folder_below(Path::new(MEMORY), name)
    } else {
        new_folder(name)
    }
}

fn new_folder_below(place: &Path, name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = place.join(format!("pgrescue-{name}-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&folder); // left by an earlier process with this id
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .expect("the temporary folder is writable");
    folder
}

/// PostgreSQL refuses to run as root. In a user namespace where root has
/// another number it runs, and may still read what root alone may read.
pub fn not_as_root(program: &Path) -> Vec<String> {
    let program = program.display().to_string();
    let uid = fs::metadata("/proc/self").expect("/proc is mounted").uid();
    if uid != 0 {
        return vec![program];
    }
    ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
        .map(str::to_owned)
        .into_iter()
        .chain([program])
        .collect()
}

/// A running server.
#[derive(Debug)]
pub struct ServerProcess {
    pub folder: PathBuf,
    watchdog: Child,
}

impl ServerProcess {
    /// Starts `command`; `signal` is what stops it at once.
    pub fn start(folder: PathBuf, signal: &str, command: &[String], environment: &[(&str, String)]) -> Self {
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&folder)
            .arg(signal)
            .args(command)
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C reaches the test process alone; the pipe does the rest
            .spawn()
            .expect("sh is installed");
        Self { folder, watchdog }
    }

    /// Waits until `ready` says so. False when the server ended before that.
    pub fn wait_until(&self, ready: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + START_DEADLINE;
        while !ready() {
            if self.folder.join("exited").exists() {
                return false;
            }
            assert!(
                Instant::now() < deadline,
                "the server in {} did not start:\n{}",
                self.folder.display(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// What the server wrote to its standard output and error.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    /// The server itself; `None` where it is not started yet.
    pub fn pid(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.folder.join("pid")).ok()?;
        pid.trim().parse().ok()
    }

    /// Sends a signal to the server itself, such as `KILL` or `STOP`.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().expect("the server was started");
        let status = Command::new("kill")
            .args(["-s", signal, &pid.to_string()])
            .status()
            .expect("kill is installed");
        assert!(status.success(), "kill -s {signal} {pid}");
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}
