//! Processes that are frozen, as by `docker pause`: alive, connected, and silent.

use std::time::Instant;

use futures_util::future::join_all;
use testkit::{FLOWS, Line, Server, Stopped, System, process::signal};

use crate::flow::{
    ALLOWANCE, LEASE, LUCK, Running, expect_no_stored_step_again, expect_not_again, expect_starts,
    taken_over,
};

testkit::on_each_server!(
    work_goes_to_the_first_process_of_a_group,
    calls_pass_by_a_frozen_process,
    a_process_frozen_amid_its_work_is_replaced_and_does_no_harm_when_it_wakes_up,
    everything_that_was_frozen_together_ends_right,
);

/// Freezes a process. Returns the moment just before.
fn freeze(system: &System, instance: &str) -> Instant {
    let at = Instant::now();
    signal(system.pid(instance), "STOP");
    at
}

fn wake(system: &System, instance: &str) {
    signal(system.pid(instance), "CONT");
}

/// Five flows of each kind: a server that picks processes at random would often pick the replicas.
async fn work_goes_to_the_first_process_of_a_group(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    join_all(FLOWS.map(async |flow| {
        for n in 0..5 {
            let id = format!("first-{}-{n}", flow.name);
            let mut running = Running::start(&system, flow.name, &id, "work=100ms").await;
            let started = running.at(&system, "step started", 1).await;
            assert_eq!(started.instance(), flow.working_group(), "{id}");
            running.finish(&system).await;
            expect_starts(&system, &running.step(1), 1);
        }
    }))
    .await;
    // A replica that was refused the task says nothing about it.
    let complaints = ["\"level\":\"WARN\"", "\"level\":\"ERROR\""];
    let complains = |line: &Line| complaints.iter().any(|level| line.text.contains(level));
    let lines = system.log.all(complains);
    assert!(lines.is_empty(), "{lines:#?}");
    system.stop().await
}

async fn calls_pass_by_a_frozen_process(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    let groups = FLOWS.map(|flow| flow.working_group());
    for group in groups {
        freeze(&system, group);
    }
    let working = FLOWS.map(async |flow| {
        let id = format!("passed-by-{}", flow.name);
        let start = Instant::now();
        let mut running = Running::start(&system, flow.name, &id, "work=1s").await;
        let started = running.at(&system, "step started", 1).await;
        let after = started.at - start;
        println!("{server:?}: {id} began to work after {after:.3?}");
        assert_eq!(started.instance(), format!("{}-replica", flow.working_group()));
        assert!(after <= LUCK, "{after:?}");
        running.finish(&system).await;
        running
    });
    let plain = FLOWS.map(async |flow| {
        let start = Instant::now();
        let path = format!("/{}?id=plain-{}", flow.name, flow.name);
        system.http().post(&path).await.expect_message(flow.message());
        let after = start.elapsed();
        println!("{server:?}: a plain {} took {after:.3?}", flow.name);
        // Two messages to the group: the call, and the end of its wait.
        assert!(after <= 2 * LUCK, "{after:?}");
    });
    let (flows, _) = futures_util::join!(join_all(working), join_all(plain));
    // What they have received and not read says nothing new.
    groups.iter().for_each(|group| wake(&system, group));
    let mut again = Running::start(&system, "await-chain", "awake", "work=100ms").await;
    assert_eq!(again.at(&system, "step started", 1).await.instance(), "service-b");
    again.finish(&system).await;
    flows.iter().for_each(|flow| expect_starts(&system, &flow.step(1), 1));
    system.stop().await
}

async fn a_process_frozen_amid_its_work_is_replaced_and_does_no_harm_when_it_wakes_up(
    server: Server,
) -> Stopped {
    let system = System::start(server, &[]).await;
    join_all(FLOWS.map(async |flow| {
        let (name, group) = (flow.name, flow.working_group());
        let mut flow = Running::start(&system, name, &format!("frozen-{name}"), "work=5s").await;
        assert_eq!(flow.at(&system, "step started", 2).await.instance(), group);
        let frozen = freeze(&system, group);
        let settled = flow.settled(&system, 5).await;
        let after = taken_over(&system, &flow.worker, group, frozen).await;
        println!("{server:?}, lease {LEASE:?}: {name} taken over {after:.3?} after SIGSTOP");
        assert!(after <= LEASE + ALLOWANCE + LUCK, "{after:?}");

        // It wakes up in a step that another process runs too.
        wake(&system, group);
        let woken = Instant::now();
        let abandoned =
            |line: &Line| line.about("run abandoned", &flow.worker) && line.instance() == group;
        system.log.line(&format!("{group} to abandon its run"), abandoned).await;
        flow.finish(&system).await;
        expect_not_again(&system, &settled, frozen);
        for n in 3..=5 {
            expect_starts(&system, &flow.step(n), 1);
        }
        let works = |line: &Line| line.says("step started") && line.instance() == group;
        let steps = system.log.all(|line| line.at > woken && works(line));
        assert!(steps.is_empty(), "{steps:#?}");
    }))
    .await;
    system.stop().await
}

async fn everything_that_was_frozen_together_ends_right(server: Server) -> Stopped {
    let system = System::start_cabled(server, &[]).await;
    let mut flows = Vec::new();
    for flow in FLOWS {
        for (n, options) in ["work=3s", "sleep=3s", "fail=4", "work=2s&sleep=1s"].iter().enumerate()
        {
            let id = format!("together-{}-{n}", flow.name);
            flows.push(Running::start(&system, flow.name, &id, options).await);
        }
    }
    flows[0].at(&system, "step started", 2).await;
    let pids = system.all_pids().await;
    pids.iter().for_each(|pid| signal(*pid, "STOP"));
    tokio::time::sleep(LEASE * 3 / 2).await;
    pids.iter().for_each(|pid| signal(*pid, "CONT"));
    let woken = Instant::now();
    join_all(flows.iter_mut().map(|flow| flow.finish(&system))).await;
    println!("{server:?}: the last flow ended {:.3?} after everything was woken", woken.elapsed());
    expect_no_stored_step_again(&system).await;
    system.stop().await
}
