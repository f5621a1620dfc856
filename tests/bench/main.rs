//! The benchmark: `cargo bench`. It starts the whole system on the embedded server and, where
//! `RESONATE_SERVER_BIN` names its executable, on the official one, and prints a table of latency,
//! throughput, CPU, memory and recovery. Linux only: it reads `/proc`.
//!
//! It measures without and with tracing in turns, on one server, so that other load on the machine is
//! not taken for the cost of tracing. The collector accepts spans and drops them.

mod processes;

use std::{
    collections::VecDeque,
    fmt::Write as _,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::DefaultBodyLimit, routing::post};
use clap::Parser;
use processes::{Server, System, Usage};
use reqwest::Client;
use testkit::FLOWS;
use tokio::sync::Mutex;

/// Measures the system on each available server.
#[derive(Parser)]
struct Arguments {
    /// Rounds, each without and with tracing
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Sequential flows of a round, for latency
    #[arg(long, default_value_t = 300)]
    sequential: usize,
    /// Parallel flows of a round, for throughput, CPU and memory
    #[arg(long, default_value_t = 2000)]
    flows: usize,
    /// Connections for throughput
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// `cargo bench` passes this
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let collector = start_collector();
        measure(&Server::embedded().await, &collector, &arguments).await;
        match testkit::Server::official_executable() {
            Some(_) => measure(&Server::official().await, &collector, &arguments).await,
            None => eprintln!("not measured: the official server (RESONATE_SERVER_BIN is not set)"),
        }
    });
}

/// Starts a collector that accepts spans and drops them. Returns its address. It has a thread of its
/// own: processes still export spans while the other thread waits for their end.
fn start_collector() -> String {
    let traces = post(async |_: Bytes| ()).layer(DefaultBodyLimit::disable());
    let routes = Router::new().route("/v1/traces", traces);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket of this process");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is one");
            axum::serve(listener, routes).await
        })
    });
    format!("http://{address}")
}

/// The results of one round with one setting. Times are per flow.
struct Figures {
    rest: u64,
    p50: Duration,
    p99: Duration,
    rate: f64,
    services: Duration,
    gateway: Duration,
    server: Duration,
    service_memory: u64,
    gateway_memory: (u64, u64),
}

async fn measure(server: &Server, collector: &str, arguments: &Arguments) {
    let client = Client::builder().no_proxy().build().expect("a client");
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        eprintln!("{}: round {} of {}", server.name, round + 1, arguments.rounds);
        for (endpoint, figures) in [(None, &mut off), (Some(collector), &mut on)] {
            let system = System::start(server, endpoint).await;
            let prefix = format!("{round}-{}", if endpoint.is_some() { "on" } else { "off" });
            figures.push(figures_of(&system, &client, &prefix, arguments).await);
            system.stop().await;
        }
    }
    let system = System::start(server, None).await;
    let mut recoveries = Vec::new();
    for flow in FLOWS {
        let recovery = system.kill_holder(&client, flow.name, flow.works).await;
        recoveries.push(format!("{:.2} s", recovery.as_secs_f64()));
    }
    system.stop().await;
    print(server.name, &off, &on, arguments);
    println!(
        "kill -9 of the holder (b, e, g) until the replica runs it: {}\n",
        recoveries.join(", ")
    );
}

async fn figures_of(
    system: &System,
    client: &Client,
    prefix: &str,
    arguments: &Arguments,
) -> Figures {
    let rest = system.services_memory();
    run(system, client, &format!("{prefix}-warm"), 200, 4).await;
    let mut latencies = Vec::new();
    for n in 0..arguments.sequential {
        latencies.push(flow(system, client, &format!("{prefix}-sequential-{n}")).await);
    }
    latencies.sort();
    let gateway_before = system.gateway_memory();
    let before = system.usage();
    let begin = Instant::now();
    run(system, client, &format!("{prefix}-parallel"), arguments.flows, arguments.connections)
        .await;
    let elapsed = begin.elapsed();
    let Usage { services, gateway, server } = system.usage() - before;
    let flows = arguments.flows as u32;
    Figures {
        rest,
        p50: latencies[latencies.len() / 2],
        p99: latencies[latencies.len() * 99 / 100],
        rate: arguments.flows as f64 / elapsed.as_secs_f64(),
        services: services / flows,
        gateway: gateway / flows,
        server: server / flows,
        service_memory: system.services_memory(),
        gateway_memory: (gateway_before, system.gateway_memory()),
    }
}

/// Runs `count` await chains on `connections` connections.
async fn run(system: &System, client: &Client, prefix: &str, count: usize, connections: usize) {
    let waiting = Mutex::new((0..count).collect::<VecDeque<_>>());
    let worker = || async {
        loop {
            let Some(n) = waiting.lock().await.pop_front() else { return };
            flow(system, client, &format!("{prefix}-{n}")).await;
        }
    };
    futures_util::future::join_all((0..connections).map(|_| worker())).await;
}

/// Runs one await chain and returns how long it took.
///
/// # Panics
/// The answer is wrong.
async fn flow(system: &System, client: &Client, id: &str) -> Duration {
    let begin = Instant::now();
    let request = client.post(format!("{}/await-chain?id={id}", system.gateway));
    let answer = request.send().await.expect("an answer");
    let body = answer.text().await.expect("a body");
    assert!(body.starts_with(r#"{"message":3,"#), "{id}: {body}");
    begin.elapsed()
}

fn median<T: PartialOrd + Copy>(figures: &[Figures], figure: impl Fn(&Figures) -> T) -> T {
    let mut values: Vec<_> = figures.iter().map(figure).collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("figures are numbers"));
    values[values.len() / 2]
}

fn print(server: &str, off: &[Figures], on: &[Figures], arguments: &Arguments) {
    let mut table = format!(
        "| {server} server | tracing off | tracing on | ratio |\n| --- | --- | --- | --- |\n"
    );
    let mut row = |what: &str, figure: &dyn Fn(&Figures) -> f64, digits: usize| {
        // The ratio within each round, which saw the same load on the machine.
        let mut ratios: Vec<_> =
            off.iter().zip(on).map(|(off, on)| figure(on) / figure(off)).collect();
        ratios.sort_by(f64::total_cmp);
        let (without, with) = (median(off, figure), median(on, figure));
        let ratio = ratios[ratios.len() / 2];
        let _ = writeln!(table, "| {what} | {without:.digits$} | {with:.digits$} | {ratio:.2} |");
    };
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    row("await chain, sequential, p50 (ms)", &|f| ms(f.p50), 1);
    row("await chain, sequential, p99 (ms)", &|f| ms(f.p99), 1);
    row(&format!("flows per second at {} connections", arguments.connections), &|f| f.rate, 0);
    row("CPU per flow, nine services (ms)", &|f| ms(f.services), 2);
    row("CPU per flow, gateway (ms)", &|f| ms(f.gateway), 2);
    row("CPU per flow, services and gateway (ms)", &|f| ms(f.services + f.gateway), 2);
    row("CPU per flow, Resonate server (ms)", &|f| ms(f.server), 2);
    row("memory of a service at rest, largest (MB)", &|f| mb(f.rest), 1);
    row("memory of a service after the load, largest (MB)", &|f| mb(f.service_memory), 1);
    row("memory of the gateway before the load (MB)", &|f| mb(f.gateway_memory.0), 1);
    row(
        &format!("memory of the gateway after {} flows (MB)", arguments.flows),
        &|f| mb(f.gateway_memory.1),
        1,
    );
    println!("{table}");
}
