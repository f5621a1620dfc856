//! One process that the launcher has started.

use std::{
    net::SocketAddr,
    os::{
        fd::OwnedFd, unix::net::UnixStream as StdUnixStream, unix::process::CommandExt,
        unix::process::ExitStatusExt,
    },
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use node::lifecycle::{Error, LAUNCHED};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpStream, UnixStream},
    process::Child,
};

/// What a program of others may take until it listens.
const PATIENCE: Duration = Duration::from_secs(60);

/// Until then, it is tried this often.
const POLL: Duration = Duration::from_millis(50);

/// What to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The name that all replicas share.
    pub group: String,
    /// The name of this process.
    pub instance: String,
    /// Whose command line it is.
    pub program: Program,
    /// The command line, without the executable.
    pub arguments: Vec<String>,
    /// What is set in its environment beyond what it inherits.
    pub environment: Vec<(&'static str, String)>,
}

/// What is executed.
#[derive(Debug, Clone)]
pub enum Program {
    /// The executable that is running.
    Own,
    /// Another one, which is ready as soon as it listens on all of these.
    Other { path: PathBuf, listens: Vec<SocketAddr> },
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
    /// Starts what `spec` says.
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
        let mut command = match &spec.program {
            Program::Own => Command::new(executable().map_err(failed)?),
            Program::Other { path, .. } => Command::new(path),
        };
        command
            .args(&spec.arguments)
            .envs(spec.environment.iter().map(|(name, value)| (name, value)));
        command.env(LAUNCHED, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
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
        if let Program::Other { listens, .. } = &self.spec.program {
            return self.listening(listens.clone()).await;
        }
        let mut line = String::new();
        if let Some(socket) = &mut self.socket
            && socket.read_line(&mut line).await.is_ok()
            && let Ok(address) = line.trim().parse()
        {
            return Ok(address);
        }
        Err(self.ended().await)
    }

    async fn listening(&mut self, addresses: Vec<SocketAddr>) -> Result<SocketAddr, ExitStatus> {
        let all = async {
            for address in &addresses {
                while TcpStream::connect(address).await.is_err() {
                    tokio::time::sleep(POLL).await;
                }
            }
        };
        tokio::select! {
            status = self.ended() => return Err(status),
            () = all => return Ok(addresses[0]),
            () = tokio::time::sleep(PATIENCE) => {}
        }
        println!("{} does not listen on {addresses:?} after {PATIENCE:?}", self.spec.instance);
        self.kill().await;
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
    let mut words = Vec::new();
    if !spec.environment.is_empty() {
        words.push("env".to_owned());
        words.extend(spec.environment.iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.push(path.display().to_string());
    words.extend(spec.arguments.iter().cloned());
    words.join(" ")
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
