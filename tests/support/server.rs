//! The Resonate Servers that the tests run on.

use std::{
    io::Write,
    net::TcpListener,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use super::{Http, Log, Process, process, until};

/// Names the executable of the official server.
const OFFICIAL: &str = "RESONATE_SERVER_BIN";

/// Which server a system runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Server {
    /// The one of this project, in memory.
    Embedded,
    /// The one that `RESONATE_SERVER_BIN` names, on a file of its own.
    Official,
}

impl Server {
    /// Whether the official server can be had. Says which test is skipped if not.
    pub fn official_is_here(test: &str) -> bool {
        let here = std::env::var_os(OFFICIAL).is_some();
        if !here {
            // Past the harness, which shows what a test prints only if it fails.
            let line = format!("skipped on the official server: {test} ({OFFICIAL} is not set)\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        here
    }

    /// A server of this kind that is not started yet.
    pub fn prepare(self, log: &Log) -> Prepared {
        let port = free_port();
        // In memory where that can be had: a disk that others keep busy stalls the server for seconds.
        let memory = Path::new("/dev/shm");
        let directory =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = directory.unwrap();
        let settings = Vec::new();
        Prepared { kind: self, port, directory, settings, log: log.clone(), process: None }
    }
}

/// A server with its address and its file; it can be started, killed, and started again.
pub struct Prepared {
    kind: Server,
    port: u16,
    directory: tempfile::TempDir,
    /// Environment variables that win over the usual ones.
    pub settings: Vec<(String, String)>,
    log: Log,
    process: Option<Process>,
}

impl Prepared {
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&mut self) {
        self.process = Some(Process::start(&mut self.command(), &self.log));
        let http = Http::new(&format!("127.0.0.1:{}", self.port));
        let log = self.log.clone();
        until(&log, "the Resonate Server", async || {
            let answer = http.send(reqwest::Method::GET, "/health", &[]).await;
            answer.ok().filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    fn command(&self) -> Command {
        let port = self.port.to_string();
        if self.kind == Server::Embedded {
            let listen = format!("127.0.0.1:{port}");
            return process::executable(&["server", "--listen", &listen], &[]);
        }
        let mut command = Command::new(std::env::var_os(OFFICIAL).unwrap());
        command
            .arg("serve")
            .env("RESONATE_SERVER__BIND", "127.0.0.1")
            .env("RESONATE_SERVER__PORT", port)
            .env("RESONATE_STORAGE__SQLITE__PATH", self.directory.path().join("resonate.db"))
            .env("RESONATE_MESSAGES__POLL_INTERVAL", "1")
            .env("RESONATE_TIMEOUTS__POLL_INTERVAL", "100")
            .env("RESONATE_TASKS__RETRY_TIMEOUT", "2000")
            .env("RESONATE_OBSERVABILITY__METRICS_PORT", "0")
            .env("RESONATE_LEVEL", "error")
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A port that nobody listens on, below those that the system gives to outgoing connections: a
/// client that tries to reach a server which is not there could else be given that very port.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 12_000 + (std::process::id() as u16).wrapping_mul(37) % 20_000;
        let port = port + NEXT.fetch_add(1, Ordering::Relaxed) % 500;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
