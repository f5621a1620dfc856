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
    let result = runtime.block_on(future);
    // Dropping it would wait for name resolution that hangs.
    runtime.shutdown_background();
    result
}

/// Listens on `address`.
///
/// # Errors
/// It is taken, or not an address of this machine. `variable` is what the user can change.
pub async fn listen(address: SocketAddr, variable: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source, variable })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        time::Duration,
    };

    use tokio::{
        sync::{self, RwLock, oneshot},
        task::spawn_blocking,
        time::timeout,
    };

    use super::*;

    #[test]
    fn blocking_work_takes_at_most_16_threads() {
        block_on(1, async {
            let hang = Arc::new(RwLock::new(()));
            let hanging = hang.write().await;
            let (begin, mut begun) = sync::mpsc::channel(100);
            for _ in 0..100 {
                let (begin, hang) = (begin.clone(), hang.clone());
                spawn_blocking(move || {
                    let _ = begin.try_send(());
                    drop(hang.blocking_read());
                });
            }
            for _ in 0..BLOCKING_THREADS {
                begun.recv().await.unwrap();
            }
            let further = timeout(Duration::from_millis(100), begun.recv()).await;
            assert!(further.is_err(), "another thread");
            drop(hanging);
            begun.recv().await.unwrap();
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn the_end_does_not_wait_for_blocking_work() {
        let (release, released) = mpsc::channel();
        let (begun, begins) = oneshot::channel();
        block_on(1, async move {
            spawn_blocking(move || {
                begun.send(()).unwrap();
                released.recv_timeout(Duration::from_secs(20))
            });
            begins.await.map_err(|error| Error::Other(error.to_string()))
        })
        .unwrap();
        assert!(release.send(()).is_ok(), "the work has ended before");
    }
}
