//! The Resonate Servers that the tests run on.

use std::{ffi::OsString, net::SocketAddr, path::Path, process::Command};

use crate::{Http, Log, Process, free_port, process, until};

/// Names the executable of the official server.
const OFFICIAL: &str = "RESONATE_SERVER_BIN";

/// Which server a system runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Server {
    /// The in-memory server of this project.
    Embedded,
    /// The server that `RESONATE_SERVER_BIN` names, with a database of its own.
    Official,
}

impl Server {
    /// The executable of the official server, if there is one.
    pub fn official_executable() -> Option<OsString> {
        process::executable_of(OFFICIAL)
    }

    /// Whether there is an official server. If not, says that `test` is skipped.
    pub fn official_is_here(test: &str) -> bool {
        let here = Self::official_executable().is_some();
        if !here {
            process::skipped(
                &format!("{test}, on the official server"),
                "RESONATE_SERVER_BIN is not set",
            );
        }
        here
    }

    /// A server of this kind that has a port and a database but is not started.
    pub fn prepare(self, log: &Log) -> Prepared {
        let port = free_port();
        // In memory if possible: a disk that others keep busy stalls the server for seconds.
        let memory = Path::new("/dev/shm");
        let directory =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = directory.unwrap();
        let (executable, settings) = (Self::official_executable(), Vec::new());
        let log = log.clone();
        Prepared { kind: self, port, directory, executable, settings, log, process: None }
    }
}

/// A server with its port and database. It can be started, killed, and started again.
pub struct Prepared {
    kind: Server,
    /// The port at which it answers once it is started.
    pub port: u16,
    directory: tempfile::TempDir,
    /// The executable of an official server.
    pub executable: Option<OsString>,
    /// Environment variables that override the defaults of the tests.
    pub settings: Vec<(String, String)>,
    log: Log,
    process: Option<Process>,
}

impl Prepared {
    /// The URL at which it answers once it is started.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The address at which it answers once it is started.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The process id; `None` while it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self) {
        self.process = Some(Process::start(&mut self.command(), &self.log));
        let http = Http::new(&self.address().to_string());
        let log = self.log.clone();
        until(&log, "the Resonate Server", async || {
            http.status("/health").await.filter(|status| *status == 200)
        })
        .await;
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    fn command(&self) -> Command {
        let settings: Vec<_> =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let port = self.port.to_string();
        if self.kind == Server::Embedded {
            let listen = format!("127.0.0.1:{port}");
            return process::async_rpc(&["server", "--listen", &listen], &settings);
        }
        let executable = self.executable.as_ref().expect("RESONATE_SERVER_BIN is set");
        let mut command = Command::new(executable);
        // What the user has set for another server is not for this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RESONATE_") {
                command.env_remove(name);
            }
        }
        command
            .arg("serve")
            .current_dir(&self.directory)
            .env("RESONATE_SERVER__BIND", "127.0.0.1")
            .env("RESONATE_SERVER__PORT", port)
            .env("RESONATE_STORAGE__SQLITE__PATH", self.directory.path().join("resonate.db"))
            .env("RESONATE_MESSAGES__POLL_INTERVAL", "1")
            .env("RESONATE_TIMEOUTS__POLL_INTERVAL", "100")
            .env("RESONATE_TASKS__RETRY_TIMEOUT", "500")
            .env("RESONATE_OBSERVABILITY__METRICS_PORT", "0")
            .env("RESONATE_LEVEL", "error")
            .envs(settings);
        command
    }
}
