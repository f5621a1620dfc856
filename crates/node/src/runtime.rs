//! The Tokio runtime of a process, and its listeners.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::{descriptors, error::Error};

/// Threads for blocking work, name resolution included: a resolver that hangs must not take all
/// threads that a container may have.
const BLOCKING_THREADS: usize = 16;

/// Runs the future of a process on a runtime of its own.
///
/// # Errors
/// That of the future; or the system gives no threads.
pub fn block_on(
    worker_threads: usize,
    future: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    descriptors::raise_limit();
    let mut builder = match worker_threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if worker_threads > 1 {
        builder.worker_threads(worker_threads);
    }
    builder.max_blocking_threads(BLOCKING_THREADS);
    let runtime = builder.enable_all().build().map_err(|error| Error::Other(error.to_string()))?;
    runtime.block_on(future)
}

/// Listens on `address`.
///
/// # Errors
/// It is taken, or not an address of this machine. `variable` is what the user can change.
pub async fn listen(address: SocketAddr, variable: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source, variable })
}
