//! Ports. They are checked before anything starts: a taken one is one line and exit code 64.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use node::error::Error;

/// Listens on `address` for as long as the returned listener lives. `option` is what the error
/// tells the user to change.
///
/// # Errors
/// The address is taken, or not one of this machine.
pub fn listen(address: SocketAddr, option: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).map_err(|source| Error::Listen { address, source, variable: option })
}

/// Reads a port.
///
/// # Errors
/// What is expected.
pub fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "expected a port from 0 to 65535".to_owned())
}

/// A port of this machine's loopback interface.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
