//! A process from its start to its end.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
    sync::Arc,
};

use resonate_otel::{Identity, Telemetry, Traced};
use resonate_sdk::prelude::{Resonate, ResonateConfig};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    Service,
    config::{self, Config},
    health, logging,
    step::Runtime,
    transport::{ConnectionId, Transport},
};

/// Exit code for a configuration that cannot be used (EX_USAGE of sysexits.h).
pub const EXIT_CONFIGURATION: u8 = 64;

/// Exit code for a process that a second signal ended in the middle of its drain.
const EXIT_INTERRUPTED: i32 = 130;

/// Why a process ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong. Exit code 64.
    #[error(transparent)]
    Configuration(#[from] config::Error),
    /// A setting of OpenTelemetry is wrong. Exit code 64.
    #[error(transparent)]
    Telemetry(#[from] resonate_otel::ConfigurationError),
    /// An address cannot be listened on. Exit code 64.
    #[error("cannot listen on {address}: {source}; choose another with {variable}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
        /// The setting to change.
        variable: &'static str,
    },
    /// A part of the system cannot be configured, which it has said itself. Exit code 64.
    #[error("{0}")]
    Usage(String),
    /// Anything else, in words. Exit code 1.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// The exit code that tells a supervisor whether a restart can help.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) | Self::Telemetry(_) | Self::Listen { .. } | Self::Usage(_) => {
                ExitCode::from(EXIT_CONFIGURATION)
            }
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

/// Options of a process on its command line; they win over the environment.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct Overrides {
    /// Unique name of this process [default: the group's name, or NODE_INSTANCE]
    #[arg(long)]
    pub instance: Option<String>,
    /// Address of the Resonate Server [default: http://127.0.0.1:8001, or NODE_SERVER_URL]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Where /healthz and /readyz are answered [default: 127.0.0.1:8080, or NODE_HEALTH_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    pub health_listen: Option<SocketAddr>,
}

impl Overrides {
    /// The configuration of a process of `group`, with these options on top.
    ///
    /// # Errors
    /// The first value that cannot be used, of whichever source.
    pub fn config(&self, group: &str) -> Result<Config, config::Error> {
        let mut config = Config::load(group)?;
        if let Some(instance) = &self.instance {
            config.instance = config::name(instance)
                .map_err(|allowed| config::Error::new("--instance", instance, allowed))?;
        }
        if let Some(server) = &self.server {
            config.server_url = config::url(server)
                .map_err(|allowed| config::Error::new("--server", server, allowed))?;
        }
        config.health_listen = self.health_listen.unwrap_or(config.health_listen);
        Ok(config)
    }
}

#[derive(clap::Parser)]
#[command(about = "One process of a service; its settings are the NODE_ variables of the README.")]
struct Arguments {
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Ask the process on NODE_HEALTH_LISTEN whether it is ready; the exit code tells
    Healthcheck,
}

/// The `main` of a service's executable.
pub fn main(service: Service) -> ExitCode {
    let arguments = <Arguments as clap::Parser>::parse();
    let overrides = arguments.overrides;
    exit_code(match arguments.command {
        Some(Command::Healthcheck) => {
            healthcheck(|| Ok(overrides.config(service.group())?.health_listen))
        }
        None => run(service, &overrides),
    })
}

/// Turns what a process ended with into its exit code, and says why it ended early.
pub fn exit_code(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In one write: the processes of a launcher share their standard error.
            let line = format!("error: {error}\n");
            eprint!("{line}");
            error.exit_code()
        }
    }
}

/// Asks the process that listens on `address` whether it is ready.
///
/// # Errors
/// The configuration cannot be used, or the process is not ready.
pub fn healthcheck(
    address: impl FnOnce() -> Result<SocketAddr, config::Error>,
) -> Result<(), Error> {
    let address = address()?;
    block_on(1, async move { health::check(address).await.map_err(Error::Other) })
}

/// Runs one process of `service` until it is told to stop.
///
/// # Errors
/// The configuration cannot be used, or the health address is taken.
pub fn run(service: Service, overrides: &Overrides) -> Result<(), Error> {
    let config = overrides.config(service.group())?;
    let telemetry = telemetry(service.group(), &config)?;
    block_on(config.worker_threads, serve(service, config, &telemetry))
}

