//! What the benchmark runs on.

use std::{path::Path, process::Command, thread::available_parallelism};

/// The machine and this system's version in one line.
pub fn describe() -> String {
    let cores = available_parallelism().map_or(0, usize::from);
    let model = line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let memory = line_of("/proc/meminfo", "MemTotal").unwrap_or_default();
    let memory = memory.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok());
    let memory = memory.unwrap_or_default() / 1024.0 / 1024.0;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim();
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let commit = commit.unwrap_or_else(|| "unknown".to_owned());
    let profile = if cfg!(debug_assertions) { "a debug build" } else { "a release build" };
    format!("{cores} cores of {model}, {memory:.0} GiB, Linux {kernel}; commit {commit}, {profile}")
}

/// The version that an executable prints.
pub fn version(executable: &Path) -> Option<String> {
    output(executable, &["--version"])
}

/// Says if the machine has other work: figures are worth little then.
pub fn warn_if_busy() {
    let average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let average: f64 = average.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or_default();
    if average > 0.5 {
        eprintln!("this machine has other work (load average {average}): the figures will show it");
    }
}

fn line_of(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn output(executable: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(executable).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Some(text).filter(|text| output.status.success() && !text.is_empty())
}
