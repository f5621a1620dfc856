//! Processes that a test starts.

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::LazyLock,
    time::Duration,
};

use crate::{Log, until};

/// In the environment of each process that a test starts, and inherited by those that it starts.
const MARK: &str = "ASYNC_RPC_TEST";

/// The unit of the CPU times in `/proc/*/stat`: USER_HZ, which is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// The executable under test. `CARGO_BIN_EXE_async-rpc` exists only in the launcher's own tests;
/// Cargo has built the executable for them, one folder above this test's own executable.
pub static EXECUTABLE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = executable_folder().join("async-rpc");
    assert!(path.is_file(), "{} is missing: cargo build", path.display());
    path
});

/// The folder of the executables under test: `target/debug` for `target/debug/deps/system-….`
pub fn executable_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    test.ancestors().nth(2).expect("target/<profile>/deps").to_owned()
}

/// A process. It is killed on drop.
pub struct Process {
    /// Its process id.
    pub pid: u32,
    child: Child,
    log: Log,
}

impl Process {
    /// Starts `command`. Its output goes to `log`.
    pub fn start(command: &mut Command, log: &Log) -> Self {
        Self::start_until(command, log, |_| false)
    }

    /// The same, but nobody reads its standard output after this line, as in `command | head`.
    pub fn start_until(
        command: &mut Command,
        log: &Log,
        is_last: impl Fn(&str) -> bool + Send + 'static,
    ) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env(MARK, log.mark());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        log.collect_until(child.stdout.take().unwrap(), is_last);
        log.collect(child.stderr.take().unwrap());
        Self { pid: child.id(), child, log: log.clone() }
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.pid, name);
    }

    /// Its exit status; `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has exited.
    pub async fn exited(&mut self) -> ExitStatus {
        let (log, pid) = (self.log.clone(), self.pid);
        until(&log, &format!("the exit of process {pid}"), async || self.status()).await
    }

    /// Stops it with SIGTERM, if it still runs, and waits until it has exited.
    pub async fn stop(&mut self) -> ExitStatus {
        if self.status().is_none() {
            self.signal("TERM");
        }
        self.exited().await
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        // Both fail if it has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The executable that an environment variable names. An empty variable counts as unset.
pub fn executable_of(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|path| !path.is_empty())
}

/// Says that `test` is skipped, past the test harness, which shows the output of failed tests only.
pub fn skipped(test: &str, why: &str) {
    let _ = std::io::stderr().write_all(format!("skipped: {test} ({why})\n").as_bytes());
}

/// A command that runs the executable under test with these settings and no others.
pub fn async_rpc(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(&*EXECUTABLE);
    command.args(arguments);
    set(&mut command, settings);
    command
}

/// Replaces the settings of the system in the environment of `command`.
pub fn set(command: &mut Command, settings: &[(&str, &str)]) {
    const PREFIXES: [&str; 4] = ["NODE_", "GATEWAY_", "EMBEDDED_SERVER_", "OTEL_"];
    let is_setting = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in std::env::vars().filter(|(name, _)| is_setting(name)) {
        command.env_remove(name);
    }
    // Events that a test can read. The start of a run is logged at level debug.
    command.env("NODE_LOG", "node=debug").env("NODE_LOG_FORMAT", "json");
    command.envs(settings.iter().copied());
}

/// Sends a signal to a process.
///
/// # Panics
/// There is no such process.
pub fn signal(pid: u32, name: &str) {
    assert!(try_signal(pid, name), "kill -{name} {pid} failed");
}

/// Sends a signal to a process that may have exited already.
pub fn try_signal(pid: u32, name: &str) -> bool {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null());
    kill.status().is_ok_and(|status| status.success())
}

/// The processes that still run of those whose output goes to `log` and of those that they started,
/// with their command lines.
pub fn left(log: &Log) -> Vec<(u32, String)> {
    let mark = format!("{MARK}={}", log.mark());
    let is_marked = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| is_marked(*pid) && runs(*pid))
        .map(|pid| (pid, command_line(pid)))
        .collect()
}

/// Whether a process runs. A zombie does not.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    // The state follows the name, which is in parentheses and can contain anything.
    let state = stat.ok().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The launcher's table among the lines that it has printed: instances, pids and ports.
pub fn table(lines: &[String]) -> impl Iterator<Item = (String, u32, u16)> {
    let rows = lines.iter().skip_while(|line| !line.starts_with("process ")).skip(1);
    // Events of the processes may stand between the rows.
    let cells = |line: &String| -> Option<Vec<_>> {
        let words: Vec<_> = line.split_whitespace().collect();
        let cell = |cell: &[&str]| {
            let [instance, pid, port] = cell else { return None };
            Some(((*instance).to_owned(), pid.parse().ok()?, port.parse().ok()?))
        };
        words.chunks(3).map(cell).collect()
    };
    rows.filter_map(cells).flatten()
}

/// The command line of a process.
pub fn command_line(pid: u32) -> String {
    let path = Path::new("/proc").join(pid.to_string()).join("cmdline");
    let words = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&words).split('\0').collect::<Vec<_>>().join(" ")
}

/// The user and system time of a process. Zero if it has exited.
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is the name of the executable, in parentheses. It may contain spaces.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |n: usize| fields.get(n).and_then(|ticks| ticks.parse::<u32>().ok()).unwrap_or_default();
    TICK * (ticks(11) + ticks(12))
}

/// The resident memory of a process in bytes. Zero if it has exited.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}
