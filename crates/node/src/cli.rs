//! The command line of a service, and what every command line needs.

use std::{net::SocketAddr, process::ExitCode};

use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::net::TcpListener;

use crate::{
    Service,
    config::Config,
    error::{self, Error},
    health, process,
    settings::{self, Parsed},
};

/// Threads for blocking work, name resolution included: a resolver that hangs must not take all
/// threads that a container may have.
const BLOCKING_THREADS: usize = 16;

/// The settings of a service.
#[derive(Debug, Clone, Args)]
pub struct ServiceSettings {
    #[command(flatten)]
    pub(crate) node: Config,
    /// Where /healthz and /readyz are answered; port 0 takes a free one
    #[arg(long, env = "NODE_HEALTH_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = settings::address)]
    pub(crate) health_listen: SocketAddr,
}

/// One process of a service.
#[derive(Parser)]
#[command(version, after_help = OTEL)]
struct Arguments {
    #[command(flatten)]
    settings: ServiceSettings,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Ask the process on NODE_HEALTH_LISTEN whether it is ready; the exit code tells
    Healthcheck,
}

/// What `--help` says about settings that belong to OpenTelemetry.
pub const OTEL: &str = "Tracing has OpenTelemetry's own variables. Spans are exported if \
    OTEL_EXPORTER_OTLP_ENDPOINT is set, for example to http://127.0.0.1:4318.";

/// The `main` of a service's executable.
pub fn main(service: Service) -> ExitCode {
    let functions = service.functions().join(", ");
    let about = format!("One process of {}, which runs {functions}", service.group());
    let command = Arguments::command().name(service.group()).about(about);
    error::exit_code(parse(command, &["NODE"]).and_then(|(arguments, unknown)| {
        let Arguments { settings, task } = arguments;
        match task {
            Some(Task::Healthcheck) => healthcheck(settings.health_listen),
            None => run(service, settings, &unknown),
        }
    }))
}

/// Reads the settings of `command`, and of its subcommands, from wherever they are set. Returns
/// them, and the names that mean nothing.
///
/// # Errors
/// See [`settings::parse`].
pub fn parse<T: FromArgMatches>(
    command: Command,
    prefixes: &[&str],
) -> Result<(T, Vec<String>), Error> {
    let Parsed { matches, unknown } = settings::parse(command, prefixes, std::env::args_os())?;
    Ok((T::from_arg_matches(&matches)?, unknown))
}

/// Runs one process of `service` until it is told to stop. `unknown` names are logged.
///
/// # Errors
/// A setting is unusable, or the health address is taken.
pub fn run(service: Service, settings: ServiceSettings, unknown: &[String]) -> Result<(), Error> {
    process::run(service, &settings.node, settings.health_listen, unknown)
}

/// Asks the process that listens on `address` whether it is ready.
///
/// # Errors
/// It is not.
pub fn healthcheck(address: SocketAddr) -> Result<(), Error> {
    block_on(1, async move { health::check(address).await.map_err(Error::Other) })
}

/// Runs the future of a process on a runtime of its own.
///
/// # Errors
/// That of the future; or the system gives no threads.
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