/// Starts logging and tracing of a process of `group`; the end of the value flushes its spans.
///
/// # Errors
/// A setting of either cannot be used.
pub fn telemetry(group: &str, config: &Config) -> Result<Telemetry, Error> {
    let telemetry = Telemetry::start(Identity {
        name: group.to_owned(),
        instance: config.instance.clone(),
        namespace: "async-rpc",
        version: env!("CARGO_PKG_VERSION"),
    })?;
    logging::start(Some(&telemetry))?;
    Ok(telemetry)
}

async fn serve(service: Service, config: Config, telemetry: &Telemetry) -> Result<(), Error> {
    let mut stop = Stop::listen(&config.instance)?;
    let health = listen(config.health_listen, "NODE_HEALTH_LISTEN").await?;
    let address = health.local_addr().map_err(|error| Error::Other(error.to_string()))?;

    let connection_id = ConnectionId::Instance(config.instance.clone());
    let transport =
        Arc::new(Transport::new(&config, service.group(), connection_id, service.functions()));
    let traced = Arc::new(Traced::new(transport.clone(), telemetry));
    let resonate = Resonate::new(ResonateConfig {
        network: Some(traced.clone()),
        ttl: Some(config.lease.as_millis() as u64),
        ..ResonateConfig::default()
    })
    .with_dependency(Runtime::new(&config, transport.runs().clone(), traced));
    service.register(&resonate).map_err(|error| Error::Other(error.to_string()))?;
    transport.connect();

    let routes = health::routes(transport.up());
    let server = tokio::spawn(async move { axum::serve(health, routes).await });
    tokio::select! {
        () = stop.requested() => {}
        () = report_ready(transport.up(), address, &config.instance) => {}
    }
    stop.requested().await;
    tracing::info!(instance = config.instance, held = transport.runs().all().len(), "stopping");
    transport.drain().await;
    server.abort();
    tracing::info!(instance = config.instance, "stopped");
    Ok(())
}

/// Says once that the process is ready: to the log and to a launcher. Does not end otherwise.
pub async fn report_ready(mut up: watch::Receiver<bool>, address: SocketAddr, instance: &str) {
    if up.wait_for(|up| *up).await.is_ok() {
        tracing::info!(instance, health = %address, pid = std::process::id(), "ready");
        tell_launcher(address);
    }
}

/// Listens on `address`.
///
/// # Errors
/// It is taken or not ours; `variable` is what the user can change.
pub async fn listen(address: SocketAddr, variable: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source, variable })
}

/// Runs a process's future on a runtime of its own.
///
/// # Errors
/// The future's; or no runtime can be had.
pub fn block_on(
    worker_threads: usize,
    future: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    let mut builder = match worker_threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if worker_threads > 1 {
        builder.worker_threads(worker_threads);
    }
    let runtime = builder.enable_all().build().map_err(|error| Error::Other(error.to_string()))?;
    runtime.block_on(future)
}

/// Set for the processes that a launcher starts: standard input is a socket to it. Its end
/// means that the launcher is gone, and what is written there tells that the process is ready.
pub const LAUNCHED: &str = "NODE_LAUNCHED";

fn launcher() -> Option<UnixStream> {
    std::env::var_os(LAUNCHED)?;
    Some(UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?))
}

/// Tells the launcher, if there is one, that this process is ready and where it listens.
pub fn tell_launcher(address: SocketAddr) {
    if let Some(mut socket) = launcher() {
        // A launcher that is gone is noticed by the end of the same socket.
        let _ = writeln!(socket, "{address}");
    }
}

/// The wish that this process stops: SIGTERM, SIGINT, or the end of its launcher.
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Starts to listen. A second signal ends the process at once.
    ///
    /// # Errors
    /// Signals cannot be listened to.
    pub fn listen(instance: &str) -> Result<Self, Error> {
        let (stop, stopped) = watch::channel(false);
        let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [terminate, interrupt] = signals;
        let mut terminate = terminate.map_err(|error| Error::Other(error.to_string()))?;
        let mut interrupt = interrupt.map_err(|error| Error::Other(error.to_string()))?;
        let instance = instance.to_owned();
        let signalled = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if signalled.send_replace(true) {
                    tracing::warn!(instance, "second signal: ending at once");
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
        });
        if let Some(mut socket) = launcher() {
            // A thread, for the socket is a blocking one; it ends with the process.
            std::thread::spawn(move || {
                let _ = socket.read(&mut [0]);
                stop.send_replace(true);
            });
        }
        Ok(Self(stopped))
    }

    /// Waits until the process is to stop.
    pub async fn requested(&mut self) {
        // The sender lives as long as the process.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
