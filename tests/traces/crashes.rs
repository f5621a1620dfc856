//! The traces of flows whose processes are killed, drained or restarted.

use std::time::Duration;

use futures_util::join;
use reqwest::Method;

use crate::{
    collector::Span,
    invariants::{Shape, shape},
    observed::{Observed, PLAIN, one, trace_of},
    support::{Http, Line, Server, process},
    tree::View,
};

crate::on_each_server!(
    a_holder_that_is_killed_leaves_a_whole_trace,
    a_holder_that_is_drained_is_no_takeover,
    a_gateway_that_is_killed_leaves_the_call_as_the_root,
);

/// The processes of service-b are told apart.
const HOLDERS: View = &["service-b"];

const LEASE: Duration = Duration::from_secs(2);

/// Step 4 of 6 is interrupted; this is seen before the flow has ended.
const IN_FLIGHT: &str = "
    ? gateway: rpc foo [producer] promise=crash group=service-a
      service-a: foo on service-a* [internal] promise=crash group=service-a outcome=suspended
      service-a: rpc bar [producer] promise=crash.0 group=service-b
        service-b: lease on service-b [internal] promise=crash.0 group=service-b
        service-b-replica: lease on service-b-replica [internal] promise=crash.0 group=service-b
        service-b-replica: lease of service-b expired [internal] promise=crash.0 group=service-b lease=service-b ERROR no heartbeat came for as long as the lease lasts
        service-b: work 1/6 [internal] promise=crash.0.0 state=resolved
        service-b: work 2/6 [internal] promise=crash.0.1 state=resolved
        service-b: work 3/6 [internal] promise=crash.0.2 state=resolved
        service-b-replica: work 4/6 [internal] promise=crash.0.3 state=resolved takeover
          - takeover by service-b-replica
        service-b-replica: work 5/6 [internal] promise=crash.0.4 state=resolved
";

/// The same when it has ended. There is no run of the dead process.
const AFTERWARDS: &str = "
    gateway: POST /await-chain [server] route=/await-chain status=200
      gateway: rpc foo [producer] promise=crash group=service-a
        service-a: foo [consumer] promise=crash group=service-a state=resolved
        service-a: foo on service-a* [internal] promise=crash group=service-a outcome=fulfilled
        service-a: rpc bar [producer] promise=crash.0 group=service-b
          service-b-replica: bar [consumer] promise=crash.0 group=service-b state=resolved
          service-b-replica: bar on service-b-replica [internal] promise=crash.0 group=service-b outcome=fulfilled
          service-b-replica: bar on service-b-replica [internal] promise=crash.0 group=service-b outcome=suspended takeover
          service-b: lease on service-b [internal] promise=crash.0 group=service-b
          service-b-replica: lease on service-b-replica [internal] promise=crash.0 group=service-b
          service-b-replica: lease of service-b expired [internal] promise=crash.0 group=service-b lease=service-b ERROR no heartbeat came for as long as the lease lasts
          service-b: work 1/6 [internal] promise=crash.0.0 state=resolved
          service-b: work 2/6 [internal] promise=crash.0.1 state=resolved
          service-b: work 3/6 [internal] promise=crash.0.2 state=resolved
          service-b-replica: work 4/6 [internal] promise=crash.0.3 state=resolved takeover
            - takeover by service-b-replica
          service-b-replica: work 5/6 [internal] promise=crash.0.4 state=resolved
          service-b-replica: work 6/6 [internal] promise=crash.0.5 state=resolved
          service-b-replica: rpc baz [producer] promise=crash.0.6 group=service-c
            service-c: baz [consumer] promise=crash.0.6 group=service-c state=resolved
            service-c: baz on service-c* [internal] promise=crash.0.6 group=service-c outcome=fulfilled
            service-c: sleep 1s [internal] promise=crash.0.6.0
";

