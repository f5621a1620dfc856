//! Who settled a promise, if an answer of the server is lost: a proxy loses it.

use futures_util::join;
use testkit::{Server, Stopped, process, until};

use crate::{
    observed::{Observed, PLAIN, trace_of},
    proxy::{Fault, Proxy},
};

testkit::on_each_server!(
    a_settlement_whose_answer_is_lost_is_seen_as_ones_own,
    a_settlement_by_somebody_else_is_not_taken_for_ones_own,
);

/// A system whose only service-c process reaches the server through a proxy.
async fn start(server: Server, fault: Fault) -> (Observed, Proxy) {
    let system = Observed::start(server, &[("NODE_LEASE", "1s")]).await;
    for instance in ["service-c", "service-c-replica"] {
        process::signal(system.pid(instance), "TERM");
        system.exit_line(instance).await;
    }
    let proxy = Proxy::start(&system.server_url, "task.fulfill", fault).await;
    system.start_process("service-c-proxied", &["service-c", "--server", &proxy.url()], &[]).await;
    (system, proxy)
}

async fn a_settlement_whose_answer_is_lost_is_seen_as_ones_own(server: Server) -> Stopped {
    let (system, proxy) = start(server, Fault::LoseAnswer).await;
    let answer = system.http().post("/await-chain?id=own").await;
    answer.expect_message(3);
    expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: await-chain [internal] promise=own
          gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=own group=service-a
            service-a: foo [internal] promise=own group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=own group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=own.0 group=service-b
              service-b: bar [internal] promise=own.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=own.0 group=service-b outcome=fulfilled
              service-b: rpc baz [producer] promise=own.0.0 group=service-c
                service-c: baz [internal] promise=own.0.0 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=own.0.0 group=service-c outcome=fulfilled
    ");
    assert_eq!(proxy.requests(), 2, "the request was repeated");
    system.stop().await
}

async fn a_settlement_by_somebody_else_is_not_taken_for_ones_own(server: Server) -> Stopped {
    let (system, proxy) = start(server, Fault::Hold).await;
    let http = system.http();
    let request = http.post("/await-chain?id=other");
    let other = async {
        until(&system.log, "the repeated request", async || (proxy.requests() == 2).then_some(()))
            .await;
        let arguments = ["service-c", "--server", &system.server_url];
        system.start_process("service-c-replica", &arguments, &[]).await;
        until(&system.log, "a settlement by another process", async || {
            system.resonate().settled("other.0.0").await.then_some(())
        })
        .await;
        proxy.release();
    };
    let (answer, ()) = join!(request, other);
    answer.expect_message(3);
    let spans = expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: await-chain [internal] promise=other
          gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=other group=service-a
            service-a: foo [internal] promise=other group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=other group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=other.0 group=service-b
              service-b: bar [internal] promise=other.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=other.0 group=service-b outcome=fulfilled
              service-b: rpc baz [producer] promise=other.0.0 group=service-c
                service-c: baz [internal] promise=other.0.0 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=other.0.0 group=service-c outcome=fenced,fulfilled ERROR the lease was lost, or the promise is settled
    ");
    let settled = spans.iter().find(|span| span.name == "baz").unwrap();
    assert_eq!(settled.instance(), "service-c-replica");
    system.stop().await
}
