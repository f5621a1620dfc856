//! The benchmark: `cargo bench`. It starts the whole system, as the launcher does, on the embedded
//! server and, where `RESONATE_SERVER_BIN` names its binary, on the official one, and prints a
//! table of latency, throughput, CPU, memory and recovery. Linux only: it reads `/proc`.
//!
//! Tracing off and on are measured in turns, on one server, so that a machine that is busy with
//! something else does not look like the cost of tracing. The collector takes spans and drops them.

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
use tokio::sync::Mutex;

/// Measures the system on each server that is at hand.
#[derive(Parser)]
struct Arguments {
    /// Rounds; each measures without and with tracing
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Flows of a round one after the other, for latency
    #[arg(long, default_value_t = 300)]
    sequential: usize,
    /// Flows of a round at all connections, for throughput, CPU and memory
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
        match std::env::var("RESONATE_SERVER_BIN") {
            Ok(binary) => measure(&Server::official(&binary).await, &collector, &arguments).await,
            Err(_) => {
                eprintln!("RESONATE_SERVER_BIN is not set: the official server is not measured")
            }
        }
    });
}

/// Takes spans and drops them. Its address. It has a thread of its own, for it is needed while the
/// other one waits for the end of the processes.
fn start_collector() -> String {
    let traces = post(async |_: Bytes| ()).layer(DefaultBodyLimit::disable());
    let routes = Router::new().route("/v1/traces", traces);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket of ours");
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

/// What one round measures with one setting. Times are of one flow.
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
        }
    }
    let system = System::start(server, None).await;
    let mut recoveries = Vec::new();
    for (route, invocation) in [("await-chain", 1), ("detached-chain", 1), ("fan-out-workflow", 0)]
    {
        let recovery = system.kill_holder(&client, route, invocation).await;
        recoveries.push(format!("{:.2} s", recovery.as_secs_f64()));
    }
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

/// Starts `count` await chains over `connections` at a time.
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

/// One await chain, and how long it took. A wrong answer ends the benchmark.
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
        // Pairs of the same round, for they saw the same machine.
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
