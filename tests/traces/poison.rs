//! Promises that no process can run.

use serde_json::{Value, json};
use testkit::{Server, Stopped};

use crate::{
    invariants::BY_HAND,
    observed::{Observed, PLAIN, one},
};

testkit::on_each_server!(a_promise_that_no_process_can_run_has_its_runs_and_its_invocation);

fn call(data: &Value, trace: &str) -> Value {
    json!({"headers": {"traceparent": format!("00-{trace}-7e57000000000020-01")}, "data": data})
}

async fn a_promise_that_no_process_can_run_has_its_runs_and_its_invocation(
    server: Server,
) -> Stopped {
    let system = Observed::shared(server).await;
    let unreadable = "7e570000000000000000000000000020";
    let param = call(&json!("not base64"), unreadable);
    system.resonate().create(&format!("{BY_HAND}-unreadable"), "poll://any@service-b", param).await;
    let rejected = |span: &testkit::Span| {
        span.trace == unreadable && span.get("resonate.promise.state") == "rejected"
    };
    system.span("the invocation", rejected).await;
    expect_tree!(system, unreadable, PLAIN, @"
        ? service-b: invocation [internal] promise=by-hand-unreadable group=service-b state=rejected ERROR the parameter of this promise is not a function call: not base64: Invalid symbol 32, offset 3.
        ? service-b: invocation on service-b* [consumer] promise=by-hand-unreadable group=service-b outcome=rejected ERROR the function failed
    ");
    let unknown = "7e570000000000000000000000000021";
    let param = call(&json!(wire::call::encode("nobody", &())), unknown);
    system.resonate().create(&format!("{BY_HAND}-unknown"), "poll://any@service-b", param).await;
    let rejected = |span: &testkit::Span| {
        span.trace == unknown && span.get("resonate.run.outcome") == "rejected"
    };
    let run = system.span("the last run", rejected).await;
    assert_eq!(run.get("resonate.function"), "nobody");
    let spans: Vec<_> =
        system.collector.spans().into_iter().filter(|span| span.trace == unknown).collect();
    let released = spans.iter().filter(|span| span.get("resonate.run.outcome") == "released");
    assert!(released.count() >= 4, "{spans:#?}");
    let invocation = one(&spans, "nobody");
    assert!(invocation.error.is_some(), "{invocation:#?}");
    system.stop().await
}
