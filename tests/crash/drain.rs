//! Processes that are told to stop.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::{
    flow::{ALLOWANCE, FLOWS, Flow, LEASE, expect_begins, is_of_step, taken_over},
    support::{Line, Server, System, process},
};

/// A process that gives work back does so at once: far less than the lease of three seconds.
const AT_ONCE: Duration = Duration::from_secs(1);

/// SIGTERM: the moment of it, once the process has said that it stops.
async fn terminate(system: &System, instance: &str) -> Instant {
    let at = Instant::now();
    process::signal(system.pid(instance), "TERM");
    let stopping = |line: &Line| {
        line.at > at && line.instance() == instance && line.text.contains("\"stopping\"")
    };
    system.log.line("a process to stop", stopping).await;
    at
}

pub async fn a_stopped_process_finishes_its_step_and_hands_over(server: Server) {
    let system = System::start(server, &[]).await;
    join_all(FLOWS.map(async |(route, service)| {
        let mut flow = Flow::start(&system, route, &format!("stop-{route}"), "work=3s").await;
        assert_eq!(flow.at(&system, "step begins", 2).await.instance(), service);
        terminate(&system, service).await;
        let done = flow.at(&system, "step done", 2).await;
        assert_eq!(done.instance(), service, "it finishes the step that it has begun");
        let next = flow.at(&system, "step begins", 3).await;
        assert_eq!(next.instance(), format!("{service}-replica"));
        let after = next.at - done.at;
        println!(
            "{server:?}: {route} went on elsewhere {after:.3?} after the step of a stopped process"
        );
        assert!(after <= AT_ONCE, "{after:?}");
        let line = system.obituary(service).await.text;
        assert!(line.contains(") has stopped: "), "exit code 0 is said like that: {line}");
        flow.finish(&system).await;
        for n in 1..=3 {
            expect_begins(&system, &flow.step(n), 1);
        }
    }))
    .await;
}

pub async fn a_second_signal_ends_a_process_at_once(server: Server) {
    let system = System::start(server, &[("NODE_LEASE", "1s")]).await;
    let mut flow = Flow::start(&system, "await-chain", "twice", "work=2s").await;
    flow.at(&system, "step begins", 1).await;
    terminate(&system, "service-b").await;
    let second = Instant::now();
    process::signal(system.pid("service-b"), "TERM");
    let line = system.obituary("service-b").await;
    assert!(line.text.contains(") ended with exit code 130: "), "{}", line.text);
    let done = |line: &Line| {
        line.instance() == "service-b" && is_of_step(line, "step done", &flow.step(1))
    };
    assert!(system.log.all(done).is_empty(), "it did not wait for its step");
    // Nothing was given back, so the lease has to end.
    let after = taken_over(&system, &flow.worker, "service-b", second).await;
    println!("{server:?}, lease 1s: went on {after:.3?} after the second signal");
    assert!(after <= Duration::from_secs(1) + ALLOWANCE, "{after:?}");
    flow.finish(&system).await;
}

pub async fn a_step_longer_than_the_drain_is_released(server: Server) {
    const DRAIN: Duration = Duration::from_millis(300);
    let system = System::start(server, &[("NODE_DRAIN", "300ms")]).await;
    let mut flow = Flow::start(&system, "await-chain", "long", "work=2s").await;
    flow.at(&system, "step begins", 1).await;
    let stopped = terminate(&system, "service-b").await;
    let line = system.obituary("service-b").await;
    assert!(line.text.contains(") has stopped: "), "{}", line.text);
    let drained = |line: &Line| {
        line.about(
            "still running at the end of the drain: released, its step will run again",
            &flow.worker,
        )
    };
    assert_eq!(system.log.all(drained).len(), 1);
    let after = taken_over(&system, &flow.worker, "service-b", stopped).await;
    println!("{server:?}, drain {DRAIN:?}: went on {after:.3?} after SIGTERM");
    assert!(after >= DRAIN && after <= DRAIN + AT_ONCE && after < LEASE, "{after:?}");
    flow.finish(&system).await;
    expect_begins(&system, &flow.step(1), 2);
    expect_begins(&system, &flow.step(2), 1);
}
