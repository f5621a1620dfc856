//! One process that the launcher has started.

use std::{
    net::SocketAddr,
    os::{
        fd::OwnedFd, unix::net::UnixStream as StdUnixStream, unix::process::CommandExt,
        unix::process::ExitStatusExt,
    },
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

use node::lifecycle::{Error, LAUNCHED};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
    process::Child,
};

/// What to start: the arguments of this executable.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The name that all replicas share.
    pub group: String,
    /// The name of this process.
    pub instance: String,
    /// The command line, without the executable.
    pub arguments: Vec<String>,
}

/// A child, and the socket that is its standard input: it hears from its end that the launcher is
/// gone or wants it to stop, and tells there that it is ready.
pub struct Process {
    pub spec: Spec,
    pub pid: u32,
    child: Child,
    socket: Option<BufReader<UnixStream>>,
}

impl Process {
    /// Starts the executable that is running with the arguments of `spec`.
    ///
    /// # Errors
    /// The system does not give another process or socket.
    pub fn start(spec: Spec) -> Result<Self, Error> {
        let failed = |error: std::io::Error| {
            Error::Other(format!("cannot start {}: {error}", spec.instance))
        };
        let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let socket = UnixStream::from_std(ours).map_err(failed)?;
        let mut command = Command::new(executable().map_err(failed)?);
        command.args(&spec.arguments).env(LAUNCHED, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
        // A group of its own: Ctrl-C in the terminal reaches the launcher alone, which then ends
        // the others in order.
        command.process_group(0);
        let child = tokio::process::Command::from(command).spawn().map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { spec, pid, child, socket: Some(BufReader::new(socket)) })
    }

    /// Waits until the process is ready, and gives the address that it listens on.
    ///
    /// # Errors
    /// It ended before; it has said itself why.
    pub async fn ready(&mut self) -> Result<SocketAddr, ExitStatus> {
        let mut line = String::new();
        if let Some(socket) = &mut self.socket
            && socket.read_line(&mut line).await.is_ok()
            && let Ok(address) = line.trim().parse()
        {
            return Ok(address);
        }
        Err(self.ended().await)
    }

    /// Waits until the process has ended, however that came.
    pub async fn ended(&mut self) -> ExitStatus {
        match self.child.wait().await {
            Ok(status) => status,
            // Only if somebody else has waited for this child.
            Err(_) => ExitStatus::from_raw(0),
        }
    }

    /// Asks the process to stop: it drains and ends.
    pub fn stop(&mut self) {
        self.socket = None;
    }

    /// Ends the process at once.
    pub async fn kill(&mut self) {
        // It fails for a process that has ended already, which is what is wanted.
        let _ = self.child.kill().await;
    }
}

fn executable() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// The command that starts a process of `spec` by hand, for a person to copy.
pub fn command_line(spec: &Spec) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let executable = executable().unwrap_or_else(|_| "async-rpc".into());
    let path = executable.strip_prefix(&here).unwrap_or(&executable);
    let words: Vec<_> = spec.arguments.iter().map(String::as_str).collect();
    format!("{} {}", path.display(), words.join(" "))
}

/// How a process ended, in words.
pub fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "was killed (SIGKILL)".to_owned(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(0)) => "has stopped".to_owned(),
        (None, code) => format!("ended with exit code {}", code.unwrap_or_default()),
    }
}
