//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use testkit::Server;

use crate::{growth::What, ours::Telemetry, peers::Peer, server::Kind};

/// Measures the system, in turns with others if asked to.
#[derive(Parser)]
pub struct Arguments {
    #[command(subcommand)]
    pub task: Option<Task>,
    #[command(flatten)]
    pub compare: CompareOptions,
    /// `cargo bench` passes this
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
pub enum Task {
    /// Measure how the cost grows, and draw it
    Growth(GrowthOptions),
}

#[derive(Args)]
pub struct CompareOptions {
    #[command(flatten)]
    pub servers: ServerOptions,
    /// Rounds; each measures everybody once [default: 3, or 1 with --quick]
    #[arg(long)]
    rounds: Option<usize>,
    /// How many clients send one flow after the other, for each level of load
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    pub connections: Vec<usize>,
    /// Flows with one connection [default: 300, or 100 with --quick]
    #[arg(long)]
    sequential: Option<usize>,
    /// Flows with several connections [default: 2000, or 300 with --quick]
    #[arg(long)]
    flows: Option<usize>,
    /// Processes of each service, except for recovery, which needs two
    #[arg(long, default_value_t = 1)]
    pub replicas: usize,
    /// Kills and freezes, each [default: 20, or 3 with --quick]
    #[arg(long)]
    recoveries: Option<usize>,
    /// What the processes of this system export
    #[arg(long, value_delimiter = ',', default_value = "off,tracing,metrics")]
    pub telemetry: Vec<Telemetry>,
    /// Also measure another build of this system: the path of its async-rpc
    #[arg(long, value_name = "PATH")]
    pub other: Vec<PathBuf>,
    /// Also measure those of bench/peers that are installed: all of them, or a list
    #[arg(long, value_name = "NAMES", value_delimiter = ',', num_args = 0..=1,
        default_missing_value = "all", value_parser = Peer::named)]
    pub peers: Vec<Peers>,
    /// Fewer rounds and flows: two minutes
    #[arg(long)]
    pub quick: bool,
    /// Write everything that was measured to this file, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What a name in `--peers` stands for.
pub type Peers = &'static [Peer];

impl CompareOptions {
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// Flows at a level of load.
    pub fn flows(&self, connections: usize) -> usize {
        match connections {
            1 => self.sequential.unwrap_or(if self.quick { 100 } else { 300 }),
            _ => self.flows.unwrap_or(if self.quick { 300 } else { 2000 }),
        }
    }

    /// Flows before the first measurement.
    pub fn warm_up(&self) -> usize {
        if self.quick { 50 } else { 200 }
    }

    pub fn recoveries(&self) -> usize {
        self.recoveries.unwrap_or(if self.quick { 3 } else { 20 })
    }
}

#[derive(Args)]
pub struct GrowthOptions {
    #[command(flatten)]
    pub servers: ServerOptions,
    /// What is measured
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "replicas,connections,steps,fan-out,settled,gateway"
    )]
    pub only: Vec<What>,
    /// Flows at each point [default: 1000, or 200 with --quick]
    #[arg(long)]
    flows: Option<usize>,
    /// Most settled flows in the store; 1000000 takes about 40 minutes [default: 10000, or 1000 with --quick]
    #[arg(long)]
    settled: Option<usize>,
    /// Flows through one gateway; 200000 takes about 15 minutes [default: 5000, or 1000 with --quick]
    #[arg(long)]
    gateway_flows: Option<usize>,
    /// Fewer flows: two minutes
    #[arg(long)]
    pub quick: bool,
    /// The folder of the plots
    #[arg(long, value_name = "FOLDER", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/growth"))]
    pub plots: PathBuf,
    /// Write everything that was measured to this file, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl GrowthOptions {
    pub fn flows(&self) -> usize {
        self.flows.unwrap_or(if self.quick { 200 } else { 1000 })
    }

    pub fn settled(&self) -> usize {
        self.settled.unwrap_or(if self.quick { 1000 } else { 10_000 })
    }

    pub fn gateway_flows(&self) -> usize {
        self.gateway_flows.unwrap_or(if self.quick { 1000 } else { 5000 })
    }
}

#[derive(Args)]
pub struct ServerOptions {
    /// A Resonate Server, once or more: embedded, the path of an official executable, or the URL of a
    /// server that runs [default: embedded, and RESONATE_SERVER_BIN if it is set]
    #[arg(long = "server", value_name = "SERVER", value_parser = Kind::parse)]
    servers: Vec<Kind>,
}

impl ServerOptions {
    /// The servers, each with a measurement of its own.
    pub fn kinds(&self) -> Vec<Kind> {
        if !self.servers.is_empty() {
            return self.servers.clone();
        }
        let official = Server::official_executable();
        if official.is_none() {
            eprintln!("not measured: the official server (RESONATE_SERVER_BIN is not set)");
        }
        let official = official.map(|path| {
            Kind::parse(&path.to_string_lossy())
                .unwrap_or_else(|error| panic!("RESONATE_SERVER_BIN={}: {error}", path.display()))
        });
        [Kind::Embedded].into_iter().chain(official).collect()
    }
}
