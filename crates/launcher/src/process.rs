//! One child process of the launcher.

use std::{
    borrow::Cow,
    net::SocketAddr,
    os::{
        fd::OwnedFd, unix::net::UnixStream as StdUnixStream, unix::process::CommandExt,
        unix::process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::Duration,
};

use node::{error::Error, launched::LAUNCHED};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpStream, UnixStream},
    process::Child,
};

/// How often the launcher tries whether another program listens.
const POLL: Duration = Duration::from_millis(50);

/// What to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its part in the system.
    pub role: Role,
    /// The name that all replicas share.
    pub group: String,
    /// The name of this process.
    pub instance: String,
    /// What is executed.
    pub program: Program,
    /// The command line, without the executable.
    pub arguments: Vec<String>,
    /// Variables beyond the environment that it inherits.
    pub environment: Vec<(&'static str, String)>,
    /// More of them, whose values nobody may see.
    pub secrets: Vec<(&'static str, String)>,
}

/// The part of a process in the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Jaeger,
    Gateway,
    Service,
}

/// What is executed.
#[derive(Debug, Clone)]
pub enum Program {
    /// This executable.
    Own,
    /// Another program, which is ready once it listens on all of these addresses.
    Other { path: PathBuf, listens: Vec<SocketAddr> },
}

/// A child whose standard input is a socket: the child writes there that it is ready, and stops
/// when the launcher closes it or is gone.
pub struct Process {
    pub spec: Spec,
    pub pid: u32,
    child: Child,
    socket: Option<BufReader<UnixStream>>,
}

impl Spec {
    /// Makes the process listen where it did, if it is started again.
    pub fn keep_address(&mut self, address: SocketAddr) {
        let listen = self.arguments.iter().position(|word| word == "--listen");
        if let Some(value) = listen.and_then(|at| self.arguments.get_mut(at + 1)) {
            *value = address.to_string();
        }
    }
}

impl Process {
    /// Starts what `spec` says.
    ///
    /// # Errors
    /// The system has no process or socket to give.
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
            .envs(spec.environment.iter().chain(&spec.secrets).map(|(name, value)| (name, value)));
        command.env(LAUNCHED, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
        // A process group of its own: Ctrl-C in the terminal reaches only the launcher, which then
        // stops the others in order.
        command.process_group(0);
        let child = tokio::process::Command::from(command).spawn().map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { spec, pid, child, socket: Some(BufReader::new(socket)) })
    }

    /// Waits until the process is ready, and returns the address that it listens on.
    ///
    /// # Errors
    /// It exited first. It has printed the reason itself.
    pub async fn ready(&mut self) -> Result<SocketAddr, ExitStatus> {
        if let Program::Other { listens, .. } = &self.spec.program {
            let listens = listens.clone();
            return tokio::select! {
                status = self.exited() => Err(status),
                address = listening(&listens) => Ok(address),
            };
        }
        let mut line = String::new();
        if let Some(socket) = &mut self.socket
            && socket.read_line(&mut line).await.is_ok()
            && let Ok(address) = line.trim().parse()
        {
            return Ok(address);
        }
        Err(self.exited().await)
    }

    /// Waits until the process has exited.
    pub async fn exited(&mut self) -> ExitStatus {
        match self.child.wait().await {
            Ok(status) => status,
            // It fails only if somebody else has waited for this child.
            Err(_) => ExitStatus::from_raw(0),
        }
    }

    /// Tells the process to stop: it finishes its work and exits.
    pub fn stop(&mut self) {
        self.socket = None;
    }

    /// Kills the process.
    pub async fn kill(&mut self) {
        // It fails only for a process that has exited already.
        let _ = self.child.kill().await;
    }
}

/// Waits until something listens on each of `addresses`, and returns the first one.
async fn listening(addresses: &[SocketAddr]) -> SocketAddr {
    for address in addresses {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    }
    addresses[0]
}

/// The executable of this process, as it was called first: once it has been built again, the system names
/// the file that is gone.
fn executable() -> std::io::Result<PathBuf> {
    static FIRST: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = FIRST.get() {
        return Ok(path.clone());
    }
    let path = std::env::current_exe()?;
    Ok(FIRST.get_or_init(|| path).clone())
}

/// The command line that starts `spec` in a shell, for a person to copy.
pub fn command_line(spec: &Spec) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let executable = executable().unwrap_or_else(|_| "async-rpc".into());
    let path = relative(&executable, &here);
    let mut words = Vec::new();
    let environment = spec.environment.iter().map(|(name, value)| format!("{name}={value}"));
    let secrets = spec.secrets.iter().map(|(name, _)| format!("{name}=SECRET"));
    let variables: Vec<_> = environment.chain(secrets).collect();
    if !variables.is_empty() {
        words.push("env".to_owned());
        words.extend(variables);
    }
    words.push(path.display().to_string());
    words.extend(spec.arguments.iter().cloned());
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A path as a shell takes it in the folder `here`.
fn relative(path: &Path, here: &Path) -> PathBuf {
    let path = path.strip_prefix(here).unwrap_or(path);
    match path.components().count() {
        // A shell looks for a bare name in PATH.
        1 => Path::new(".").join(path),
        _ => path.to_owned(),
    }
}

/// A word as a shell reads it back. Braces stay bare: a place in a template is filled in later.
fn quoted(word: &str) -> Cow<'_, str> {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_=:,./@%+{}".contains(c);
    match !word.is_empty() && word.chars().all(bare) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_has_no_secret() {
        let spec = Spec {
            role: Role::Service,
            group: "service-b".to_owned(),
            instance: "service-b".to_owned(),
            program: Program::Own,
            arguments: vec!["service-b".to_owned()],
            environment: Vec::new(),
            secrets: vec![("NODE_SERVER_URL", "http://user:s3cret@resonate".to_owned())],
        };
        let line = command_line(&spec);
        assert!(
            line.starts_with("env NODE_SERVER_URL=SECRET ") && !line.contains("s3cret"),
            "{line}"
        );
    }

    #[test]
    fn a_shell_finds_the_executable() {
        for (here, expected) in [
            ("/x", "target/async-rpc"),
            ("/x/target", "./async-rpc"),
            ("/y", "/x/target/async-rpc"),
        ] {
            let path = relative(Path::new("/x/target/async-rpc"), Path::new(here));
            assert_eq!(path, Path::new(expected));
            assert_eq!(path.display().to_string(), expected);
        }
    }

    #[test]
    fn a_shell_reads_each_word_back() {
        for (word, expected) in [
            ("--server", "--server"),
            ("OTEL_X=http://127.0.0.1:4318/v1/traces", "OTEL_X=http://127.0.0.1:4318/v1/traces"),
            ("kill -9 {pid}", "'kill -9 {pid}'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
