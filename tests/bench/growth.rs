//! How the cost grows: `cargo bench -- growth`.
//!
//! | module | what it does |
//! | --- | --- |
//! | `functions` | functions that only the benchmark has, and a client that calls them |
//! | `fill` | settled flows in the store |
//! | `series` | what was measured, as tables |
//! | `plot` | the same as SVG |

mod fill;
pub mod functions;
mod plot;
mod series;

use testkit::process::EXECUTABLE;

use self::series::{Point, Series};
use crate::{
    collector, compare,
    drive::{self, Client},
    machine,
    options::GrowthOptions,
    ours::{self, Telemetry},
    program::Deployment,
    progress::{Progress, Step},
    report,
    server::{Kind, Server},
};

/// Connections where something else grows: enough to keep the server busy.
const CONNECTIONS: usize = 16;

/// Flows before the first measurement.
const WARM_UP: usize = 100;

/// What grows, and up to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Processes of each service
    Replicas,
    /// Clients that send one flow after the other
    Connections,
    /// Steps of a function
    Steps,
    /// Calls at the same time
    FanOut,
    /// Settled flows in the store
    Settled,
    /// Flows through one gateway
    Gateway,
}

impl What {
    fn points(self, options: &GrowthOptions) -> Vec<usize> {
        match self {
            Self::Replicas => vec![1, 2, 4, 8],
            Self::Connections => vec![1, 4, 16, 64, 256],
            Self::Steps => vec![1, 10, 100],
            Self::FanOut => vec![2, 10, 100],
            Self::Settled => {
                let max = options.settled();
                let powers = (2..).map(|power| 10_usize.pow(power)).take_while(|it| *it < max);
                [0].into_iter().chain(powers).chain([max]).collect()
            }
            Self::Gateway => (1..=10).map(|part| options.gateway_flows() * part / 10).collect(),
        }
    }

    /// What the numbers of its points are.
    fn axis(self) -> &'static str {
        match self {
            Self::Replicas => "processes of each service",
            Self::Connections => "connections",
            Self::Steps => "steps",
            Self::FanOut => "calls at the same time",
            Self::Settled => "settled flows in the store",
            Self::Gateway => "flows through one gateway",
        }
    }

    /// How much there is to do at a point, in flows of one step or call. `before`: the point before it.
    fn size(self, before: usize, point: usize, options: &GrowthOptions) -> usize {
        match self {
            Self::Replicas | Self::Connections => options.flows(),
            Self::Steps | Self::FanOut => point * self.flows(point, options),
            Self::Settled => point - before + options.flows(),
            Self::Gateway => point - before,
        }
    }

    /// Flows at a point. Large ones take longer.
    fn flows(self, point: usize, options: &GrowthOptions) -> usize {
        match self {
            Self::Steps | Self::FanOut => (options.flows() / point).clamp(20, 200),
            _ => options.flows(),
        }
    }
}

/// Measures everything on each server, and prints tables and where the plots are.
pub async fn run(options: &GrowthOptions) {
    let kinds = options.servers.kinds();
    let mut plan = Vec::new();
    for kind in &kinds {
        for what in &options.only {
            let mut before = 0;
            for point in what.points(options) {
                let label = format!("{}: {point} {}", kind.name(), what.axis());
                plan.push(Step { label, size: what.size(before, point, options) });
                before = point;
            }
        }
    }
    let mut progress = Progress::new(plan);
    let collector = collector::start();
    std::fs::create_dir_all(&options.plots).expect("the folder of the plots");
    let mut all = Vec::new();
    for what in &options.only {
        let mut series = Vec::new();
        for kind in &kinds {
            let points = measure(*what, kind, &collector, options, &mut progress).await;
            series.push(Series { server: kind.name(), points });
        }
        for series in &series {
            println!("{}", series.table(what.axis()));
        }
        for path in series::draw(&series, *what, what.axis(), &options.plots) {
            println!("{}", path.display());
        }
        println!();
        all.push((what.axis(), series));
    }
    println!("Measured on {}.", machine::describe());
    report::write_json(options.json.as_deref(), &all);
}

/// Measures one thing on one server.
async fn measure(
    what: What,
    kind: &Kind,
    collector: &str,
    options: &GrowthOptions,
    progress: &mut Progress,
) -> Vec<Point> {
    let points = what.points(options);
    let mut measured = Vec::new();
    if what == What::Replicas {
        for replicas in points {
            progress.step();
            let system = System::start(kind, replicas, collector).await;
            measured.push(system.await_chains(replicas, CONNECTIONS, options.flows()).await);
            system.deployment.stop().await;
        }
        return measured;
    }
    if matches!(what, What::Steps | What::FanOut) {
        let server = Server::start(kind).await;
        let functions = functions::Caller::start(&server).await;
        for point in points {
            progress.step();
            let count = what.flows(point, options);
            let function = if what == What::Steps { "steps" } else { "fan_out" };
            let load = functions.measure(&server, function, point, count).await;
            measured.push(Point::new(point, load, functions.deployment.memory(), server.stored()));
        }
        functions.deployment.stop().await;
        return measured;
    }
    let system = System::start(kind, 1, collector).await;
    let mut before = 0;
    for point in points {
        progress.step();
        let (connections, count) = match what {
            What::Connections => (point, options.flows()),
            What::Gateway => (CONNECTIONS, point - before),
            _ => {
                fill::settle(&system.server.url, before..point).await;
                (CONNECTIONS, options.flows())
            }
        };
        before = point;
        measured.push(system.await_chains(point, connections, count).await);
    }
    system.deployment.stop().await;
    measured
}

/// The whole system, without telemetry.
struct System {
    server: Server,
    deployment: Deployment,
    client: Client,
}

impl System {
    async fn start(kind: &Kind, replicas: usize, collector: &str) -> Self {
        let (server, client) = (Server::start(kind).await, Client::new());
        let (programs, gateway) =
            ours::programs(&EXECUTABLE, &server.url, replicas, Telemetry::Off, collector);
        let (_, deployment) = compare::start(programs, gateway, &server, &client).await;
        let system = Self { server, deployment, client };
        let gateway = &system.deployment.gateway;
        let warm_up = async |n| system.client.await_chain(gateway, &format!("warm-{n}")).await;
        drive::run(CONNECTIONS, WARM_UP, warm_up).await;
        system
    }

    /// Runs await chains.
    async fn await_chains(&self, point: usize, connections: usize, count: usize) -> Point {
        let gateway = &self.deployment.gateway;
        let flow =
            async |n| self.client.await_chain(gateway, &format!("{point}-{connections}-{n}")).await;
        let load = drive::measure(&self.deployment, &self.server, connections, count, flow).await;
        Point::new(point, load, self.deployment.memory(), self.server.stored())
    }
}
