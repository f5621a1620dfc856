//! The Resonate Server is down for a while. Only the official server remembers its state.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use testkit::{FLOWS, Line, Server, Stopped, System, until};

use crate::flow::{Running, expect_starts, is_of_step};

testkit::on_the_official_server!(
    a_server_away_for_six_seconds_costs_at_most_the_step_in_flight,
    a_server_that_restarts_at_once_costs_nothing,
    a_server_that_is_back_under_another_address_is_found,
    a_sleep_that_ends_while_the_server_is_away_ends_on_its_return,
);

/// Flows are due to continue within 2 s of the server's return. A test gives a busy machine more.
const CONTINUES: Duration = Duration::from_secs(3);

/// How long a request may wait for the result of a flow that has ended.
const ANSWERED: Duration = Duration::from_secs(1);

/// The server repeats messages that nobody received, but too late to help in these tests.
const NO_RETRY: (&str, &str) = ("RESONATE_TASKS__RETRY_TIMEOUT", "30000");

/// The server finds expired leases and timers before anybody has reconnected: these messages are
/// lost.
const EARLY: (&str, &str) = ("RESONATE_TIMEOUTS__POLL_INTERVAL", "1");

async fn a_server_away_for_six_seconds_costs_at_most_the_step_in_flight(server: Server) -> Stopped {
    let system = System::start(server, &[NO_RETRY, EARLY]).await;
    let mut flows = Vec::new();
    for flow in FLOWS {
        let id = format!("away-{}", flow.name);
        flows.push(Running::start(&system, flow.name, &id, "work=3s").await);
    }
    join_all(flows.iter().map(|flow| flow.at(&system, "step started", 2))).await;
    // The second step takes 1 s: it ends while the server is down.
    system.kill_server().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    system.start_server().await;
    let back = Instant::now();

    for flow in &flows {
        let continues = |line: &Line| {
            line.at > back
                && (line.in_run("run started", &flow.worker)
                    || is_of_step(line, "step started", &flow.step(3)))
        };
        let what = format!("{} to continue", flow.id);
        let after = system.log.line(&what, continues).await.at - back;
        println!("{} continued {after:.3?} after the server's return", flow.id);
        assert!(after <= CONTINUES, "{}: {after:?}", flow.id);
    }
    // Their requests have waited through all of it.
    for flow in &mut flows {
        flow.finish(&system).await;
        expect_starts(&system, &flow.step(1), 1);
        let starts = system.log.all(|line| is_of_step(line, "step started", &flow.step(2)));
        assert!(starts.len() <= 2, "at most the step in flight runs again: {starts:#?}");
        expect_starts(&system, &flow.step(3), 1);
    }
    system.stop().await
}

async fn a_server_that_restarts_at_once_costs_nothing(server: Server) -> Stopped {
    let system = System::start(server, &[NO_RETRY]).await;
    let flows = ["await-chain", "fan-out-workflow"].map(async |name| {
        Running::start(&system, name, &format!("restart-{name}"), "work=2s").await
    });
    let mut flows = join_all(flows).await;
    join_all(flows.iter().map(|flow| flow.at(&system, "step started", 2))).await;
    system.kill_server().await;
    system.start_server().await;
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
            expect_starts(&system, &flow.step(n), 1);
        }
    }))
    .await;
    system.stop().await
}

async fn a_server_that_is_back_under_another_address_is_found(server: Server) -> Stopped {
    let system = System::start_cabled(server, &[]).await;
    let flows = FLOWS.map(async |flow| {
        let id = format!("moved-{}", flow.name);
        let flow = Running::start(&system, flow.name, &id, "work=3s").await;
        flow.at(&system, "step started", 2).await;
        flow
    });
    let mut flows = join_all(flows).await;
    system.kill_server().await;
    system.move_server().await;
    let back = Instant::now();
    join_all(flows.iter_mut().map(async |flow| {
        flow.finish(&system).await;
        println!("{} ended {:.3?} after the server was back", flow.id, back.elapsed());
        for n in 1..=3 {
            expect_starts(&system, &flow.step(n), 1);
        }
    }))
    .await;
    system.stop().await
}

async fn a_sleep_that_ends_while_the_server_is_away_ends_on_its_return(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    let mut flow = Running::start(&system, "await-chain", "asleep", "sleep=2s").await;
    let sleeper = flow.promises[flow.flow.sleeps].clone();
    let runs = |line: &Line| line.in_run("run started", &sleeper);
    system.log.line("a run of the function that sleeps", runs).await;
    let resonate = system.resonate();
    until(&system.log, "its suspension", async || {
        (resonate.task(&sleeper).await["state"] == "suspended").then_some(())
    })
    .await;
    system.kill_server().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    system.start_server().await;
    let back = Instant::now();
    let woken = |line: &Line| line.at > back && runs(line);
    let after = system.log.line("the flow to wake up", woken).await.at - back;
    println!("a sleep ended {after:.3?} after the server's return");
    assert!(after <= CONTINUES, "{after:?}");
    flow.finish(&system).await;
    system.stop().await
}
