//! The command line of a service, and what every command line needs.

use std::{net::SocketAddr, process::ExitCode};

use clap::{Command, CommandFactory, Parser, Subcommand};

use crate::{
    Service,
    config::ServiceSettings,
    error::{self, Error},
    health, process, runtime,
};

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
pub const OTEL: &str = "Tracing and metrics have OpenTelemetry's own variables. Spans and metrics are \
    exported if OTEL_EXPORTER_OTLP_ENDPOINT is set, for example to http://127.0.0.1:4318.";

/// The `main` of a service's executable.
pub fn main(service: Service) -> ExitCode {
    let functions = service.functions().join(", ");
    let about = format!("One process of {}, which runs {functions}", service.group());
    let command = Arguments::command().name(service.group()).about(about);
    error::exit_code(start(service, command))
}

fn start(service: Service, command: Command) -> Result<(), Error> {
    let parsed = settings::parse(command, &["NODE"], std::env::args_os())?;
    let Arguments { settings, task } = parsed.read()?;
    match task {
        Some(Task::Healthcheck) => healthcheck(settings.health_listen),
        None => run(service, settings, &parsed.unknown),
    }
}

/// Runs one process of `service` until it is told to stop. `unknown` names are logged.
///
/// # Errors
/// A setting is unusable, or the health address is taken.
pub fn run(service: Service, settings: ServiceSettings, unknown: &[String]) -> Result<(), Error> {
    process::run(service, &settings, unknown)
}

/// Asks the process that listens on `address` whether it is ready.
///
/// # Errors
/// It is not.
pub fn healthcheck(address: SocketAddr) -> Result<(), Error> {
    runtime::block_on(1, async move { health::check(address).await.map_err(Error::Other) })
}
