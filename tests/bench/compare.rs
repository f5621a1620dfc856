//! The rounds: who is measured when.

use std::path::PathBuf;

use serde::Serialize;
use testkit::process::EXECUTABLE;

use crate::{
    collector,
    drive::{self, Client, Load},
    machine,
    options::CompareOptions,
    ours::{self, Telemetry},
    peers::{self, Peer},
    program::{Deployment, Parts, Program},
    progress::{Progress, Step},
    recovery::{self, Fault, Recovery},
    report,
    server::{Kind, Server},
};

/// Processes of each service while some are killed or frozen.
const RECOVERY_REPLICAS: usize = 2;

/// Connections of the warm-up.
const WARM_UP: usize = 4;

/// Who is measured.
struct Subject {
    name: String,
    server: Kind,
    system: System,
}

enum System {
    Ours { executable: PathBuf, telemetry: Telemetry },
    Peer(&'static Peer),
}

/// What was measured of one subject in one round.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Seconds from the start of the server until it answered.
    pub server_start_s: Option<f64>,
    /// Seconds from the start of the processes, on a server that runs, until a flow was answered.
    pub start_s: f64,
    /// Bytes after the start.
    pub rest: Parts<u64>,
    /// One for each number of connections.
    pub loads: Vec<Load>,
    /// Bytes after all loads.
    pub loaded: Parts<u64>,
}

/// What was measured on one server.
#[derive(Serialize)]
pub struct Comparison {
    pub server: String,
    /// In the order of the columns: the name, and one for each round.
    pub subjects: Vec<(String, Vec<Figures>)>,
    pub recovery: Option<Recovery>,
}

/// Measures everybody on each server, and prints the tables.
pub async fn run(options: &CompareOptions) {
    let servers: Vec<_> = options.servers.kinds();
    let all: Vec<_> = servers
        .iter()
        .enumerate()
        // Others are measured once, on the last server: that is the official one, if there is one.
        .map(|(index, kind)| (kind, subjects(kind, index + 1 == servers.len(), options)))
        .collect();
    let plan = plan(&all, options).into_iter().map(|label| Step { label, size: 1 });
    let mut progress = Progress::new(plan.collect());
    let collector = collector::start();
    let mut comparisons = Vec::new();
    for (kind, subjects) in &all {
        let mut rounds = vec![Vec::new(); subjects.len()];
        for round in 0..options.rounds() {
            for (subject, figures) in subjects.iter().zip(&mut rounds) {
                figures.push(measure(subject, &collector, round, options, &mut progress).await);
            }
        }
        let names = subjects.iter().map(|subject| subject.name.clone());
        let recovery = match options.recoveries() {
            0 => None,
            count => Some(recover(kind, &collector, count, &mut progress).await),
        };
        let subjects = names.zip(rounds).collect();
        let comparison = Comparison { server: kind.name(), subjects, recovery };
        println!("{}", report::table(&comparison));
        comparisons.push(comparison);
    }
    println!("Measured on {}.", machine::describe());
    report::write_json(options.json.as_deref(), &comparisons);
}

/// Who is measured on the server `kind`, in the order of the columns.
fn subjects(kind: &Kind, with_peers: bool, options: &CompareOptions) -> Vec<Subject> {
    let ours = |executable: PathBuf, name: String, telemetry| Subject {
        name,
        server: kind.clone(),
        system: System::Ours { executable, telemetry },
    };
    let telemetry = options.telemetry.iter();
    let mut subjects: Vec<_> = telemetry
        .map(|telemetry| ours(EXECUTABLE.clone(), telemetry.name().to_owned(), *telemetry))
        .collect();
    for other in &options.other {
        let name = |telemetry: &Telemetry| format!("{}, {}", other.display(), telemetry.name());
        let telemetry = options.telemetry.iter();
        subjects.extend(telemetry.map(|it| ours(other.clone(), name(it), *it)));
    }
    let peers = options.peers.iter().copied().flatten().filter(|_| with_peers);
    subjects.extend(peers.filter(|peer| peer.is_installed()).map(|peer| Subject {
        name: peer.title.to_owned(),
        server: peer.server(kind),
        system: System::Peer(peer),
    }));
    subjects
}

/// The steps of the whole run.
fn plan(all: &[(&Kind, Vec<Subject>)], options: &CompareOptions) -> Vec<String> {
    let mut plan = Vec::new();
    for (kind, subjects) in all {
        let server = kind.name();
        for _ in 0..options.rounds() {
            for subject in subjects {
                let label = format!("{server}, {}", subject.name);
                plan.push(format!("{label}: start"));
                let levels = options.connections.iter();
                plan.extend(levels.map(|level| format!("{label}: connections: {level}")));
            }
        }
        if options.recoveries() > 0 {
            let what = ["kill -9", "freeze"];
            plan.extend(what.map(|fault| format!("{server}: {fault}")));
        }
    }
    plan
}

async fn measure(
    subject: &Subject,
    collector: &str,
    round: usize,
    options: &CompareOptions,
    progress: &mut Progress,
) -> Figures {
    progress.step();
    let client = Client::new();
    let server = Server::start(&subject.server).await;
    let (programs, gateway) = subject.system.programs(&server, options.replicas, collector);
    let (start_s, deployment) = start(programs, gateway, &server, &client).await;
    let gateway = &deployment.gateway;
    let rest = deployment.memory();
    let warm_up = async |n| client.await_chain(gateway, &format!("{round}-warm-{n}")).await;
    drive::run(WARM_UP, options.warm_up(), warm_up).await;
    let mut loads = Vec::new();
    for &level in &options.connections {
        progress.step();
        let flow = async |n| client.await_chain(gateway, &format!("{round}-{level}-{n}")).await;
        let count = options.flows(level);
        loads.push(drive::measure(&deployment, &server, level, count, flow).await);
    }
    let loaded = deployment.memory();
    deployment.stop().await;
    Figures { server_start_s: server.start, start_s, rest, loads, loaded }
}

/// Starts a system on a server that runs: the seconds until it has answered a flow.
pub async fn start(
    programs: Vec<Program>,
    gateway: String,
    server: &Server,
    client: &Client,
) -> (f64, Deployment) {
    let begin = std::time::Instant::now();
    let deployment = Deployment::start(programs.clone(), gateway, server.pid());
    peers::register(server, &programs).await;
    let gateway = &deployment.gateway;
    let flow = async |n| client.await_chain(gateway, &format!("first-{n}")).await;
    drive::first_answer(&deployment, flow).await;
    (begin.elapsed().as_secs_f64(), deployment)
}

async fn recover(kind: &Kind, collector: &str, count: usize, progress: &mut Progress) -> Recovery {
    let client = Client::new();
    let server = Server::start(kind).await;
    let system = System::Ours { executable: EXECUTABLE.clone(), telemetry: Telemetry::Off };
    let (programs, gateway) = system.programs(&server, RECOVERY_REPLICAS, collector);
    let (_, deployment) = start(programs, gateway, &server, &client).await;
    progress.step();
    let kill = recovery::measure(&deployment, &client, Fault::Kill, count).await;
    progress.step();
    let freeze = recovery::measure(&deployment, &client, Fault::Freeze, count).await;
    deployment.stop().await;
    Recovery { kill, freeze }
}

impl System {
    fn programs(
        &self,
        server: &Server,
        replicas: usize,
        collector: &str,
    ) -> (Vec<Program>, String) {
        match self {
            Self::Ours { executable, telemetry } => {
                ours::programs(executable, &server.url, replicas, *telemetry, collector)
            }
            Self::Peer(peer) => peer.programs(server),
        }
    }
}
