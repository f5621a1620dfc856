//! The life of a server.

use std::{io, time::Duration};

use axum::serve::ListenerExt;
use tokio::{net::TcpListener, sync::oneshot};

use crate::{config::Config, server::Server};

/// How long requests may still take when the server stops.
const GRACE: Duration = Duration::from_secs(1);

/// Logs what a user must know about this server.
pub fn warn_of_its_memory() {
    tracing::warn!("embedded Resonate server: state is in memory and lost on restart");
}

/// Serves on `listener` until `shutdown` completes.
///
/// It then ends all message streams, finishes the requests that are in progress within a second, and
/// returns. Dropping the future stops the server at once.
///
/// # Errors
/// The listener has no address. Errors of a connection end only that connection.
pub async fn run(
    listener: TcpListener,
    mut config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    if config.url.is_none() {
        config.url = Some(format!("http://{}", listener.local_addr()?));
    }
    let server = Server::new(&config);
    let listener = listener.tap_io(|stream| {
        // Messages are small in both directions: waiting for a full packet only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
    });
    let (stopping, stopped) = oneshot::channel();
    let closing = server.clone();
    let graceful = async move {
        shutdown.await;
        closing.close();
        let _ = stopping.send(());
    };
    let late = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    let serve = axum::serve(listener, server.routes()).with_graceful_shutdown(graceful);
    tokio::select! {
        served = serve.into_future() => served,
        () = late => Ok(()),
        () = server.run_timers() => Ok(()),
    }
}
