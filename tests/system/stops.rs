//! Processes that are told to stop while they are cut off, frozen, or without a server.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testkit::{FLOWS, Server, Stopped, System, process::signal};

use crate::flow::{ALLOWANCE, Running};

testkit::on_each_server!(
    a_holder_that_is_cut_off_or_was_frozen_stops_in_time,
    every_process_stops_in_time_while_the_server_is_frozen,
    every_process_stops_in_time_after_the_death_of_the_server,
    everything_that_was_told_to_stop_while_frozen_stops_in_time,
);

/// How long each process may take.
const DRAIN: Duration = Duration::from_secs(2);

const SETTINGS: [(&str, &str); 1] = [("NODE_DRAIN", "2s")];

/// One flow of each kind in the middle of its work, and who holds it.
async fn working(system: &System) -> Vec<(Running, String)> {
    join_all(FLOWS.map(async |flow| {
        let id = format!("stop-{}", flow.name);
        let flow = Running::start(system, flow.name, &id, "work=30s").await;
        let holder = flow.at(system, "step started", 2).await.instance().to_owned();
        (flow, holder)
    }))
    .await
}

/// Asserts that a process that was told to stop at `since` exits in time, and well.
async fn expect_exit(system: &System, instance: &str, since: Instant) {
    let status = system.exit_of(instance).await;
    let after = since.elapsed();
    println!("{instance} stopped after {after:.3?}: {status}");
    assert_eq!(status.code(), Some(0), "{instance}: {}", system.log);
    assert!(after <= DRAIN + ALLOWANCE, "{instance}: {after:?}");
}

/// Tells the holders, the gateway, and one process that holds nothing to stop.
async fn expect_all_stop(system: &System, flows: &[(Running, String)]) {
    let holders = flows.iter().map(|(_, holder)| holder.as_str());
    let stopped: Vec<_> = holders.chain(["gateway", "service-c"]).collect();
    let since = Instant::now();
    stopped.iter().for_each(|instance| signal(system.pid(instance), "TERM"));
    join_all(stopped.iter().map(|instance| expect_exit(system, instance, since))).await;
}

async fn a_holder_that_is_cut_off_or_was_frozen_stops_in_time(server: Server) -> Stopped {
    let system = System::start_cabled(server, &SETTINGS).await;
    let flows = working(&system).await;
    let [(_, cut), (_, frozen), (_, both)] = &flows[..] else { unreachable!() };
    for instance in [cut, both] {
        system.cable(instance).cut();
    }
    for instance in [frozen, both] {
        system.freeze(instance);
    }
    for instance in [cut, frozen, both] {
        signal(system.pid(instance), "TERM");
    }
    let since = Instant::now();
    expect_exit(&system, cut, since).await;
    // The others see the signal now.
    let since = Instant::now();
    system.wake(frozen);
    system.wake(both);
    expect_exit(&system, frozen, since).await;
    expect_exit(&system, both, since).await;
    system.stop().await
}

async fn every_process_stops_in_time_while_the_server_is_frozen(server: Server) -> Stopped {
    let system = System::start_cabled(server, &SETTINGS).await;
    let flows = working(&system).await;
    signal(system.server_pid().await.unwrap(), "STOP");
    expect_all_stop(&system, &flows).await;
    system.stop().await
}

async fn every_process_stops_in_time_after_the_death_of_the_server(server: Server) -> Stopped {
    let system = System::start_cabled(server, &SETTINGS).await;
    let flows = working(&system).await;
    system.kill_server().await;
    expect_all_stop(&system, &flows).await;
    system.stop().await
}

async fn everything_that_was_told_to_stop_while_frozen_stops_in_time(server: Server) -> Stopped {
    let system = System::start_cabled(server, &SETTINGS).await;
    let _flows = working(&system).await;
    let (everything, pids) = (system.all_pids().await, system.pids());
    everything.iter().for_each(|pid| signal(*pid, "STOP"));
    pids.values().for_each(|pid| signal(*pid, "TERM"));
    let since = Instant::now();
    everything.iter().for_each(|pid| signal(*pid, "CONT"));
    join_all(pids.keys().map(|instance| expect_exit(&system, instance, since))).await;
    system.stop().await
}