async fn a_holder_that_is_killed_leaves_a_whole_trace(server: Server) {
    let system = Observed::start(server, &[("NODE_LEASE", "2s")]).await;
    let http = system.http();
    // The sleep makes sure that bar has to wait for baz.
    let request = http.post("/await-chain?id=crash&work=6s&sleep=1s");
    let crash = async {
        let trace = system.trace_of("crash").await;
        // Then the spans of the first three steps are there, and the fourth runs.
        system.span("the third step", |span| span.name == "work 3/6").await;
        let killed = system.kill("service-b");
        system.expect_for_now(&trace, HOLDERS, IN_FLIGHT).await;
        killed
    };
    let (answer, killed) = join!(request, crash);
    answer.expect_message(3);
    let spans = system.expect(trace_of(&answer), HOLDERS, AFTERWARDS).await;
    eprintln!("await chain with a crash on {server:?}: {} spans", spans.len());

    let runs = || spans.iter().filter(|span| span.name == "bar on service-b-replica");
    let takeover = runs().find(|run| run.takeover()).unwrap();
    assert_eq!(takeover.version(), 2);
    let lost = one(&spans, "lease of service-b expired");
    assert_eq!((lost.end, lost.length()), (takeover.start, LEASE), "{lost:#?}");
    let step = one(&spans, "work 4/6");
    assert!(step.start < killed && takeover.start < step.end, "{step:#?} killed {killed:?}");
    assert!(killed < takeover.start && step.length() > Duration::from_secs(2), "{step:#?}");
    // The dead process's leases end before it died, and nobody's overlap.
    let mut leases: Vec<_> = spans
        .iter()
        .filter(|span| shape(span) == Shape::Lease && span.promise() == "crash.0")
        .collect();
    leases.sort_by_key(|lease| lease.start);
    assert!(leases.windows(2).all(|pair| pair[0].end <= pair[1].start), "{leases:#?}");
    // The first one comes of a timer, not of the first heartbeat: it is there after a moment.
    let first = leases[0].length();
    assert!(first >= Duration::from_millis(200) && first < LEASE / 2, "{first:?}: {leases:#?}");
    let of_dead = |lease: &&&Span| lease.instance() == "service-b";
    let last = leases.iter().rfind(of_dead).unwrap();
    assert!(last.end < killed, "{last:#?} killed {killed:?}");
    let dead = killed.duration_since(last.end).unwrap();
    assert!(dead < LEASE, "the last heartbeat is shown: {last:#?} killed {killed:?}");
}

async fn a_holder_that_is_drained_is_no_takeover(server: Server) {
    let system = Observed::start(server, &[]).await;
    let http = system.http();
    let request = http.post("/await-chain?id=drain&work=3s&sleep=1s");
    let drain = async {
        let begins = |line: &Line| {
            line.in_run("step begins", "drain.0") && line.field("step") == Some("work 2/3")
        };
        system.log.line("the second step", begins).await;
        process::signal(system.pid("service-b"), "TERM");
    };
    let (answer, ()) = join!(request, drain);
    answer.expect_message(3);
    let tree = "
        gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=drain group=service-a
            service-a: foo [consumer] promise=drain group=service-a state=resolved
            service-a: foo on service-a* [internal] promise=drain group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=drain.0 group=service-b
              service-b-replica: bar [consumer] promise=drain.0 group=service-b state=resolved
              service-b: bar on service-b [internal] promise=drain.0 group=service-b outcome=released
              service-b-replica: bar on service-b-replica [internal] promise=drain.0 group=service-b outcome=fulfilled
              service-b: lease on service-b [internal] promise=drain.0 group=service-b
              service-b-replica: lease on service-b-replica [internal] promise=drain.0 group=service-b
              service-b: work 1/3 [internal] promise=drain.0.0 state=resolved
              service-b: work 2/3 [internal] promise=drain.0.1 state=resolved
              service-b-replica: work 3/3 [internal] promise=drain.0.2 state=resolved
              service-b-replica: rpc baz [producer] promise=drain.0.3 group=service-c
                service-c: baz [consumer] promise=drain.0.3 group=service-c state=resolved
                service-c: baz on service-c* [internal] promise=drain.0.3 group=service-c outcome=fulfilled
                service-c: sleep 1s [internal] promise=drain.0.3.0
    ";
    system.expect(trace_of(&answer), HOLDERS, tree).await;
}

