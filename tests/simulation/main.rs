//! Random histories of the whole system: real functions, SDK, layers, gateway, tracing and server;
//! simulated time, network and faults.
//!
//! ```sh
//! cargo test -p simulation --test simulation                       # 200 histories
//! cargo test -p simulation --test simulation -- --faults 300000    # until so many faults happened
//! cargo test -p simulation --test simulation -- --seed 7 --log     # one history, with its event log
//! ```
//!
//! Each history is a process of its own, so that nothing is left of the one before. A history that
//! fails is shortened to few faults and printed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod front;
mod runner;
mod spans;
mod story;

use std::{num::NonZero, process::ExitCode};

use story::Variation;

/// What the command line says.
#[derive(clap::Parser)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many histories
    #[arg(long, default_value_t = 200)]
    count: u64,
    /// As many histories as it takes to have this many faults
    #[arg(long)]
    faults: Option<usize>,
    /// How many histories at the same time [default: one for each core]
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
    /// One history in N runs twice, and must be the same
    #[arg(long, default_value_t = 20)]
    again: u64,
    /// Only the history of --seed, with its whole event log
    #[arg(long)]
    log: bool,
    /// Only these faults of its plan, counted from 0
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<usize>>,
    /// Only the history of --seed, as JSON for the process that started this one
    #[arg(long, hide = true)]
    child: bool,
    /// Arguments of the test harness, which mean nothing here
    #[arg(hide = true, allow_hyphen_values = true, value_parser = of_the_harness)]
    _others: Vec<String>,
}

/// What the harness of other test targets knows: names of tests, and its options.
fn of_the_harness(argument: &str) -> Result<String, String> {
    let known =
        ["color", "exact", "format", "ignored", "include-ignored", "no-capture", "nocapture"];
    let more = ["logfile", "q", "quiet", "report-time", "show-output", "shuffle", "shuffle-seed"];
    let known = known.iter().chain(&more).chain(&["skip", "test-threads", "Z"]);
    let option = argument.trim_start_matches('-').split('=').next().unwrap_or_default();
    match !argument.starts_with('-') || known.copied().any(|it| it == option) {
        true => Ok(argument.to_owned()),
        false => Err("no such option".to_owned()),
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let arguments = <Arguments as clap::Parser>::parse();
    let variation = Variation { only: arguments.only.clone(), log: arguments.log };
    if arguments.child {
        let outcome = story::live(arguments.seed, &variation);
        println!("{}", serde_json::to_string(&outcome).unwrap());
        return ExitCode::SUCCESS;
    }
    if arguments.log {
        let outcome = story::live(arguments.seed, &variation);
        print!("{}{}", outcome.log, runner::describe(&outcome));
        return ExitCode::from(u8::from(!outcome.violations.is_empty()));
    }
    runner::run(&arguments)
}
