//! `kill -9` of processes that hold work, or have held it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use testkit::{FLOWS, Line, Server, Stopped, System, until};

use crate::flow::{ALLOWANCE, LEASE, Running, expect_not_again, taken_over};

testkit::on_each_server!(
    kill_9_at_fifteen_moments_of_the_work,
    kill_9_at_the_edges_of_steps_and_amid_retries,
    kill_9_of_all_that_held_a_flow_while_it_sleeps,
);

/// Starts five flows of each kind one after the other. One kill of the process that holds them hits
/// each flow at a different moment of its work. Default lease.
async fn kill_9_at_fifteen_moments_of_the_work(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    join_all(FLOWS.map(async |flow| {
        let (name, group) = (flow.name, flow.working_group());
        let mut flows: Vec<Running> = Vec::new();
        let start = tokio::time::Instant::now();
        for n in 0..5 {
            // This is what sets the moments apart: a step takes 1 s.
            tokio::time::sleep_until(start + n * Duration::from_millis(650)).await;
            flows.push(Running::start(&system, name, &format!("{name}-{n}"), "work=6s").await);
        }
        let started = flows[4].at(&system, "step started", 1).await;
        assert_eq!(started.instance(), group, "work goes to the first process of a group");
        let killed = system.kill(group);
        let settled = join_all(flows.iter().map(|flow| flow.settled(&system, 6))).await;

        for (flow, settled) in flows.iter_mut().zip(&settled) {
            let after = taken_over(&system, &flow.worker, group, killed).await;
            println!(
                "{server:?}, lease {LEASE:?}: {} taken over {after:.3?} after kill -9, {} of 6 steps done",
                flow.id,
                settled.len()
            );
            assert!(after <= LEASE + ALLOWANCE, "{}: {after:?}", flow.id);
            flow.finish(&system).await;
            expect_not_again(&system, settled, killed);
        }
    }))
    .await;
    // What the launcher said about the takeover and the restart is true.
    let line = system.exit_line("service-b").await.text;
    let pid = system.pid("service-b");
    let start = format!(
        "service-b (pid {pid}) was killed (SIGKILL); service-b-replica takes over. Restart it with: "
    );
    assert!(line.starts_with(&start), "{line}");
    system.restart("service-b").await;
    let mut flow = Running::start(&system, "await-chain", "brought-back", "work=100ms").await;
    assert_eq!(flow.at(&system, "step started", 1).await.instance(), "service-b");
    flow.finish(&system).await;
    system.stop().await
}

/// Six groups at the same time, each at a moment that an event marks. Lease of 1 s.
async fn kill_9_at_the_edges_of_steps_and_amid_retries(server: Server) -> Stopped {
    const LEASE: Duration = Duration::from_secs(1);
    let system = System::start(server, &[("NODE_LEASE", "1s")]).await;
    let edges = [("step started", 1), ("step done", 1), ("step started", 2)];
    let working = FLOWS.into_iter().zip(edges).map(async |(flow, (message, n))| {
        let (name, group) = (flow.name, flow.working_group());
        let mut flow = Running::start(&system, name, &format!("edge-{name}"), "work=3s").await;
        flow.at(&system, message, n).await;
        let killed = system.kill(group);
        let settled = flow.settled(&system, 3).await;
        let after = taken_over(&system, &flow.worker, group, killed).await;
        println!("{server:?}, lease {LEASE:?}: {name}, killed at {message:?} {n}: {after:.3?}");
        assert!(after <= LEASE + ALLOWANCE, "{after:?}");
        flow.finish(&system).await;
        expect_not_again(&system, &settled, killed);
    });
    // Between two attempts of the step that fails, whichever process runs it.
    let failing = FLOWS.map(async |flow| {
        let (name, fails) = (flow.name, flow.fails);
        let mut flow = Running::start(&system, name, &format!("retry-{name}"), "fail=4").await;
        let promise = flow.promises[fails].clone();
        let failed = |line: &Line| line.in_run("step failed, retrying", &promise);
        let failed = system.log.lines("two failed attempts", 2, failed).await.remove(1);
        let killed = system.kill(failed.instance());
        let after = taken_over(&system, &promise, failed.instance(), killed).await;
        println!("{server:?}, lease {LEASE:?}: {name}, killed amid retries: {after:.3?}");
        assert!(after <= LEASE + ALLOWANCE, "{after:?}");
        flow.finish(&system).await;
    });
    futures_util::join!(join_all(working), join_all(failing));
    system.stop().await
}

/// No process holds a flow that sleeps. The last process that ran each of its functions is gone when
/// the flow wakes up.
async fn kill_9_of_all_that_held_a_flow_while_it_sleeps(server: Server) -> Stopped {
    let system = System::start(server, &[("NODE_LEASE", "1s")]).await;
    join_all(FLOWS.map(async |flow| {
        let (name, sleeper) = (flow.name, flow.sleeps);
        let mut flow = Running::start(&system, name, &format!("asleep-{name}"), "sleep=6s").await;
        let (resonate, promises) = (system.resonate(), flow.promises.clone());
        until(&system.log, "a flow that only sleeps", async || {
            // In reverse: a function's effect on its caller precedes its own suspension.
            for promise in promises.iter().rev() {
                let task = resonate.task(promise).await;
                if !matches!(task["state"].as_str(), Some("suspended" | "fulfilled")) {
                    return None;
                }
            }
            Some(())
        })
        .await;
        let timer = resonate.promise(&format!("{}.0", promises[sleeper])).await;
        let due = UNIX_EPOCH + Duration::from_millis(timer["timeoutAt"].as_u64().unwrap());
        let is_run = |line: &Line, promise: &str| line.in_run("run started", promise);
        let last = promises.each_ref().map(|promise| {
            system.log.all(|line| is_run(line, promise)).pop().unwrap().instance().to_owned()
        });
        for instance in &last {
            system.kill(instance);
        }
        let (killed, left) = (Instant::now(), due.duration_since(SystemTime::now()));
        let due = killed + left.expect("killed before the timer ends");
        flow.finish(&system).await;

        let is_any_run = |line: &Line| promises.iter().any(|promise| is_run(line, promise));
        let woken = system.log.all(|line| line.at > killed && is_any_run(line));
        let after = woken[0].at.saturating_duration_since(due);
        println!("{server:?}: {name} woke {after:.3?} after its timer, without {last:?}");
        assert!(woken.iter().all(|line| !last.contains(&line.instance().to_owned())), "{woken:#?}");
        assert!(is_run(&woken[0], &promises[sleeper]), "{woken:#?}");
        // No lease has to expire first.
        assert!(after <= ALLOWANCE, "{after:?}");
    }))
    .await;
    system.stop().await
}
