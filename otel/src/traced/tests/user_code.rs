//! What the application does in a function or a step is below it.

use std::sync::Mutex;

use opentelemetry::{
    SpanId,
    trace::{SpanContext, TraceContextExt},
};
use resonate_sdk::error::Error;

use super::*;

/// A server with one run of `f.0`, whose steps are answered as they are sent. When it is fulfilled, its
/// promise is in `end`, and a step that is asked for in `left`.
fn server(end: &'static str, left: &'static str) -> impl FnMut(&str, &Value) -> Reply + Send {
    move |kind, data| match (kind, data["action"]["kind"].as_str()) {
        ("task.acquire", _) => acquired(1, json!([])),
        ("task.fence", Some("promise.create")) => echo(data, "pending"),
        ("task.fence", _) => {
            let mut promise =
                step(data["action"]["data"]["id"].as_str().unwrap(), "resolved", "me", 1);
            promise["settledAt"] = 3_000.into();
            let action = json!({"kind": "x", "head": {}, "data": {"promise": promise}});
            Reply::Answer(200, json!({"action": action, "preload": []}))
        }
        ("promise.get", _) if data["id"] == "f.0" => {
            Reply::Answer(200, json!({"promise": invocation(end, json!({}))}))
        }
        ("promise.get", _) => {
            let id = data["id"].as_str().unwrap();
            Reply::Answer(200, json!({"promise": step(id, left, "me", 1)}))
        }
        ("task.fulfill", _) if end == "resolved" => {
            let value = data["action"]["data"]["value"].clone();
            Reply::Answer(200, json!({"promise": invocation(end, value)}))
        }
        _ => Reply::Answer(409, json!("stale")),
    }
}

async fn begin_step(rig: &Rig, id: &str) {
    let tags = json!({"resonate:scope": "local"});
    let create = json!({"id": id, "timeoutAt": 9_000, "param": {}, "tags": tags});
    rig.fence(1, "promise.create", create).await.unwrap();
}

/// The span that is active in a step.
async fn active_in_step(traced: &Traced, id: &str) -> SpanContext {
    traced.in_step(id, async { Context::current().span().span_context().clone() }).await
}

#[tokio::test]
async fn in_a_function_its_promise_is_active_and_in_a_step_the_span_of_the_step() {
    let attempts = Mutex::new(Vec::new());
    // Two processes run the same step.
    for _ in 0..2 {
        let rig = Rig::new(server("resolved", "pending"));
        rig.acquire(1).await;
        let function = rig
            .traced
            .in_function("f.0", async { Context::current().span().span_context().clone() })
            .await;
        assert_eq!(function.span_id(), SpanId::from(11), "the call, which is exported early");
        begin_step(&rig, "f.0.0").await;
        let active = active_in_step(&rig.traced, "f.0.0").await;
        assert_eq!((active.trace_id(), active.is_sampled()), (function.trace_id(), true));
        let nested = active_in_step(&rig.traced, "f.0.0.0").await;
        assert_eq!(nested.trace_id(), function.trace_id());
        assert_ne!(nested.span_id(), active.span_id());
        let settle = json!({"id": "f.0.0", "state": "resolved", "value": {}});
        rig.fence(1, "promise.settle", settle).await.unwrap();
        assert_eq!(rig.spans()[0].span_context.span_id(), active.span_id());
        let sent = &rig.server.seen()[1].1["action"]["data"]["param"]["headers"]["traceparent"];
        assert_eq!(sent, &format!("00-{}-{}-01", active.trace_id(), active.span_id()));
        attempts.lock().unwrap().push(active);
    }
    let attempts = attempts.into_inner().unwrap();
    assert_eq!(attempts[0], attempts[1]);
}

#[tokio::test]
async fn without_spans_the_context_of_the_promise_is_active_in_a_step_too() {
    let server = Scripted::new(server("resolved", "pending"));
    let identity = Identity {
        name: "g".to_owned(),
        instance: "me".to_owned(),
        namespace: String::new(),
        version: "0".to_owned(),
    };
    // No variable of the test's environment turns tracing on.
    let telemetry = Telemetry::start(identity).unwrap();
    let traced = Traced::new(Arc::new(server), &telemetry);
    let acquire = op::TaskAcquire { id: "f.0".into(), version: 0, pid: "me".into(), ttl: LEASE };
    traced.exchange(Request::new("task.acquire", &acquire)).await.unwrap();
    assert_eq!(active_in_step(&traced, "f.0.0").await.span_id(), SpanId::from(11));
    assert!(!active_in_step(&traced, "other.0").await.is_valid());
}

/// The spans, as soon as there are as many.
async fn spans(rig: &Rig, count: usize) -> Vec<String> {
    for _ in 0..100 {
        if rig.spans().len() < count {
            tokio::task::yield_now().await;
        }
    }
    let mut names = rig.names();
    names.sort();
    names
}

