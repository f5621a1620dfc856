//! The benchmark: `cargo bench`. It starts the whole system, as the launcher does, on the embedded
//! server and, where `RESONATE_SERVER_BIN` names its binary, on the official one, and prints a
//! table of latency, throughput, CPU, memory and recovery. Linux only: it reads `/proc`.

mod processes;

use std::{
    collections::VecDeque,
    fmt::Write as _,
    time::{Duration, Instant},
};

use clap::Parser;
use processes::{System, Usage};
use reqwest::Client;
use tokio::sync::Mutex;

/// Measures the system on each server that is at hand.
#[derive(Parser)]
struct Arguments {
    /// Flows one after the other, for latency
    #[arg(long, default_value_t = 500)]
    sequential: usize,
    /// Flows at 16 connections, for throughput, CPU and memory
    #[arg(long, default_value_t = 3000)]
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
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut columns = vec![measure("embedded", System::start(None).await, &arguments).await];
        match std::env::var("RESONATE_SERVER_BIN") {
            Ok(binary) => columns
                .push(measure("official", System::start(Some(&binary)).await, &arguments).await),
            Err(_) => {
                eprintln!("RESONATE_SERVER_BIN is not set: the official server is not measured")
            }
        }
        print(&columns);
    });
}

/// One server's figures, as (what, figure).
type Column = (&'static str, Vec<(String, String)>);

async fn measure(server: &'static str, system: System, arguments: &Arguments) -> Column {
    eprintln!("{server}: measuring");
    let client = Client::builder().no_proxy().build().expect("a client");
    let mut rows = Vec::new();
    let mut row = |what: String, figure: String| rows.push((what, figure));
    let at_rest = system.services_memory();
    row("memory of a service at rest, largest".to_owned(), megabytes(at_rest));

    run(&system, &client, "warm", 200, 4).await;
    let mut latencies = Vec::new();
    for n in 0..arguments.sequential {
        latencies.push(flow(&system, &client, &format!("sequential-{n}")).await);
    }
    latencies.sort();
    row(
        "await chain, sequential, p50".to_owned(),
        format!("{:.1?}", latencies[latencies.len() / 2]),
    );
    row(
        "await chain, sequential, p99".to_owned(),
        format!("{:.1?}", latencies[latencies.len() * 99 / 100]),
    );

    let gateway_before = system.gateway_memory();
    let before = system.usage();
    let begin = Instant::now();
    run(&system, &client, "parallel", arguments.flows, arguments.connections).await;
    let elapsed = begin.elapsed();
    let used = system.usage() - before;
    let per_flow =
        |cpu: Duration| format!("{:.2} ms", cpu.as_secs_f64() * 1e3 / arguments.flows as f64);
    let rate = arguments.flows as f64 / elapsed.as_secs_f64();
    row(format!("flows per second at {} connections", arguments.connections), format!("{rate:.0}"));
    let Usage { services, gateway, server: of_server } = used;
    row("CPU per flow, nine services".to_owned(), per_flow(services));
    row("CPU per flow, gateway".to_owned(), per_flow(gateway));
    row("CPU per flow, Resonate server".to_owned(), per_flow(of_server));
    row(
        format!("memory of the gateway before and after {} flows", arguments.flows),
        format!("{} → {}", megabytes(gateway_before), megabytes(system.gateway_memory())),
    );
    row(
        "memory of a service after the load, largest".to_owned(),
        megabytes(system.services_memory()),
    );

    let mut recoveries = Vec::new();
    for (route, invocation) in [("await-chain", 1), ("detached-chain", 1), ("fan-out-workflow", 0)]
    {
        let recovery = system.kill_holder(&client, route, invocation).await;
        recoveries.push(format!("{:.2} s", recovery.as_secs_f64()));
    }
    row(
        "kill -9 of the holder (b, e, g) until the replica runs it".to_owned(),
        recoveries.join(", "),
    );
    (server, rows)
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
    let answer = client
        .post(format!("{}/await-chain?id={id}", system.gateway))
        .send()
        .await
        .expect("an answer");
    let body = answer.text().await.expect("a body");
    assert!(body.starts_with(r#"{"message":3,"#), "{id}: {body}");
    begin.elapsed()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn print(columns: &[Column]) {
    let mut table = "| what |".to_owned();
    for (server, _) in columns {
        let _ = write!(table, " {server} |");
    }
    let _ = write!(table, "\n| --- |{}", " --- |".repeat(columns.len()));
    for (n, (what, _)) in columns[0].1.iter().enumerate() {
        let _ = write!(table, "\n| {what} |");
        for (_, rows) in columns {
            let _ = write!(table, " {} |", rows[n].1);
        }
    }
    println!("{table}");
}