async fn a_gateway_that_is_killed_leaves_the_call_as_the_root(server: Server) {
    let system = Observed::start(server, &[]).await;
    let http = system.http();
    let path = "/await-chain?id=orphan&work=2s";
    let request = http.send(Method::POST, path, &[]);
    let kill = async {
        let trace = system.trace_of("orphan").await;
        system.span("the call", |span| span.name == "rpc foo" && span.trace == trace).await;
        system.kill("gateway");
        trace
    };
    let (lost, trace) = join!(request, kill);
    lost.expect_err("the gateway was killed while it waited");

    let line = system.obituary("gateway").await;
    let (_, command) = line.text.split_once("To start it again: ").expect("a command");
    let http = Http::new(&system.start_by("gateway", command, &[]).await);
    let context = "00-7e570000000000000000000000000002-7e57000000000002-01";
    let again = http.send(Method::POST, path, &[("traceparent", context)]).await.unwrap();
    again.expect_start(3.into(), "orphan", true);
    assert_eq!(trace_of(&again), trace);
    let tree = "
        ? gateway: rpc foo [producer] promise=orphan group=service-a
          service-a: foo [consumer] promise=orphan group=service-a state=resolved
          service-a: foo on service-a* [internal] promise=orphan group=service-a outcome=fulfilled
          service-a: rpc bar [producer] promise=orphan.0 group=service-b
            service-b: bar [consumer] promise=orphan.0 group=service-b state=resolved
            service-b: bar on service-b* [internal] promise=orphan.0 group=service-b outcome=fulfilled
            service-b: work 1/2 [internal] promise=orphan.0.0 state=resolved
            service-b: work 2/2 [internal] promise=orphan.0.1 state=resolved
            service-b: rpc baz [producer] promise=orphan.0.2 group=service-c
              service-c: baz [consumer] promise=orphan.0.2 group=service-c state=resolved
              service-c: baz on service-c* [internal] promise=orphan.0.2 group=service-c outcome=fulfilled
    ";
    let spans = system.expect(&trace, PLAIN, tree).await;
    let tree = "
        ? gateway: POST /await-chain [server] route=/await-chain status=200 reconnected link=another trace
    ";
    let request = system.expect("7e570000000000000000000000000002", PLAIN, tree).await.remove(0);
    assert_eq!(request.links, [(trace, one(&spans, "rpc foo").id.clone())]);
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_of_a_flow_leaves_one_whole_trace() {
    let this = "a_server_that_is_killed_in_the_middle_of_a_flow_leaves_one_whole_trace";
    if !Server::official_is_here(this) {
        return;
    }
    let system = Observed::start(Server::Official, &[("NODE_LEASE", "10s")]).await;
    let http = system.http();
    let request = http.post("/await-chain?id=restart&work=3s&sleep=1s");
    let restart = async {
        let begins = |line: &Line| {
            line.in_run("step begins", "restart.0") && line.field("step") == Some("work 2/3")
        };
        system.log.line("the second step", begins).await;
        let mut server = system.server.lock().await;
        let server = server.as_mut().expect("it is the official one");
        server.kill();
        server.start().await;
    };
    let (answer, ()) = join!(request, restart);
    answer.expect_message(3);
    let tree = "
        gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=restart group=service-a
            service-a: foo [consumer] promise=restart group=service-a state=resolved
            service-a: foo on service-a* [internal] promise=restart group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=restart.0 group=service-b
              service-b: bar [consumer] promise=restart.0 group=service-b state=resolved
              service-b: bar on service-b [internal] promise=restart.0 group=service-b outcome=fulfilled
              service-b: lease on service-b [internal] promise=restart.0 group=service-b
              service-b: work 1/3 [internal] promise=restart.0.0 state=resolved
              service-b: work 2/3 [internal] promise=restart.0.1 state=resolved
              service-b: work 3/3 [internal] promise=restart.0.2 state=resolved
              service-b: rpc baz [producer] promise=restart.0.3 group=service-c
                service-c: baz [consumer] promise=restart.0.3 group=service-c state=resolved
                service-c: baz on service-c* [internal] promise=restart.0.3 group=service-c outcome=fulfilled
                service-c: sleep 1s [internal] promise=restart.0.3.0
    ";
    system.expect(trace_of(&answer), HOLDERS, tree).await;
}
