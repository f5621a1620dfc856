//! Checks ports before anything starts, so that a taken one is one line and exit code 64.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use node::error::Error;

/// Listens on `address` for as long as the returned listener lives. `option` is what the error
/// tells the user to change.
///
/// # Errors
/// The address is taken, or not one of this machine.
pub fn listen(address: SocketAddr, option: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).map_err(|source| Error::Listen { address, source, variable: option })
}

/// A port of this machine's loopback interface.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Where to reach a process that listens on `address`, which may stand for all addresses.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        false => address,
    }
}
