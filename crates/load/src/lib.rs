//! A load generator that verifies: it starts flows through the gateway, as many as it is told, and
//! checks every answer and the end of every flow that nobody waits for.
//!
//! A flow is durable: a lost connection or a 503 is no failure. The same request is sent again with
//! the same id, and finds the flow.
//!
//! | module | what it does |
//! | --- | --- |
//! | `settings` | the options |
//! | `mix` | which flow comes next, and what is asked of it |
//! | `plan` | [`Plan`]: one flow, and which answers are right |
//! | `client` | sends the requests of one flow until it has ended |
//! | `crash` | crashes processes, and counts takeovers |
//! | `run` | starts flows, and waits for the last ones |
//! | `tally` | counts and times |
//! | `summary` | the JSON at the end |
//! | `progress` | the live table |

mod client;
mod crash;
mod mix;
mod plan;
mod progress;
mod run;
mod settings;
mod summary;
mod tally;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use node::{
    error::{self, Error},
    runtime,
    stop::Stop,
};

pub use self::{
    plan::{End, Plan, Verdict},
    settings::Settings,
};

/// What the command is for, in one line.
pub const ABOUT: &str = "Start flows, and verify every answer and every end";

#[derive(Parser)]
#[command(name = "load", version, about = ABOUT, long_about = None)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

/// The `main` of the load generator's executable.
pub fn main() -> ExitCode {
    let parsed = ::settings::parse(Arguments::command(), &[], std::env::args_os());
    let arguments = parsed.and_then(|parsed| parsed.read::<Arguments>());
    error::exit_code(arguments.map_err(Error::from).and_then(|it| run(it.settings)))
}

/// Starts flows until the time is over or Ctrl-C is pressed, waits for the last ones, and prints the
/// summary to standard output.
///
/// # Errors
/// The gateway does not answer at the beginning; or an answer was wrong, or a flow was lost.
pub fn run(settings: Settings) -> Result<(), Error> {
    runtime::block_on(1, async move {
        let mut stop = Stop::listen("load", || {})?;
        let summary = run::run(settings, async move { stop.requested().await }).await?;
        println!("{}", summary.json());
        summary.result()
    })
}
