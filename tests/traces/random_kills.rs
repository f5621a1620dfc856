//! Kills random processes under a load of random flows. When everything is at rest, `rest.rs` checks
//! what is durable and what arrived.
//!
//! All randomness comes from a seed, which the test prints. `ASYNC_RPC_SEED` sets it.
//! `ASYNC_RPC_KILLS` sets the number of kills (default: 10).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use testkit::{DEADLINE, Http, Server, Stopped};

use crate::{
    observed::Observed,
    rest::{self, Flow},
};

testkit::on_each_server!(random_kills);

/// The number of flows at the same time.
const AT_ONCE: usize = 4;

/// The lease. It determines the time until a takeover.
const LEASE: &str = "1s";

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

async fn random_kills(server: Server) -> Stopped {
    let kills = variable("ASYNC_RPC_KILLS").unwrap_or(10) as usize;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let seed = variable("ASYNC_RPC_SEED").unwrap_or(now);
    eprintln!("{kills} random kills on {server:?}: ASYNC_RPC_SEED={seed}");
    let system = Observed::start(server, &[("NODE_LEASE", LEASE)]).await;
    let gateway = Mutex::new(system.gateway.clone());
    let (over, started) = (AtomicBool::new(false), AtomicUsize::new(0));
    let flows = Arc::new(Mutex::new(Vec::new()));

    let load = join_all((0..AT_ONCE).map(async |n| {
        let mut random = StdRng::seed_from_u64(seed + 1 + n as u64);
        while !over.load(Ordering::Relaxed) {
            let number = started.fetch_add(1, Ordering::Relaxed);
            let flow = Flow::random(&mut random, &format!("random-{number}"));
            run(&system, &gateway, &flow).await;
            flows.lock().unwrap().push(flow);
        }
    }));
    let killer = async {
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..kills {
            tokio::time::sleep(Duration::from_millis(random.random_range(300..1_500))).await;
            let victim = match random.random_range(0..10) {
                0 => "gateway".to_owned(),
                1..5 => service(&mut random),
                // The process that started the last step most likely still holds it.
                _ => holder(&system).unwrap_or_else(|| service(&mut random)),
            };
            system.kill(&victim);
            let group = victim.strip_suffix("-replica").unwrap_or(&victim);
            let mut arguments = vec![group, "--server", &system.server_url];
            if group == "gateway" {
                arguments.extend(["--listen", "127.0.0.1:0"]);
            }
            let address = system.start_process(&victim, &arguments, &[]).await;
            if group == "gateway" {
                *gateway.lock().unwrap() = address;
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    futures_util::join!(load, killer);
    let flows = std::mem::take(&mut *flows.lock().unwrap());
    let http = Http::new(&gateway.lock().unwrap().clone());
    rest::judge(system, &http, flows).await
}

/// One of the 18 processes.
fn service(random: &mut StdRng) -> String {
    let group = char::from(random.random_range(b'a'..=b'i'));
    let replica = if random.random_bool(0.4) { "-replica" } else { "" };
    format!("service-{group}{replica}")
}

/// The process that started the last step.
fn holder(system: &Observed) -> Option<String> {
    let started = system.log.all(|line| line.says("step started"));
    started.last().map(|line| line.instance().to_owned())
}

/// Repeats the request of a flow until it is answered: a gateway that is killed does not answer.
async fn run(system: &Observed, gateway: &Mutex<String>, flow: &Flow) {
    let start = tokio::time::Instant::now();
    loop {
        let http = Http::new(&gateway.lock().unwrap().clone());
        if let Ok(answer) = http.send(Method::POST, &flow.path(), &[]).await {
            flow.expect(&answer);
            return;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "no answer to {}; the logs:\n{}",
            flow.path(),
            system.log
        );
        // Nobody listens until the next gateway has started.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
