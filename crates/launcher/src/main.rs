//! `async-rpc`: the whole system on one machine, each process of it, and the load generator.
//!
//! | module | what it does |
//! | --- | --- |
//! | `launch` | the launcher's options; what it starts, in which order |
//! | `supervise` | waits for processes to be ready, reports those that exit, stops them in order |
//! | `process` | one child process |
//! | `services` | the list of services |
//! | `server` | the embedded Resonate server as a process |
//! | `jaeger` | the Jaeger beside the system |
//! | `ports` | checks ports before anything starts |
//! | `report` | what the launcher prints |
//! | `browser` | opens the page |

mod browser;
mod jaeger;
mod launch;
mod ports;
mod process;
mod report;
mod server;
mod services;
mod supervise;

use std::{ffi::OsString, process::ExitCode};

use clap::{
    Args, CommandFactory, FromArgMatches, Parser,
    builder::{Resettable, StyledStr},
};
use node::{
    cli,
    error::{self, Error},
};

/// Runs the Async RPC example: the whole system on this machine, or a single process of it
#[derive(Parser)]
#[command(name = "async-rpc", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    launch: launch::Options,
}

const AFTER_HELP: &str = "Every process also reads the variables that its own help lists, for \
    example `async-rpc gateway --help`.";

/// The subcommand that starts flows and verifies them.
const LOAD_COMMAND: &str = "load";

/// Whose unknown variables are reported.
const PREFIXES: [&str; 3] = ["NODE", "GATEWAY", "EMBEDDED_SERVER"];

fn main() -> ExitCode {
    error::exit_code(run(std::env::args_os()))
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Error> {
    let settings::Parsed { matches, unknown } = settings::parse(command(), &PREFIXES, arguments)?;
    match matches.subcommand() {
        None => launch::run(read::<Arguments>(&matches)?.launch, &unknown),
        Some((gateway::GROUP, matches)) => gateway::run(read(matches)?, &unknown),
        Some((launch::SERVER_COMMAND, matches)) => server::run(read(matches)?, &unknown),
        Some((LOAD_COMMAND, matches)) => load::run(read(matches)?),
        Some((group, matches)) => {
            let service = services::all().into_iter().find(|service| service.group() == group);
            let service =
                service.ok_or_else(|| Error::Other(format!("no such service: {group}")))?;
            cli::run(service, read(matches)?, &unknown)
        }
    }
}

/// The command line.
fn command() -> clap::Command {
    let gateway = process(gateway::GROUP, "The HTTP gateway", gateway::Settings::augment_args);
    let server = process(
        launch::SERVER_COMMAND,
        "The embedded Resonate server: in memory, for development and tests",
        embedded_server::Settings::augment_args,
    );
    let load = process(LOAD_COMMAND, load::ABOUT, load::Settings::augment_args);
    let services = services::all().into_iter().map(|service| {
        let (group, functions) = (service.group(), service.functions().join(", "));
        let about = format!("One process of {group}, which runs {functions}");
        process(group, about, launch::service_settings).after_help(cli::OTEL)
    });
    Arguments::command()
        .after_help(AFTER_HELP)
        .subcommands([gateway.after_help(cli::OTEL), server, load])
        .subcommands(services)
}

/// The command of one process, with these settings.
fn process(
    name: &'static str,
    about: impl Into<StyledStr>,
    settings: impl FnOnce(clap::Command) -> clap::Command,
) -> clap::Command {
    // The settings bring the text of their Rust type along, which is not about the process.
    settings(clap::Command::new(name)).about(about.into()).long_about(Resettable::Reset)
}

fn read<T: FromArgMatches>(matches: &clap::ArgMatches) -> Result<T, Error> {
    Ok(T::from_arg_matches(matches).map_err(settings::Error::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
