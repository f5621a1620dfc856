//! The Resonate Server away for a while. Only the official one remembers what it knew.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    flow::{FLOWS, Flow, expect_begins, is_of_step},
    support::{Line, Server, System, until},
};

/// Flows are to go on within two seconds of its return; a test gives a busy machine one more.
const GOES_ON: Duration = Duration::from_secs(3);

/// How long a request may go on waiting for the result of a flow that has ended.
const ANSWERED: Duration = Duration::from_secs(1);

/// The server's own remedy for messages that nobody received comes too late to be of help here.
const NO_RETRY: (&str, &str) = ("RESONATE_TASKS__RETRY_TIMEOUT", "30000");

/// It finds expired leases and timers before anybody is connected again: what it says then is lost.
const HASTY: (&str, &str) = ("RESONATE_TIMEOUTS__POLL_INTERVAL", "1");

#[tokio::test]
async fn a_server_away_for_six_seconds_costs_at_most_the_step_in_flight() {
    if !Server::official_is_here("a_server_away_for_six_seconds_costs_at_most_the_step_in_flight") {
        return;
    }
    let system = System::start(Server::Official, &[NO_RETRY, HASTY]).await;
    let mut flows = Vec::new();
    for (route, _) in FLOWS {
        flows.push(Flow::start(&system, route, &format!("away-{route}"), "work=3s").await);
    }
    join_all(flows.iter().map(|flow| flow.at(&system, "step begins", 2))).await;
    // The second step, of one second, ends while the server is away.
    let mut server = system.server.lock().await;
    let server = server.as_mut().expect("the official server was started by the test");
    server.kill();
    tokio::time::sleep(Duration::from_secs(6)).await;
    server.start().await;
    let back = Instant::now();

    for flow in &flows {
        let goes_on = |line: &Line| {
            line.at > back
                && (line.in_run("run begins", &flow.worker)
                    || is_of_step(line, "step begins", &flow.step(3)))
        };
        let after = system.log.line("the flow to go on", goes_on).await.at - back;
        println!("{} went on {after:.3?} after the return of the server", flow.id);
        assert!(after <= GOES_ON, "{}: {after:?}", flow.id);
    }
    // Their requests waited through all of it.
    for flow in &mut flows {
        flow.finish(&system).await;
        expect_begins(&system, &flow.step(1), 1);
        let begins = system.log.all(|line| is_of_step(line, "step begins", &flow.step(2)));
        assert!(begins.len() <= 2, "at most the step in flight runs again: {begins:#?}");
        expect_begins(&system, &flow.step(3), 1);
    }
}

#[tokio::test]
async fn a_server_that_restarts_at_once_costs_nothing() {
    if !Server::official_is_here("a_server_that_restarts_at_once_costs_nothing") {
        return;
    }
    let system = System::start(Server::Official, &[NO_RETRY]).await;
    let flows = ["await-chain", "fan-out-workflow"].map(async |route| {
        Flow::start(&system, route, &format!("restart-{route}"), "work=2s").await
    });
    let mut flows = join_all(flows).await;
    join_all(flows.iter().map(|flow| flow.at(&system, "step begins", 2))).await;
    {
        let mut server = system.server.lock().await;
        let server = server.as_mut().expect("the official server was started by the test");
        server.kill();
        server.start().await;
    }
    let http = system.http();
    join_all(flows.iter_mut().map(async |flow| {
        until(&system.log, &format!("the end of {}", flow.id), async || {
            let now = http.get(&format!("/flows/{}", flow.id)).await.body;
            (now["state"] == json!("resolved")).then_some(())
        })
        .await;
        let ended = Instant::now();
        flow.finish(&system).await;
        println!("{}: the request was answered {:.3?} after its end", flow.id, ended.elapsed());
        assert!(ended.elapsed() <= ANSWERED, "{:?}", ended.elapsed());
        for n in 1..=2 {
            expect_begins(&system, &flow.step(n), 1);
        }
    }))
    .await;
}

#[tokio::test]
async fn a_sleep_that_ends_while_the_server_is_away_ends_on_its_return() {
    if !Server::official_is_here("a_sleep_that_ends_while_the_server_is_away_ends_on_its_return") {
        return;
    }
    let system = System::start(Server::Official, &[]).await;
    let mut flow = Flow::start(&system, "await-chain", "asleep", "sleep=2s").await;
    let asleep = |line: &Line| line.in_run("run begins", &flow.promises[2]);
    system.log.line("the flow to fall asleep", asleep).await;
    let resonate = system.resonate();
    until(&system.log, "the timer", async || {
        (resonate.task(&flow.promises[2]).await["state"] == "suspended").then_some(())
    })
    .await;
    let mut server = system.server.lock().await;
    let server = server.as_mut().expect("the official server was started by the test");
    server.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.start().await;
    let back = Instant::now();
    let woken = |line: &Line| line.at > back && line.in_run("run begins", &flow.promises[2]);
    let after = system.log.line("the flow to wake", woken).await.at - back;
    println!("a sleep ended {after:.3?} after the return of the server");
    assert!(after <= GOES_ON, "{after:?}");
    flow.finish(&system).await;
}
