//! The Resonate Server away for a while. Only the official one remembers what it knew.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::{
    flow::{FLOWS, Flow, expect_begins, is_of_step},
    support::{Line, Server, System},
};

/// Flows are to go on within two seconds of its return; a test gives a busy machine one more.
const GOES_ON: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_server_away_for_six_seconds_costs_at_most_the_step_in_flight() {
    if !Server::official_is_here("a_server_away_for_six_seconds_costs_at_most_the_step_in_flight") {
        return;
    }
    let system = System::start(Server::Official, &[]).await;
    let mut flows = Vec::new();
    for (route, _) in FLOWS {
        flows.push(Flow::start(&system, route, &format!("away-{route}"), "work=3s").await);
    }
    let mut asleep = Flow::start(&system, "await-chain", "away-asleep", "sleep=4s").await;
    join_all(flows.iter().map(|flow| flow.at(&system, "step begins", 2))).await;
    // The second step, of one second, ends while the server is away; so does the sleep.
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
    asleep.finish(&system).await;
}