#[tokio::test]
async fn a_step_that_its_function_drops_has_a_span() {
    let rig = Rig::new(server("resolved", "pending"));
    rig.acquire(1).await;
    begin_step(&rig, "f.0.0").await;
    rig.traced.name_step("f.0.0", "dropped");
    let active = active_in_step(&rig.traced, "f.0.0").await;
    rig.fulfill(1).await.unwrap();
    assert_eq!(spans(&rig, 3).await, ["bar", "bar on me fulfilled", "dropped"]);
    let span = rig.spans().into_iter().find(|span| span.name == "dropped").unwrap();
    assert_eq!(span.span_context.span_id(), active.span_id());
    assert_eq!(span.end_time, context::time(5_000), "with its function");
}

#[tokio::test]
async fn a_step_that_times_out_with_its_flow_has_a_span_unless_another_run_settled_it() {
    for (left, expected) in [
        (
            "rejected_timedout",
            vec!["bar error=timed out", "bar on me fenced", "slow error=timed out"],
        ),
        ("resolved", vec!["bar error=timed out", "bar on me fenced"]),
    ] {
        let rig = Rig::new(server("rejected_timedout", left));
        rig.acquire(1).await;
        begin_step(&rig, "f.0.0").await;
        rig.traced.name_step("f.0.0", "slow");
        assert_eq!(rig.fulfill(1).await.unwrap().status(), 409);
        // The span of the step, which is looked up, comes last if at all.
        spans(&rig, usize::MAX).await;
        assert_eq!(spans(&rig, expected.len()).await, expected);
    }
}

#[tokio::test]
async fn failed_attempts_are_events_with_a_type() {
    let rig = Rig::new(server("resolved", "pending"));
    rig.acquire(1).await;
    begin_step(&rig, "f.0.0").await;
    rig.traced.name_step("f.0.0", "flaky");
    let error = Error::Application { message: "application error: not yet".to_owned() };
    rig.traced.step_failed("f.0.0", &error);
    let settle = json!({"id": "f.0.0", "state": "resolved", "value": {}});
    rig.fence(1, "promise.settle", settle).await.unwrap();
    let events = &rig.spans()[0].events;
    let of = |name: &str| {
        let pair = events[0].attributes.iter().find(|pair| pair.key.as_str() == name);
        pair.map(|pair| pair.value.to_string()).unwrap_or_default()
    };
    assert_eq!(of(key::EXCEPTION_TYPE), "resonate_sdk::Error::Application");
    assert_eq!(of(key::EXCEPTION_MESSAGE), "not yet");
}

/// A reader of promises can tell what ran where, whether there are spans or not.
#[tokio::test]
async fn promises_name_the_runs_that_created_and_settled_them() {
    let off = || {
        let telemetry = Telemetry::start(identity()).unwrap();
        let exporter = InMemorySpanExporter::default();
        Rig::on(telemetry, exporter, server("resolved", "pending"), |server| server)
    };
    for rig in [Rig::new(server("resolved", "pending")), off()] {
        rig.acquire(1).await;
        begin_step(&rig, "f.0.0").await;
        rig.traced.name_step("f.0.0", "work");
        rig.traced.step_failed("f.0.0", &Error::Timeout);
        let settle = json!({"id": "f.0.0", "state": "resolved", "value": {}});
        rig.fence(1, "promise.settle", settle).await.unwrap();
        let call = json!({"id": "f.0.1", "timeoutAt": 9, "param": {},
            "tags": {"resonate:scope": "global"}});
        rig.fence(1, "promise.create", call).await.unwrap();
        rig.fulfill(1).await.unwrap();

        let sent = rig.server.seen();
        let data = |n: usize| &sent[n].1["action"]["data"];
        for created in [data(1), data(3)] {
            let headers = &created["param"]["headers"];
            assert_eq!(headers[key::HEADER_INSTANCE], "me", "{created}");
            assert_eq!(headers[key::HEADER_VERSION], "1", "{created}");
        }
        for settled in [data(2), data(4)] {
            assert_eq!(settled["value"]["headers"][key::HEADER_SETTLER], "me 1", "{settled}");
        }
        let step = &data(2)["value"]["headers"];
        assert_eq!(step[key::HEADER_FAILURES], "1", "{step}");
        assert!(step[key::HEADER_BEGUN].as_str().unwrap().parse::<u64>().unwrap() > 0, "{step}");
    }
}

/// One process may run a function and what that calls.
#[tokio::test]
async fn the_end_of_a_run_does_not_end_the_steps_of_what_it_has_called() {
    let rig = Rig::new(|kind, data| match kind {
        "task.acquire" => {
            let Reply::Answer(_, mut answer) = acquired(1, json!([])) else { unreachable!() };
            (answer["task"]["id"], answer["promise"]["id"]) =
                (data["id"].clone(), data["id"].clone());
            Reply::Answer(200, answer)
        }
        _ => Reply::Answer(200, json!({})),
    });
    for id in ["f.0", "f.0.0"] {
        let acquire = op::TaskAcquire { id: id.into(), version: 0, pid: "me".into(), ttl: LEASE };
        rig.traced.exchange(Request::new("task.acquire", &acquire)).await.unwrap();
    }
    rig.traced.name_step("f.0.0.0", "charge the card");
    rig.traced.name_step("f.0.1", "of the caller");
    rig.suspend(1).await.unwrap();
    let notes = ["f.0.0.0", "f.0.1"].map(|id| rig.traced.0.steps.find(id).is_some());
    assert_eq!(notes, [true, false]);
}
