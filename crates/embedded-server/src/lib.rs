//! An in-memory Resonate server: for `cargo run` and the tests.
//!
//! It speaks the protocol of the official server v0.9.8 for what the SDK, the gateway and the tests
//! send: promises, tasks, leases, callbacks, listeners, searches, and messages over server-sent
//! events. Schedules, `task.halt`, `task.continue`, addresses other than `poll://` and everything
//! about authentication are left out; what is left out is refused with a sentence that says so.
//!
//! **A restart forgets everything.** Use the official server wherever a flow must survive one.
//!
//! Where things are: `protocol` reads requests, `core` is the state machine, `delivery` picks the
//! connection of a message, `server` holds them together, `http` is the outside.

mod address;
mod core;
mod delivery;
mod http;
mod protocol;
mod server;

use std::future::{Future, IntoFuture};
use std::io;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::server::Server;

/// How long requests in flight may take once the server is to stop.
const GRACE: Duration = Duration::from_secs(1);

/// Settings of the server.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a task that nobody acquired waits until its group is told again. Default: 2 s.
    pub retry_timeout: Duration,
    /// How long a flow (all promises whose ids share the part before the first dot) is remembered
    /// after the last of its promises was settled. Default: 10 minutes.
    pub retention: Duration,
    /// How many settled flows are remembered at most; the oldest are forgotten before their
    /// retention is over. Default: 20,000.
    pub max_settled_flows: usize,
    /// How many poll streams may be open at once; more are refused with 503. Default: 1,000.
    pub max_connections: usize,
    /// How many messages wait for a client that does not read its stream; further ones go to another
    /// connection of the group, or wait for the retry time-out. Default: 16,384.
    pub queue: usize,
    /// The largest request body in bytes; larger ones are refused with 413. Default: 2 MiB.
    pub max_body: usize,
    /// The address of this server that messages carry (`serverUrl`). Default: none.
    pub url: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retry_timeout: Duration::from_secs(2),
            retention: Duration::from_secs(600),
            max_settled_flows: 20_000,
            max_connections: 1_000,
            queue: 16_384,
            max_body: 2 * 1024 * 1024,
            url: None,
        }
    }
}

/// Serves on `listener` until `shutdown` resolves.
///
/// Then it ends all poll streams, finishes requests in flight for a second at most, and returns.
/// Dropping the future stops it too, without that courtesy.
///
/// # Errors
/// None in practice: errors of single connections are theirs alone.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    tracing::warn!("this server keeps everything in memory: a restart forgets everything");
    let server = Server::new(&config);
    let listener = listener.tap_io(|stream| {
        // Small messages both ways: waiting to fill a packet only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
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
    let serve = axum::serve(listener, http::routes(server.clone(), config.max_body))
        .with_graceful_shutdown(graceful);
    tokio::select! {
        served = serve.into_future() => served,
        () = late => Ok(()),
        () = server.run_timers() => Ok(()),
    }
}
