//! The benchmark: `cargo bench`. It starts the whole system on each Resonate Server that it is given, puts
//! load on it, and prints one table per server: latency, throughput, CPU, memory, requests, recovery.
//! `cargo bench -- growth` measures how the cost grows. Linux only: it reads `/proc`.
//!
//! Systems that are compared are measured in turns, round by round, so that other load on the
//! machine does not look like a difference. docs/benchmarks.md explains each figure.
//!
//! | module | what it does |
//! | --- | --- |
//! | `options` | the command line |
//! | `program` | processes: what they use, how they start and stop |
//! | `server` | the Resonate Server and the Restate server |
//! | `ours`, `peers` | the programs of this system, and of others that do the same |
//! | `collector` | accepts spans and metrics, and drops them |
//! | `drive` | starts flows, and measures a level of load |
//! | `compare` | the rounds: who is measured when |
//! | `recovery` | processes that are killed or frozen |
//! | `report` | the tables and the JSON |
//! | `progress`, `machine` | what is left to do; what it runs on |
//! | `growth` | how the cost grows, with tables and plots |

mod collector;
mod compare;
mod drive;
mod growth;
mod machine;
mod options;
mod ours;
mod peers;
mod program;
mod progress;
mod recovery;
mod report;
mod server;

use std::process::ExitCode;

use clap::Parser;

use self::options::{Arguments, Task};

fn main() -> ExitCode {
    // The processes of the functions that only the benchmark has are this executable, too.
    if let Some(service) = growth::functions::service() {
        return node::main(service);
    }
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        machine::warn_if_busy();
        match &arguments.task {
            None => compare::run(&arguments.compare).await,
            Some(Task::Growth(options)) => growth::run(options).await,
        }
    });
    ExitCode::SUCCESS
}
