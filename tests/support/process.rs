//! A process that a test has started.

use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::{Log, until};

/// The executable under test.
pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_async-rpc");

/// Set for each process that a test starts, and inherited by those that it starts in turn.
const MARK: &str = "ASYNC_RPC_TEST";

/// A process; it is killed when this is dropped.
pub struct Process {
    pub pid: u32,
    child: Child,
    log: Log,
}

impl Process {
    /// Starts `command`; its output goes to `log`.
    pub fn start(command: &mut Command, log: &Log) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env(MARK, log.mark());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        log.collect(child.stdout.take().unwrap());
        log.collect(child.stderr.take().unwrap());
        Self { pid: child.id(), child, log: log.clone() }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(self.pid, name);
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let (log, pid) = (self.log.clone(), self.pid);
        until(&log, &format!("the end of process {pid}"), async || self.status()).await
    }

    /// Waits until it has ended, without a runtime, and kills it after `patience`.
    pub fn end_within(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if start.elapsed() > patience {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs the executable under test, with none of the settings of this environment.
pub fn executable(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(EXECUTABLE);
    command.args(arguments);
    set(&mut command, settings);
    command
}

/// Replaces the system's settings in the environment of `command`.
pub fn set(command: &mut Command, settings: &[(&str, &str)]) {
    let ours =
        |name: &str| ["NODE_", "GATEWAY_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    // Log lines that a test can read; "run begins" is one of level debug.
    command.env("NODE_LOG", "node=debug").env("NODE_LOG_FORMAT", "json");
    command.envs(settings.iter().copied());
}

/// Sends a signal to a process that is there.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.unwrap().success(), "kill -{name} {pid}");
}

/// The command lines of the processes that still run of those whose output went to `log`, and of
/// those that they started.
pub fn left(log: &Log) -> Vec<(u32, String)> {
    let mark = format!("{MARK}={}", log.mark());
    let marked = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| marked(*pid) && runs(*pid))
        .map(|pid| (pid, command_line(pid)))
        .collect()
}

/// Whether a process is there and runs; one that only waits to be collected does not.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    // The state comes after the name, which stands in parentheses and may contain anything.
    let state = stat.ok().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The command line of a process.
pub fn command_line(pid: u32) -> String {
    let path = Path::new("/proc").join(pid.to_string()).join("cmdline");
    let words = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&words).split('\0').collect::<Vec<_>>().join(" ")
}
