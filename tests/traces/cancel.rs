//! The traces of flows that are canceled, and of flows whose holder is killed by the crash button.

use futures_util::join;
use reqwest::Method;
use testkit::{Server, Stopped};

use crate::observed::{Observed, PLAIN};

testkit::on_each_server!(
    the_invocations_of_a_canceled_flow_end_as_canceled_once,
    a_crash_by_the_button_leaves_no_span_of_its_own,
);

async fn the_invocations_of_a_canceled_flow_end_as_canceled_once(server: Server) -> Stopped {
    let system = Observed::start(server, &[]).await;
    let http = system.http();
    let request = http.post("/await-chain?id=cancel&work=10s");
    let cancel = async {
        let trace = system.trace_of("cancel").await;
        system.span("the first step", |span| span.name == "work 1/10").await;
        // Each invocation is canceled by one of them.
        let delete = || http.send(Method::DELETE, "/flows/cancel", &[]);
        let (one, other) = join!(delete(), delete());
        assert_eq!((one.unwrap().status, other.unwrap().status), (200, 200));
        trace
    };
    let (answer, trace) = join!(request, cancel);
    answer.expect_problem(409);
    expect_tree!(system, &trace, PLAIN, @"
        gateway: await-chain [internal] promise=cancel
          gateway: POST /await-chain [server] route=/await-chain status=409
          gateway: rpc foo [producer] promise=cancel group=service-a
            gateway: foo [internal] promise=cancel group=service-a state=rejected_canceled ERROR canceled
            service-a: foo on service-a* [consumer] promise=cancel group=service-a outcome=suspended
            service-a: rpc bar [producer] promise=cancel.0 group=service-b
              gateway: bar [internal] promise=cancel.0 group=service-b state=rejected_canceled ERROR canceled
              service-b: bar on service-b* [consumer] promise=cancel.0 group=service-b outcome=fenced ERROR the lease was lost, or the promise is settled
              service-b: work 1/10 [internal] promise=cancel.0.0 group=service-b state=resolved
              service-b: work 2/10 [internal] promise=cancel.0.1 group=service-b state=rejected_canceled ERROR canceled
    ");
    system.stop().await
}

async fn a_crash_by_the_button_leaves_no_span_of_its_own(server: Server) -> Stopped {
    let system = Observed::start(server, &[("NODE_LEASE", "1s")]).await;
    let http = system.http();
    let request = http.post("/await-chain?id=button&work=3s");
    let crash = async {
        system.span("the first step", |span| span.name == "work 1/3").await;
        system.killed("service-b");
        let crashed = http.post("/instances/service-b/service-b/crash").await;
        assert_eq!(crashed.status, 200, "{}", crashed.text);
    };
    let (answer, ()) = join!(request, crash);
    answer.expect_message(3);
    system.span("the invocation", |span| span.name == "foo").await;
    let spans = system.collector.spans();
    let of_crash = |name: &str| name.contains("node.crash") || name.contains("crash-");
    let left: Vec<_> =
        spans.iter().filter(|span| of_crash(&span.name) || of_crash(span.promise())).collect();
    assert!(left.is_empty(), "{left:#?}");
    system.stop().await
}
