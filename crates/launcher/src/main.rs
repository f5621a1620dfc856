//! The whole system on one machine: the launcher, and each process that it starts.

mod jaeger;
mod launcher;
mod process;

use std::{net::SocketAddr, process::ExitCode};

use clap::{Args, CommandFactory, FromArgMatches, Parser};
use node::{
    Service, config,
    lifecycle::{self, Error, Overrides, Stop},
};

use crate::launcher::Launch;

/// Every service, in the order of their letters.
fn services() -> [Service; 9] {
    [
        service_a::service(),
        service_b::service(),
        service_c::service(),
        service_d::service(),
        service_e::service(),
        service_f::service(),
        service_g::service(),
        service_h::service(),
        service_i::service(),
    ]
}

/// The Async RPC example: without a command, the whole system; with one, a single process of it.
#[derive(Parser)]
#[command(name = "async-rpc", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    launch: Launch,
}

#[derive(clap::Args)]
struct Gateway {
    #[command(flatten)]
    overrides: Overrides,
    /// Port of the HTTP interface [default: that of GATEWAY_LISTEN, 5000]
    #[arg(long)]
    port: Option<u16>,
}

#[derive(clap::Args)]
struct Server {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    // Options first: they bring a description of their own.
    let command = clap::Command::new;
    let mut cli = Arguments::command()
        .subcommand(Gateway::augment_args(command("gateway")).about("The HTTP gateway"))
        .subcommand(Server::augment_args(command("server")).about("The embedded Resonate server"));
    for service in services() {
        let functions = service.functions().join(", ");
        let about = format!("One process of {}, which runs {functions}", service.group());
        cli = cli.subcommand(Overrides::augment_args(command(service.group())).about(about));
    }
    let matches = cli.get_matches();
    lifecycle::exit_code(match matches.subcommand() {
        None => parsed(&matches).and_then(|Arguments { launch }| launcher::run(launch)),
        Some(("gateway", matches)) => {
            parsed(matches).and_then(|Gateway { overrides, port }| gateway::run(&overrides, port))
        }
        Some(("server", matches)) => parsed(matches).and_then(|Server { listen }| server(listen)),
        Some((name, matches)) => parsed(matches).and_then(|overrides| service(name, overrides)),
    })
}

fn parsed<T: FromArgMatches>(matches: &clap::ArgMatches) -> Result<T, Error> {
    T::from_arg_matches(matches).map_err(|error| Error::Other(error.to_string()))
}

/// One process of a service. Many run on one machine here, so each takes a free health port.
fn service(name: &str, mut overrides: Overrides) -> Result<(), Error> {
    let settings = config::Settings::load("NODE")?;
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    overrides.health_listen =
        Some(overrides.health_listen.unwrap_or(settings.address("health_listen", free)?));
    let service = services().into_iter().find(|service| service.group() == name);
    let service = service.ok_or_else(|| Error::Other(format!("there is no service {name}")))?;
    lifecycle::run(service, &overrides)
}

fn server(address: SocketAddr) -> Result<(), Error> {
    node::logging::start(None)?;
    lifecycle::block_on(1, async move {
        let mut stop = Stop::listen("resonate")?;
        let listener = lifecycle::listen(address, "--listen").await?;
        lifecycle::tell_launcher(
            listener.local_addr().map_err(|error| Error::Other(error.to_string()))?,
        );
        let config = embedded_server::Config::default();
        let stopped = async move { stop.requested().await };
        embedded_server::run(listener, config, stopped)
            .await
            .map_err(|error| Error::Other(error.to_string()))
    })
}
