//! Processes that are told to stop.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testkit::{FLOWS, Line, Server, Stopped, System, process};

use crate::flow::{ALLOWANCE, LEASE, Running, expect_starts, is_of_step, taken_over};

testkit::on_each_server!(
    a_stopped_process_finishes_its_step_and_hands_over,
    a_second_signal_ends_a_process_at_once,
    a_step_longer_than_the_drain_is_released,
);

/// A released task is taken over at once: long before its lease of 3 s would expire.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Sends SIGTERM and waits until the process says that it stops. Returns the moment of the signal.
async fn terminate(system: &System, instance: &str) -> Instant {
    let at = Instant::now();
    process::signal(system.pid(instance), "TERM");
    let stopping =
        |line: &Line| line.at > at && line.instance() == instance && line.says("stopping");
    system.log.line(&format!("{instance} to stop"), stopping).await;
    at
}

async fn a_stopped_process_finishes_its_step_and_hands_over(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    join_all(FLOWS.map(async |flow| {
        let (name, group) = (flow.name, flow.working_group());
        let mut flow = Running::start(&system, name, &format!("stop-{name}"), "work=3s").await;
        assert_eq!(flow.at(&system, "step started", 2).await.instance(), group);
        terminate(&system, group).await;
        let done = flow.at(&system, "step done", 2).await;
        assert_eq!(done.instance(), group, "it finishes the step that it has started");
        let next = flow.at(&system, "step started", 3).await;
        assert_eq!(next.instance(), format!("{group}-replica"));
        let after = next.at - done.at;
        println!("{server:?}: {name} continued {after:.3?} after the step of a stopped process");
        assert!(after <= AT_ONCE, "{after:?}");
        let line = system.exit_line(group).await.text;
        assert!(line.contains(") exited with code 0; "), "{line}");
        flow.finish(&system).await;
        for n in 1..=3 {
            expect_starts(&system, &flow.step(n), 1);
        }
    }))
    .await;
    system.stop().await
}

async fn a_second_signal_ends_a_process_at_once(server: Server) -> Stopped {
    let system = System::start(server, &[("NODE_LEASE", "1s")]).await;
    let mut flow = Running::start(&system, "await-chain", "twice", "work=2s").await;
    flow.at(&system, "step started", 1).await;
    terminate(&system, "service-b").await;
    let second = Instant::now();
    process::signal(system.pid("service-b"), "TERM");
    let line = system.exit_line("service-b").await;
    assert!(line.text.contains(") exited with code 130; "), "{}", line.text);
    let done = |line: &Line| {
        line.instance() == "service-b" && is_of_step(line, "step done", &flow.step(1))
    };
    assert!(system.log.all(done).is_empty(), "it did not wait for its step");
    // It released nothing, so its lease has to expire.
    let after = taken_over(&system, &flow.worker, "service-b", second).await;
    println!("{server:?}, lease 1s: taken over {after:.3?} after the second signal");
    assert!(after <= Duration::from_secs(1) + ALLOWANCE, "{after:?}");
    flow.finish(&system).await;
    system.stop().await
}

async fn a_step_longer_than_the_drain_is_released(server: Server) -> Stopped {
    const DRAIN: Duration = Duration::from_millis(300);
    const RELEASED: &str =
        "drain deadline reached: released in the middle of a step, which will run again";
    let system = System::start(server, &[("NODE_DRAIN", "300ms")]).await;
    let mut flow = Running::start(&system, "await-chain", "long", "work=2s").await;
    flow.at(&system, "step started", 1).await;
    let stopped = terminate(&system, "service-b").await;
    let line = system.exit_line("service-b").await;
    assert!(line.text.contains(") exited with code 0; "), "{}", line.text);
    assert_eq!(system.log.all(|line| line.about(RELEASED, &flow.worker)).len(), 1);
    let after = taken_over(&system, &flow.worker, "service-b", stopped).await;
    println!("{server:?}, drain {DRAIN:?}: taken over {after:.3?} after SIGTERM");
    assert!(after >= DRAIN && after <= DRAIN + AT_ONCE && after < LEASE, "{after:?}");
    flow.finish(&system).await;
    expect_starts(&system, &flow.step(1), 2);
    expect_starts(&system, &flow.step(2), 1);
    system.stop().await
}
