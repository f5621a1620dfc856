//! The deployment in containers, from outside, on a real Docker Engine: built, started, killed,
//! scaled, stopped. Only with `ASYNC_RPC_DOCKER=1`; tests by name: `cargo test --test docker kill`.
//!
//! Where `docker/offline-images.sh` has made the base images, nothing is pulled; the Resonate
//! Server is then the official one if `RESONATE_SERVER_BIN` names its binary, else the embedded
//! one. The tests share one deployment and run in this order.

#[path = "docker/deployment.rs"]
mod deployment;
#[path = "docker/flows.rs"]
mod flows;
#[path = "docker/hardening.rs"]
mod hardening;
#[allow(dead_code, reason = "each of the test binaries uses a part of it")]
#[path = "support/http.rs"]
mod http;
#[path = "docker/kills.rs"]
mod kills;
#[path = "docker/trace.rs"]
mod trace;

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, process::ExitCode, time::Instant};

use deployment::{Deployment, Server};
use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};

type Test = for<'a> fn(&'a Deployment) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        [$((stringify!($name), (|deployment| Box::pin($module::$name(deployment))) as Test)),*]
    };
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let tests = tests![
        flows::it_is_ready_within_20_seconds_and_says_what_to_try,
        flows::the_three_flows_give_their_exact_answers,
        flows::both_processes_of_each_service_take_part,
        hardening::containers_have_no_rights_and_limits,
        hardening::layers_are_small,
        hardening::nothing_else_is_reachable,
        kills::a_killed_service_loses_nothing_and_stays_dead,
        kills::a_killed_gateway_loses_nothing,
        kills::a_killed_jaeger_hinders_no_flow,
        flows::a_service_can_be_scaled,
        kills::a_killed_server_loses_nothing,
        kills::stop_drains_within_the_grace_period,
        kills::down_and_up_keep_the_flows,
    ];
    let tests = tests.into_iter().filter(|(name, _)| {
        wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()))
    });
    if words.iter().any(|word| word == "--list") {
        tests.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !Deployment::is_wanted() {
        println!("skipped: the tests of containers need a Docker Engine and ASYNC_RPC_DOCKER=1");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(tests.collect()))
}

async fn run(tests: Vec<(&'static str, Test)>) -> ExitCode {
    let start = Instant::now();
    let deployment = Deployment::build(&[("NODE_LOG", "node=debug"), ("NODE_LOG_FORMAT", "json")]);
    println!(
        "images are built ({:.1} s); server: {:?}",
        start.elapsed().as_secs_f64(),
        deployment.server
    );
    let mut interrupt = signal(SignalKind::interrupt()).unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let mut failed = Vec::new();
    for (name, test) in tests {
        if deployment.server == Server::Embedded && NEED_A_SERVER_THAT_REMEMBERS.contains(&name) {
            println!("test {name} ... skipped: it needs a server that remembers");
            continue;
        }
        let start = Instant::now();
        let run = async {
            // Whatever the test before has left: everything runs.
            deployment.up();
            deployment.ready().await;
            test(&deployment).await;
        };
        let outcome = tokio::select! {
            outcome = AssertUnwindSafe(run).catch_unwind() => Some(outcome),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        };
        let Some(outcome) = outcome else {
            failed.push("interrupted");
            break;
        };
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:.1} s)", start.elapsed().as_secs_f64());
        if outcome.is_err() {
            println!("{}", deployment.report());
            failed.push(name);
        }
    }
    // Here everything is removed.
    drop(deployment);
    println!("{} failed: {failed:?} ({:.1} s)", failed.len(), start.elapsed().as_secs_f64());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The embedded server forgets everything with its end.
const NEED_A_SERVER_THAT_REMEMBERS: [&str; 2] =
    ["a_killed_server_loses_nothing", "down_and_up_keep_the_flows"];
