//! The traces of flows whose processes are killed, drained or restarted.

use std::time::Duration;

use futures_util::join;
use reqwest::Method;
use testkit::{Line, Server, Span, Stopped, process, until};

use crate::{
    invariants::{Shape, shape},
    observed::{Observed, PLAIN, one, trace_of},
    tree::View,
};

testkit::on_each_server!(
    a_holder_that_is_killed_leaves_a_whole_trace,
    a_second_takeover_of_a_step_names_the_process_that_lost_it,
    a_holder_that_is_drained_is_no_takeover,
    a_holder_that_is_released_in_the_middle_of_a_step_is_no_takeover,
    a_gateway_that_is_killed_and_a_request_that_is_sent_again_are_one_trace,
);

/// Tells the processes of service-b apart.
const HOLDERS: View = &["service-b"];

const LEASE: Duration = Duration::from_secs(2);

/// What the answer to a heartbeat may take.
const ALLOWANCE: Duration = Duration::from_millis(200);

async fn a_holder_that_is_killed_leaves_a_whole_trace(server: Server) -> Stopped {
    let system = Observed::start(server, &[("NODE_LEASE", "2s")]).await;
    let http = system.http();
    // Because of the sleep, bar has to wait for baz.
    let request = http.post("/await-chain?id=crash&work=6s&sleep=1s");
    let crash = async {
        let trace = system.trace_of("crash").await;
        // The spans of the first three steps have arrived, and the fourth step runs.
        system.span("the third step", |span| span.name == "work 3/6").await;
        let killed = system.kill("service-b");
        // Before the end of the flow: its fourth step was interrupted.
        expect_tree_for_now!(system, &trace, HOLDERS, @"
    gateway: await-chain [internal] promise=crash
      gateway: rpc foo [producer] promise=crash group=service-a
        service-a: foo on service-a* [consumer] promise=crash group=service-a outcome=suspended
        service-a: rpc bar [producer] promise=crash.0 group=service-b
          service-b: lease on service-b [internal] promise=crash.0 group=service-b
          service-b-replica: lease on service-b-replica [internal] promise=crash.0 group=service-b
          service-b-replica: lease of service-b expired [internal] promise=crash.0 group=service-b lease=service-b ERROR no heartbeat for the length of the lease
          service-b: work 1/6 [internal] promise=crash.0.0 group=service-b state=resolved
          service-b: work 2/6 [internal] promise=crash.0.1 group=service-b state=resolved
          service-b: work 3/6 [internal] promise=crash.0.2 group=service-b state=resolved
          service-b-replica: work 4/6 [internal] promise=crash.0.3 group=service-b state=resolved takeover
            - takeover by service-b-replica
          service-b-replica: work 5/6 [internal] promise=crash.0.4 group=service-b state=resolved
    ");
        killed
    };
    let (answer, killed) = join!(request, crash);
    answer.expect_message(3);
    // There is no run span of the dead process.
    let spans = expect_tree!(system, trace_of(&answer), HOLDERS, @"
    gateway: await-chain [internal] promise=crash
      gateway: POST /await-chain [server] route=/await-chain status=200
      gateway: rpc foo [producer] promise=crash group=service-a
        service-a: foo [internal] promise=crash group=service-a state=resolved
        service-a: foo on service-a* [consumer] promise=crash group=service-a outcome=fulfilled
        service-a: rpc bar [producer] promise=crash.0 group=service-b
          service-b-replica: bar [internal] promise=crash.0 group=service-b state=resolved
          service-b-replica: bar on service-b-replica [internal] promise=crash.0 group=service-b outcome=fulfilled
          service-b-replica: bar on service-b-replica [internal] promise=crash.0 group=service-b outcome=suspended takeover
          service-b: lease on service-b [internal] promise=crash.0 group=service-b
          service-b-replica: lease on service-b-replica [internal] promise=crash.0 group=service-b
          service-b-replica: lease of service-b expired [internal] promise=crash.0 group=service-b lease=service-b ERROR no heartbeat for the length of the lease
          service-b: work 1/6 [internal] promise=crash.0.0 group=service-b state=resolved
          service-b: work 2/6 [internal] promise=crash.0.1 group=service-b state=resolved
          service-b: work 3/6 [internal] promise=crash.0.2 group=service-b state=resolved
          service-b-replica: work 4/6 [internal] promise=crash.0.3 group=service-b state=resolved takeover
            - takeover by service-b-replica
          service-b-replica: work 5/6 [internal] promise=crash.0.4 group=service-b state=resolved
          service-b-replica: work 6/6 [internal] promise=crash.0.5 group=service-b state=resolved
          service-b-replica: rpc baz [producer] promise=crash.0.6 group=service-c
            service-c: baz [internal] promise=crash.0.6 group=service-c state=resolved
            service-c: baz on service-c* [consumer] promise=crash.0.6 group=service-c outcome=fulfilled
            service-c: sleep 1s [internal] promise=crash.0.6.0
    ");
    eprintln!("await chain with a crash on {server:?}: {} spans", spans.len());

    let runs = || spans.iter().filter(|span| span.name == "bar on service-b-replica");
    let takeover = runs().find(|run| run.takeover()).unwrap();
    assert_eq!(takeover.version(), 2);
    let lost = one(&spans, "lease of service-b expired");
    // It begins with the last sign of the dead process: the beginning of the fourth step, or later.
    assert!(lost.end == takeover.start && lost.duration() <= LEASE, "{lost:#?}");
    let step = one(&spans, "work 4/6");
    assert!(step.start < killed && takeover.start < step.end, "{step:#?} killed {killed:?}");
    assert!(killed < takeover.start && step.duration() > Duration::from_secs(2), "{step:#?}");
    // The lease spans of the dead process end before its death, and no two overlap.
    let mut leases: Vec<_> = spans
        .iter()
        .filter(|span| shape(span) == Shape::Lease && span.promise() == "crash.0")
        .collect();
    leases.sort_by_key(|lease| lease.start);
    assert!(leases.windows(2).all(|pair| pair[0].end <= pair[1].start), "{leases:#?}");
    // A timer, not the first heartbeat, emits the first one: it arrives early.
    let first = leases[0].duration();
    assert!(first >= Duration::from_millis(200) && first < LEASE / 2, "{first:?}: {leases:#?}");
    let of_dead = |lease: &&&Span| lease.instance() == "service-b";
    let last = leases.iter().rfind(of_dead).unwrap();
    assert!(last.end < killed, "{last:#?} killed {killed:?}");
    let dead = killed.duration_since(last.end).unwrap();
    assert!(dead < LEASE, "the last heartbeat has its span: {last:#?} killed {killed:?}");
    assert!(last.end <= lost.start + ALLOWANCE, "{last:#?} overlaps {lost:#?}");
    system.stop().await
}

async fn a_second_takeover_of_a_step_names_the_process_that_lost_it(server: Server) -> Stopped {
    let system = Observed::start(server, &[("NODE_LEASE", "1s")]).await;
    let http = system.http();
    let request = http.post("/await-chain?id=twice&work=3s");
    let kills = async {
        let begins = |line: &Line, instance: &str| {
            line.in_run("step started", "twice.0")
                && line.field("step") == Some("work 2/3")
                && line.instance() == instance
        };
        system.log.line("the second step", |line| begins(line, "service-b")).await;
        system.kill("service-b");
        let again = |line: &Line| begins(line, "service-b-replica");
        system.log.line("its second attempt", again).await;
        until(&system.log, "the mark", async || {
            system.resonate().settled("twice.0.taken-over-2").await.then_some(())
        })
        .await;
        // A process that is killed loses what it has not exported.
        system.span("the first lost lease", |span| span.name.ends_with(" expired")).await;
        system.kill("service-b-replica");
        system.restart("service-b").await;
    };
    let (answer, ()) = join!(request, kills);
    answer.expect_message(3);
    let trace = trace_of(&answer).to_owned();
    system.span("the end", |span| span.trace == trace && span.kind == "server").await;
    let spans = system.collector.spans();
    let mut lost: Vec<_> = spans
        .iter()
        .filter(|span| shape(span) == Shape::LostLease && span.promise() == "twice.0")
        .map(|span| (span.version(), &*span.name))
        .collect();
    lost.sort_unstable();
    let expected = [(2, "lease of service-b expired"), (3, "lease of service-b-replica expired")];
    assert_eq!(lost, expected);
    system.stop().await
}

async fn a_holder_that_is_drained_is_no_takeover(server: Server) -> Stopped {
    let system = Observed::start(server, &[]).await;
    let http = system.http();
    let request = http.post("/await-chain?id=drain&work=3s&sleep=1s");
    let drain = async {
        let begins = |line: &Line| {
            line.in_run("step started", "drain.0") && line.field("step") == Some("work 2/3")
        };
        system.log.line("the second step", begins).await;
        process::signal(system.pid("service-b"), "TERM");
    };
    let (answer, ()) = join!(request, drain);
    answer.expect_message(3);
    expect_tree!(system, trace_of(&answer), HOLDERS, @"
        gateway: await-chain [internal] promise=drain
          gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=drain group=service-a
            service-a: foo [internal] promise=drain group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=drain group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=drain.0 group=service-b
              service-b-replica: bar [internal] promise=drain.0 group=service-b state=resolved
              service-b: bar on service-b [consumer] promise=drain.0 group=service-b outcome=released
              service-b-replica: bar on service-b-replica [internal] promise=drain.0 group=service-b outcome=fulfilled
              service-b: lease on service-b [internal] promise=drain.0 group=service-b
              service-b-replica: lease on service-b-replica [internal] promise=drain.0 group=service-b
              service-b: work 1/3 [internal] promise=drain.0.0 group=service-b state=resolved
              service-b: work 2/3 [internal] promise=drain.0.1 group=service-b state=resolved
              service-b-replica: work 3/3 [internal] promise=drain.0.2 group=service-b state=resolved
              service-b-replica: rpc baz [producer] promise=drain.0.3 group=service-c
                service-c: baz [internal] promise=drain.0.3 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=drain.0.3 group=service-c outcome=fulfilled
                service-c: sleep 1s [internal] promise=drain.0.3.0
    ");
    system.stop().await
}

async fn a_holder_that_is_released_in_the_middle_of_a_step_is_no_takeover(
    server: Server,
) -> Stopped {
    let system = Observed::start(server, &[("NODE_DRAIN", "100ms")]).await;
    let http = system.http();
    let request = http.post("/await-chain?id=deadline&work=3s");
    let drain = async {
        let begins = |line: &Line| {
            line.in_run("step started", "deadline.0") && line.field("step") == Some("work 2/3")
        };
        system.log.line("the second step", begins).await;
        process::signal(system.pid("service-b"), "TERM");
    };
    let (answer, ()) = join!(request, drain);
    answer.expect_message(3);
    expect_tree!(system, trace_of(&answer), HOLDERS, @"
        gateway: await-chain [internal] promise=deadline
          gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=deadline group=service-a
            service-a: foo [internal] promise=deadline group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=deadline group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=deadline.0 group=service-b
              service-b-replica: bar [internal] promise=deadline.0 group=service-b state=resolved
              service-b: bar on service-b [consumer] promise=deadline.0 group=service-b outcome=released
              service-b-replica: bar on service-b-replica [internal] promise=deadline.0 group=service-b outcome=fulfilled
              service-b: lease on service-b [internal] promise=deadline.0 group=service-b
              service-b-replica: lease on service-b-replica [internal] promise=deadline.0 group=service-b
              service-b: work 1/3 [internal] promise=deadline.0.0 group=service-b state=resolved
              service-b-replica: work 2/3 [internal] promise=deadline.0.1 group=service-b state=resolved
              service-b-replica: work 3/3 [internal] promise=deadline.0.2 group=service-b state=resolved
              service-b-replica: rpc baz [producer] promise=deadline.0.3 group=service-c
                service-c: baz [internal] promise=deadline.0.3 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=deadline.0.3 group=service-c outcome=fulfilled
    ");
    system.stop().await
}

async fn a_gateway_that_is_killed_and_a_request_that_is_sent_again_are_one_trace(
    server: Server,
) -> Stopped {
    let system = Observed::start(server, &[]).await;
    let http = system.http();
    let path = "/await-chain?id=again&work=4s";
    let request = http.send(Method::POST, path, &[]);
    let kill = async {
        let trace = system.trace_of("again").await;
        system.span("the call", |span| span.name == "rpc foo" && span.trace == trace).await;
        system.kill("gateway");
        trace
    };
    let (lost, trace) = join!(request, kill);
    lost.expect_err("the gateway was killed while it waited");
    // Nothing is without a parent, although the first request never ends.
    expect_tree_for_now!(system, &trace, PLAIN, @"
        gateway: await-chain [internal] promise=again
          gateway: rpc foo [producer] promise=again group=service-a
            service-a: foo on service-a* [consumer] promise=again group=service-a outcome=suspended
            service-a: rpc bar [producer] promise=again.0 group=service-b
              service-b: work 1/4 [internal] promise=again.0.0 group=service-b state=resolved
    ");

    let http = system.restart("gateway").await;
    let again = http.post(path).await;
    again.expect_start(3.into(), "again", true);
    assert_eq!(trace_of(&again), trace);
    expect_tree!(system, &trace, PLAIN, @"
        gateway: await-chain [internal] promise=again
          gateway: POST /await-chain [server] route=/await-chain status=200 reconnected
          gateway: rpc foo [producer] promise=again group=service-a
            service-a: foo [internal] promise=again group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=again group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=again.0 group=service-b
              service-b: bar [internal] promise=again.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=again.0 group=service-b outcome=fulfilled
              service-b: work 1/4 [internal] promise=again.0.0 group=service-b state=resolved
              service-b: work 2/4 [internal] promise=again.0.1 group=service-b state=resolved
              service-b: work 3/4 [internal] promise=again.0.2 group=service-b state=resolved
              service-b: work 4/4 [internal] promise=again.0.3 group=service-b state=resolved
              service-b: rpc baz [producer] promise=again.0.4 group=service-c
                service-c: baz [internal] promise=again.0.4 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=again.0.4 group=service-c outcome=fulfilled
    ");
    system.stop().await
}
