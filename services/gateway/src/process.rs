//! A gateway process from start to stop.

use std::{process::ExitCode, sync::Arc};

use axum::Router;
use clap::{CommandFactory, Parser};
use node::{
    cli,
    connections::{self, Limits},
    error::{self, Error},
    health, life, logging, runtime,
    server::{self, ConnectionId, MessageStream, Transport},
    stop::{self, Stop},
};
use resonate_otel::{FlowTracer, Identity, Telemetry};
use tokio::sync::{Semaphore, watch};

use crate::{
    GROUP, Settings, access,
    app::App,
    client::Client,
    routes,
    stats::Stats,
    timeline::{LookBack, Watchers},
    waiters::Waiters,
};

/// The HTTP gateway: starts flows, waits for their results, shows their state
#[derive(Parser)]
#[command(name = "gateway", version, after_help = cli::OTEL)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Ask the gateway that listens on GATEWAY_LISTEN whether it is ready; the exit code is 0 if so
    Healthcheck,
}

/// The `main` of the gateway's executable.
pub fn main() -> ExitCode {
    error::exit_code(start())
}

fn start() -> Result<(), Error> {
    let prefixes = ["NODE", "GATEWAY"];
    let parsed = settings::parse(Arguments::command(), &prefixes, std::env::args_os())?;
    let Arguments { settings, command } = parsed.read()?;
    match command {
        Some(Command::Healthcheck) => cli::healthcheck(settings::reachable(settings.listen)),
        None => run(settings, &parsed.unknown),
    }
}

/// Runs a gateway process until it is told to stop. `unknown`: settings to warn about.
///
/// # Errors
/// A setting is invalid, or the address is taken.
pub fn run(settings: Settings, unknown: &[String]) -> Result<(), Error> {
    settings.check()?;
    let instance = settings.node.instance(GROUP)?;
    let identity = Identity {
        name: GROUP.to_owned(),
        instance: instance.clone(),
        namespace: flows::NAMESPACE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let telemetry = logging::telemetry(identity, &settings.node.log)?;
    logging::report_unknown(unknown);
    runtime::block_on(settings.node.worker_threads, serve(settings, instance, &telemetry))
}

/// A gateway without a listener: its routes, and its connection to the Resonate Server.
pub struct Gateway {
    /// The HTTP interface.
    pub routes: Router,
    /// Whether the message stream from the Resonate Server is up.
    pub up: watch::Receiver<bool>,
    waiters: Waiters,
    stream: MessageStream,
    stopping: watch::Sender<bool>,
}

impl Gateway {
    /// Opens the message stream. Call it within a Tokio runtime.
    ///
    /// # Errors
    /// The tokens of clients cannot be used.
    pub fn connect(
        settings: Settings,
        transport: Arc<dyn Transport>,
        telemetry: &Telemetry,
    ) -> Result<Self, Error> {
        let access = access::open(&settings)?;
        // A new id for each connection: messages for a connection that is half dead get lost.
        let id = ConnectionId::Fresh;
        let (exchange, stream) = server::client(&settings.node, GROUP, id, transport, telemetry);
        let client = Client::new(Arc::new(exchange));
        let waiters = Waiters::new(client.clone());
        stream.open(waiters.clone());
        let settings = Arc::new(settings);
        let (up, stopping) = (stream.up(), watch::Sender::new(false));
        let stats = Stats::default();
        let watchers = Watchers::new(client.clone(), settings.clone(), stats.clone());
        let look_back = LookBack::start(client.clone(), settings.clone(), stats.clone());
        let app = App {
            client,
            waiters: waiters.clone(),
            tracer: FlowTracer::new(telemetry),
            room: Arc::new(Semaphore::new(settings.waiting())),
            viewers: Arc::new(Semaphore::new(settings.viewers())),
            watchers,
            settings,
            stats,
            look_back,
            metrics: telemetry.metrics(),
            up: up.clone(),
            stopping: stopping.subscribe(),
        };
        let routes = routes::routes(app, access);
        Ok(Self { routes, up, waiters, stream, stopping })
    }

    /// How many flows are waited for.
    pub fn waiting(&self) -> usize {
        self.waiters.count()
    }

    /// Answers every request that waits with 202. Its flow continues.
    pub fn stop_waiting(&self) {
        self.stopping.send_replace(true);
    }
}

async fn serve(settings: Settings, instance: String, telemetry: &Telemetry) -> Result<(), Error> {
    let mut stop = Stop::listen(&instance, stop::last_spans(telemetry))?;
    let listener = runtime::listen(settings.listen, "GATEWAY_LISTEN").await?;
    let address = listener.local_addr().map_err(|error| Error::Other(error.to_string()))?;
    let limits = Limits::new(settings.connections());
    let (drain, greeting) = (settings.node.drain, settings.node.greeting.clone());
    let transport = server::http(&settings.node)?;
    let gateway = Gateway::connect(settings, transport, telemetry)?;

    let mut stopping = gateway.stopping.subscribe();
    let server = connections::serve(listener, gateway.routes.clone(), limits, async move {
        // It fails only if the sender is gone, and then the gateway stops too.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    });
    let server = tokio::spawn(server);
    tokio::select! {
        () = stop.requested() => {}
        () = health::report_ready(gateway.up.clone(), address, &instance, greeting.as_deref()) => {}
    }
    stop.requested().await;
    life::stopping(&instance, None);
    gateway.stop_waiting();
    if tokio::time::timeout(drain, server).await.is_err() {
        tracing::warn!(instance, "drain deadline reached with open connections");
    }
    gateway.stream.close();
    life::stopped(&instance);
    Ok(())
}
