//! The HTTP gateway: it starts flows as durable promises, waits for their results, and tells how
//! they stand. It keeps nothing that a restart would lose.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`flow`] | the three flows: first calls, ids of their invocations |
//! | [`request`] | query parameters and headers, checked |
//! | [`client`] | creates, finds and awaits promises; forgets them after that |
//! | [`routes`] | the HTTP interface |
//! | [`ids`] | the ids and the trace of a flow, for answers |
//! | [`problem`] | errors as clients see them |

pub mod client;
pub mod config;
pub mod flow;
pub mod ids;
pub mod problem;
pub mod request;
pub mod routes;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use node::{
    lifecycle::{self, Error, Overrides, Stop},
    transport::{ConnectionId, Transport},
};
use resonate_otel::{Telemetry, Traced};
use tokio::sync::watch;

use crate::{client::Client, config::Config, routes::App};

/// The group of the gateway's connections, and the name of its first process.
pub const GROUP: &str = "gateway";

#[derive(Parser)]
#[command(
    about = "The HTTP gateway; its settings are the GATEWAY_ and NODE_ variables of the README."
)]
struct Arguments {
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Ask the gateway on GATEWAY_LISTEN whether it is ready; the exit code tells
    Healthcheck,
}

/// The `main` of the gateway's executable.
pub fn main() -> ExitCode {
    let Arguments { overrides, command } = Arguments::parse();
    lifecycle::exit_code(match command {
        Some(Command::Healthcheck) => {
            lifecycle::healthcheck(|| Ok(reachable(Config::load()?.listen)))
        }
        None => run(&overrides, None),
    })
}

/// An address to ask a process at that listens on all of them.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listen.port()),
        false => listen,
    }
}

/// Runs the gateway until it is told to stop. `port` wins over the port of `GATEWAY_LISTEN`.
///
/// # Errors
/// The configuration cannot be used, or the address is taken.
pub fn run(overrides: &Overrides, port: Option<u16>) -> Result<(), Error> {
    let node = overrides.config(GROUP)?;
    let mut config = Config::load()?;
    if let Some(port) = port {
        config.listen.set_port(port);
    }
    let telemetry = lifecycle::telemetry(GROUP, &node)?;
    lifecycle::block_on(node.worker_threads, serve(node, config, &telemetry))
}

async fn serve(
    node: node::config::Config,
    config: Config,
    telemetry: &Telemetry,
) -> Result<(), Error> {
    let mut stop = Stop::listen(&node.instance)?;
    let listener = lifecycle::listen(config.listen, "GATEWAY_LISTEN").await?;
    let address = listener.local_addr().map_err(|error| Error::Other(error.to_string()))?;

    let transport = Arc::new(Transport::new(&node, GROUP, ConnectionId::Fresh, Vec::new()));
    let client = Client::new(&transport, Arc::new(Traced::new(transport.clone(), telemetry)));
    transport.connect();
    let (stopping, stopped) = watch::channel(false);
    let greeting = config.greeting.clone();
    let app = routes::app(App { client, config, up: transport.up(), stopping: stopped.clone() });

    let mut until = stopped.clone();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        // The sender lives until the server has ended.
        let _ = until.wait_for(|stopping| *stopping).await;
    });
    let server = tokio::spawn(async move { server.await });
    tokio::select! {
        () = stop.requested() => {}
        () = async {
            lifecycle::report_ready(transport.up(), address, &node.instance).await;
            if let Some(greeting) = greeting {
                // Where the log goes, so that it comes last.
                eprintln!("{}", greeting.trim_end());
            }
        } => {}
    }
    stop.requested().await;
    tracing::info!(instance = node.instance, "stopping");
    stopping.send_replace(true);
    if tokio::time::timeout(node.drain, server).await.is_err() {
        tracing::warn!(
            instance = node.instance,
            "connections are still open at the end of the drain"
        );
    }
    transport.drain().await;
    tracing::info!(instance = node.instance, "stopped");
    Ok(())
}
