//! Random faults on real processes: `just soak`. Clients start random flows while processes are
//! killed, frozen, stopped, cut off, and the Resonate Server with them. In the end every fault is
//! healed, and every flow must have ended right. It prints one table, and exits with code 1 if
//! anything was wrong. Linux only: it reads `/proc`, and cuts connections in the kernel.
//!
//! | module | what it does |
//! | --- | --- |
//! | `clients` | starts flows, and judges their answers and ends |
//! | `faults` | what happens to the processes |
//! | `rest` | memory, and what is used at rest |
//! | `traces` | what arrived at the collector |
//! | `report` | what was seen, and the table |
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod faults;
mod report;
mod rest;
mod traces;

use std::{
    fs::File,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clap::Parser;
use testkit::{Collector, Log, Mode, Server, System, free_port, process::executable_folder, steps};

use self::{clients::Clients, faults::Faults, report::Report, rest::Rest};

/// How long flows run without a fault before memory is measured for the first time.
const WARM_UP: Duration = Duration::from_secs(10);

/// How long every flow may take to end after the last fault is healed: the longest work, a lease for
/// each of its three calls, and the 11 s in which TCP keep-alive notices dead connections, twice.
const HANG: Duration = Duration::from_secs(60);

/// The pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Runs random faults on real processes and judges every answer and step.
#[derive(Parser)]
struct Arguments {
    /// The Resonate Server: embedded, the path of an official executable, or the URL of a server that
    /// runs, which is left alone [default: RESONATE_SERVER_BIN, or embedded]
    #[arg(long)]
    server: Option<String>,
    /// How long faults happen
    #[arg(long = "for", default_value = "10m", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Flows at the same time
    #[arg(long, default_value_t = 16)]
    clients: u64,
    /// The seed of all random choices [default: a new one]
    #[arg(long)]
    seed: Option<u64>,
    /// `cargo bench` passes this
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(soak(&arguments))
}

async fn soak(arguments: &Arguments) -> ExitCode {
    let seed = arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let report = Arc::new(Mutex::new(Report::default()));
    let path = executable_folder().join(format!("soak-{seed}.log"));
    let log = {
        let report = report.clone();
        Log::to_file(File::create(&path).unwrap(), move |line| report.lock().unwrap().note(line))
    };
    println!("seed {seed}, log {}", path.display());
    let collector = Collector::start(free_port(), Mode::Accept);
    let (system, name) = start(arguments.server.as_deref(), log, &collector.endpoint()).await;
    let over = tokio::sync::watch::Sender::new(false);
    let clients = Clients { system: &system, report: &report, over: over.subscribe(), seed };
    let begin = Instant::now();
    let run = async {
        tokio::time::sleep(WARM_UP).await;
        let before = Rest::measure(&system).await;
        let faults = Faults::new(&system, &report, name == OFFICIAL, seed);
        faults.run(arguments.duration).await;
        println!("{:4} s: every fault is healed", begin.elapsed().as_secs());
        over.send_replace(true);
        before
    };
    let flows = async {
        // A flow that hangs keeps its client.
        let mut healed = over.subscribe();
        tokio::select! {
            () = clients.run(arguments.clients) => {}
            () = async {
                let _ = healed.wait_for(|over| *over).await;
                tokio::time::sleep(HANG).await;
            } => report.lock().unwrap().hang(),
        }
    };
    let progress = async {
        loop {
            tokio::time::sleep(PROGRESS).await;
            println!("{:4} s: {}", begin.elapsed().as_secs(), report.lock().unwrap().progress());
        }
    };
    let (before, ()) = tokio::select! {
        both = futures_util::future::join(run, flows) => both,
        () = progress => unreachable!(),
    };
    before.judge(&system, &report).await;
    traces::judge(&system, &collector.spans(), &report).await;
    let starts = std::mem::take(&mut report.lock().unwrap().starts);
    let again = steps::run_again(&starts, &system.resonate()).await;
    report.lock().unwrap().steps(&starts, again);
    system.stop().await;
    let mut report = report.lock().unwrap();
    report.prints();
    println!("{}", report.table(name, seed, begin.elapsed()));
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const OFFICIAL: &str = "official";

/// Starts the system on the server that the option names. Returns the name of the server, too.
async fn start(server: Option<&str>, log: Log, collector: &str) -> (System, &'static str) {
    let settings = [
        // The steps are judged in the end.
        ("EMBEDDED_SERVER_RETENTION", "24h"),
        ("EMBEDDED_SERVER_MAX_SETTLED_FLOWS", "10000000"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
    ];
    if let Some(url) = server.filter(|server| server.contains("://")) {
        let system = System::cabled(log, address(url), None, &settings).await;
        return (system, "external");
    }
    let default = if Server::official_executable().is_some() { OFFICIAL } else { "embedded" };
    let (kind, name) = match server.unwrap_or(default) {
        "embedded" => (Server::Embedded, "embedded"),
        _ => (Server::Official, OFFICIAL),
    };
    let mut prepared = kind.prepare(&log);
    if let Some(path) = server.filter(|_| kind == Server::Official) {
        // It is started in a folder of its own.
        prepared.executable = Some(PathBuf::from(path).canonicalize().expect(path).into());
    }
    prepared.settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    prepared.start().await;
    (System::cabled(log, prepared.address(), Some(prepared), &settings).await, name)
}

/// The address in a URL such as `http://127.0.0.1:8001`.
fn address(url: &str) -> SocketAddr {
    let authority = url.trim_start_matches("http://").trim_end_matches('/');
    let addresses = authority.to_socket_addrs().unwrap_or_else(|error| panic!("{url}: {error}"));
    addresses.into_iter().next().expect(url)
}
