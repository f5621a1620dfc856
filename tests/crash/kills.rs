//! `kill -9` of processes that hold work, or held it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;

use crate::{
    flow::{ALLOWANCE, FLOWS, Flow, LEASE, expect_not_again, taken_over},
    support::{Line, Server, System, until},
};

/// Five flows of each kind, begun one after the other, so that one kill of the process that holds
/// them finds each at another moment. Default lease.
pub async fn kill_9_at_fifteen_moments_of_the_work(server: Server) {
    let system = System::start(server, &[]).await;
    join_all(FLOWS.map(async |(route, service)| {
        let mut flows: Vec<Flow> = Vec::new();
        for n in 0..5 {
            flows.push(Flow::start(&system, route, &format!("{route}-{n}"), "work=6s").await);
            if n < 4 {
                // What sets the moments apart, in steps of 1 s. The first flow has much left to do.
                tokio::time::sleep(Duration::from_millis(650)).await;
            }
        }
        let begun = flows[4].at(&system, "step begins", 1).await;
        assert_eq!(begun.instance(), service, "a flow that works prefers the first process");
        let killed = system.kill(service);
        let settled = join_all(flows.iter().map(|flow| flow.settled(&system, 6))).await;

        for (flow, settled) in flows.iter_mut().zip(&settled) {
            let after = taken_over(&system, &flow.worker, service, killed).await;
            println!(
                "{server:?}, lease {LEASE:?}: {} went on {after:.3?} after kill -9, {} of 6 steps done",
                flow.id,
                settled.len()
            );
            assert!(after <= LEASE + ALLOWANCE, "{}: {after:?}", flow.id);
            flow.finish(&system).await;
            expect_not_again(&system, settled, killed);
        }
    }))
    .await;
    // The launcher has said who takes over, and how to have the dead one back. That is true.
    let line = system.obituary("service-b").await.text;
    let begins = format!("service-b (pid {}) was killed (SIGKILL): ", system.pid("service-b"));
    assert!(
        line.starts_with(&begins) && line.contains(": service-b-replica takes over. "),
        "{line}"
    );
    system.start_again("service-b").await;
    let mut flow = Flow::start(&system, "await-chain", "brought-back", "work=100ms").await;
    assert_eq!(flow.at(&system, "step begins", 1).await.instance(), "service-b");
    flow.finish(&system).await;
}

/// Six groups at once, each at a moment that a log line tells. A lease of one second.
pub async fn kill_9_at_the_edges_of_steps_and_amid_retries(server: Server) {
    const LEASE: Duration = Duration::from_secs(1);
    let system = System::start(server, &[("NODE_LEASE", "1s")]).await;
    let working = [("step begins", 1), ("step done", 1), ("step begins", 2)];
    let working = FLOWS.into_iter().zip(working).map(async |((route, service), (message, n))| {
        let mut flow = Flow::start(&system, route, &format!("edge-{route}"), "work=3s").await;
        flow.at(&system, message, n).await;
        let killed = system.kill(service);
        let settled = flow.settled(&system, 3).await;
        let after = taken_over(&system, &flow.worker, service, killed).await;
        println!("{server:?}, lease {LEASE:?}: {route}, killed at {message:?} {n}: {after:.3?}");
        assert!(after <= LEASE + ALLOWANCE, "{after:?}");
        flow.finish(&system).await;
        expect_not_again(&system, &settled, killed);
    });
    // `baz`, `cog` and `dop`, whichever process runs them, between two attempts of a step.
    let failing = FLOWS.map(async |(route, _)| {
        let mut flow = Flow::start(&system, route, &format!("retry-{route}"), "fail=4").await;
        let promise = flow.promises[2].clone();
        let failed = |line: &Line| line.in_run("step failed, will be tried again", &promise);
        let failed = system.log.lines("two failed attempts", 2, failed).await.remove(1);
        let killed = system.kill(failed.instance());
        let after = taken_over(&system, &promise, failed.instance(), killed).await;
        println!("{server:?}, lease {LEASE:?}: {route}, killed amid retries: {after:.3?}");
        assert!(after <= LEASE + ALLOWANCE, "{after:?}");
        flow.finish(&system).await;
    });
    futures_util::join!(join_all(working), join_all(failing));
}

/// Nobody holds a flow that sleeps. Whoever ran one of its functions last is gone when it wakes.
pub async fn kill_9_of_all_that_held_a_flow_while_it_sleeps(server: Server) {
    let system = System::start(server, &[("NODE_LEASE", "1s")]).await;
    // The functions that sleep: baz, cog and rax.
    join_all(FLOWS.into_iter().zip([2, 2, 1]).map(async |((route, _), sleeper)| {
        let id = format!("asleep-{route}");
        let mut flow = Flow::start(&system, route, &id, "sleep=3s").await;
        let (resonate, promises) = (system.resonate(), flow.promises.clone());
        until(&system.log, "nothing to be left to do but to sleep", async || {
            // The last first: what it did to those before it is then seen.
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
        let runs_of = |line: &Line, promise: &str| line.in_run("run begins", promise);
        let last = promises.each_ref().map(|promise| {
            system.log.all(|line| runs_of(line, promise)).pop().unwrap().instance().to_owned()
        });
        for instance in &last {
            system.kill(instance);
        }
        let (killed, left) = (Instant::now(), due.duration_since(SystemTime::now()));
        let due = killed + left.expect("killed before the timer ends");
        flow.finish(&system).await;

        let any = |line: &Line| promises.iter().any(|promise| runs_of(line, promise));
        let woken = system.log.all(|line| line.at > killed && any(line));
        let after = woken[0].at.saturating_duration_since(due);
        println!("{server:?}: {route} woke {after:.3?} after its timer, without {last:?}");
        assert!(woken.iter().all(|line| !last.contains(&line.instance().to_owned())), "{woken:#?}");
        assert!(runs_of(&woken[0], &promises[sleeper]), "{woken:#?}");
        // No lease is in the way here.
        assert!(after <= ALLOWANCE, "{after:?}");
    }))
    .await;
}
