//! The socket between a process and the launcher that started it.

use std::{
    io::Write,
    net::SocketAddr,
    os::{fd::AsFd, unix::net::UnixStream},
};

/// Set for the processes that a launcher starts: their standard input is a socket to it. Its end
/// means that the launcher is gone. What is written there says that the process is ready.
pub const LAUNCHED: &str = "NODE_LAUNCHED";

/// Whether a launcher started this process. It tells its user what is ready.
pub fn is_launched() -> bool {
    std::env::var_os(LAUNCHED).is_some()
}

/// The socket, if a launcher started this process.
pub(crate) fn launcher() -> Option<UnixStream> {
    if !is_launched() {
        return None;
    }
    Some(UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?))
}

/// Tells the launcher, if there is one, that this process is ready and where it listens.
pub fn tell_launcher(address: SocketAddr) {
    if let Some(mut socket) = launcher() {
        // A launcher that is gone shows by the end of the same socket.
        let _ = writeln!(socket, "{address}");
    }
}
