//! The tracing layer above a scripted server.

mod flows;
mod leases;
mod lost_answers;
#[cfg(feature = "metrics")]
mod metrics;
mod poison;
mod settlements;
mod takeovers;
mod user_code;

use std::{sync::Arc, time::Duration};

use opentelemetry::{TraceFlags, trace::Status};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use serde_json::{Value, json};
use wire::{
    Exchange, Message, Request, call,
    envelope::Action,
    operation as op,
    scripted::{Reply, Scripted},
};

use super::*;
use crate::{FlowTracer, Identity};

const LEASE: i64 = 3_000;

struct Rig {
    traced: Traced,
    server: Scripted,
    exporter: InMemorySpanExporter,
    flows: FlowTracer,
}

impl Rig {
    fn new(script: impl FnMut(&str, &Value) -> Reply + Send + 'static) -> Self {
        Self::with(script, |server| server)
    }

    /// The same, with another layer between.
    fn with<Next: Exchange + 'static>(
        script: impl FnMut(&str, &Value) -> Reply + Send + 'static,
        next: impl FnOnce(Scripted) -> Next,
    ) -> Self {
        let exporter = InMemorySpanExporter::default();
        let telemetry = Telemetry::with_exporter(identity(), exporter.clone());
        Self::on(telemetry, exporter, script, next)
    }

    fn on<Next: Exchange + 'static>(
        telemetry: Telemetry,
        exporter: InMemorySpanExporter,
        script: impl FnMut(&str, &Value) -> Reply + Send + 'static,
        next: impl FnOnce(Scripted) -> Next,
    ) -> Self {
        let server = Scripted::new(script);
        let traced = Traced::new(Arc::new(next(server.clone())), &telemetry);
        let flows = FlowTracer::new(&telemetry);
        // The provider outlives the test: its end would end the exporter.
        std::mem::forget(telemetry);
        Self { traced, server, exporter, flows }
    }

    fn spans(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    /// The spans in the order of their emission, each with its outcome or error.
    fn names(&self) -> Vec<String> {
        let spans = self.spans();
        spans.iter().map(|span| format!("{}{}", span.name, remark(span))).collect()
    }

    async fn acquire(&self, version: i64) {
        let acquire = op::TaskAcquire {
            id: "f.0".into(),
            version: version - 1,
            pid: "me".into(),
            ttl: LEASE,
        };
        self.traced.exchange(Request::new("task.acquire", &acquire)).await.unwrap();
    }

    async fn fulfill(&self, version: i64) -> Answered {
        let settle = op::PromiseSettle {
            id: "f.0".into(),
            state: op::SettleState::Resolved,
            value: wire::PromiseValue::default(),
        };
        let action = Action { kind: "promise.settle".into(), head: None, data: settle };
        let fulfill = op::TaskFulfill { id: "f.0".into(), version, action };
        self.traced.exchange(Request::new("task.fulfill", &fulfill)).await
    }

    async fn suspend(&self, version: i64) -> Answered {
        let suspend = op::TaskSuspend { id: "f.0".into(), version, actions: Vec::new() };
        self.traced.exchange(Request::new("task.suspend", &suspend)).await
    }

    async fn release(&self, version: i64) -> Answered {
        let release = op::TaskRef { id: "f.0".into(), version };
        self.traced.exchange(Request::new("task.release", &release)).await
    }

    async fn heartbeat(&self, version: i64) -> Answered {
        let tasks = vec![op::TaskRef { id: "f.0".into(), version }];
        let heartbeat = op::TaskHeartbeat { pid: "me".into(), tasks };
        self.traced.exchange(Request::new("task.heartbeat", &heartbeat)).await
    }

    async fn fence(&self, version: i64, kind: &str, data: Value) -> Answered {
        let action = json!({"kind": kind, "head": {}, "data": data});
        let fence = json!({"id": "f.0", "version": version, "action": action});
        self.traced.exchange(Request::new("task.fence", &fence)).await
    }
}

fn identity() -> Identity {
    Identity {
        name: "g".to_owned(),
        instance: "me".to_owned(),
        namespace: String::new(),
        version: "0".to_owned(),
    }
}

fn remark(span: &SpanData) -> String {
    let outcome = span.attributes.iter().find(|pair| pair.key.as_str() == key::RUN_OUTCOME);
    match (&span.status, outcome) {
        (_, Some(outcome)) => format!(" {}", outcome.value),
        (Status::Error { description }, _) => format!(" error={description}"),
        _ => String::new(),
    }
}

const CONTEXT: &str = "00-0000000000000000000000000000000a-000000000000000b-01";

/// The record of an invocation of `bar`, with a context in its headers.
fn invocation(state: &str, value: Value) -> Value {
    let param = json!({"headers": {"traceparent": CONTEXT}, "data": call::encode("bar", &())});
    let tags = json!({"resonate:target": "poll://any@g", "resonate:scope": "global",
        "resonate:branch": "f"});
    let mut promise = json!({"id": "f.0", "state": state, "param": param, "value": value,
        "tags": tags, "timeoutAt": 9_000, "createdAt": 1_000});
    if state != "pending" {
        promise["settledAt"] = 5_000.into();
    }
    promise
}

/// A step of `f.0` that the run `version` of `instance` created.
fn step(id: &str, state: &str, instance: &str, version: i64) -> Value {
    let headers = json!({"traceparent": CONTEXT, key::HEADER_INSTANCE: instance,
        key::HEADER_VERSION: version.to_string()});
    json!({"id": id, "state": state, "param": {"headers": headers}, "value": {},
        "tags": {"resonate:scope": "local"}, "timeoutAt": 9_000, "createdAt": 2_000})
}

fn acquired(version: i64, preload: Value) -> Reply {
    let task = json!({"id": "f.0", "state": "acquired", "version": version, "resumes": 0});
    let promise = invocation("pending", json!({}));
    Reply::Answer(200, json!({"task": task, "promise": promise, "preload": preload}))
}

/// The answer to a fence: the promise as it was sent, in `state`.
fn echo(data: &Value, state: &str) -> Reply {
    let mut promise = data["action"]["data"].clone();
    promise["state"] = state.into();
    promise["createdAt"] = 2_000.into();
    promise["timeoutAt"] = 9_000.into();
    let action = json!({"kind": "x", "head": {}, "data": {"promise": promise}});
    Reply::Answer(200, json!({"action": action, "preload": []}))
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let pair = span.attributes.iter().find(|pair| pair.key.as_str() == name);
    pair.map(|pair| pair.value.to_string())
}

fn create() -> Request {
    let create = op::PromiseCreate {
        id: "f".into(),
        timeout_at: 9_000,
        param: wire::PromiseValue { headers: None, data: Some(call::encode("foo", &()).into()) },
        tags: Pairs::from_iter([(tag::TARGET, "poll://any@a")]),
    };
    Request::new("promise.create", &create)
}

#[tokio::test]
async fn a_created_promise_carries_the_context_of_its_call_and_a_found_one_has_no_call() {
    let mut first = None;
    let rig = Rig::new(move |_, data| {
        let created = first.get_or_insert_with(|| data.clone());
        let mut promise = created.clone();
        promise["state"] = "pending".into();
        promise["createdAt"] = 1.into();
        Reply::Answer(200, json!({"promise": promise}))
    });
    rig.traced.exchange(create()).await.unwrap();
    rig.traced.exchange(create()).await.unwrap();
    assert_eq!(rig.names(), ["rpc foo"]);
    let span = &rig.spans()[0].span_context;
    let sent = rig.server.seen()[0].1["param"]["headers"]["traceparent"].clone();
    assert_eq!(sent, format!("00-{}-{}-01", span.trace_id(), span.span_id()));
}

#[tokio::test]
async fn a_run_with_a_step_has_three_spans_below_the_promise() {
    let rig = Rig::new(|kind, data| match (kind, data["action"]["kind"].as_str()) {
        ("task.acquire", _) => acquired(1, json!([])),
        ("task.fence", Some("promise.create")) => echo(data, "pending"),
        ("task.fence", _) => {
            let mut promise = step("f.0.0", "resolved", "me", 1);
            promise["settledAt"] = 3_000.into();
            let action = json!({"kind": "x", "head": {}, "data": {"promise": promise}});
            Reply::Answer(200, json!({"action": action, "preload": []}))
        }
        _ => {
            let value = data["action"]["data"]["value"].clone();
            Reply::Answer(200, json!({"promise": invocation("resolved", value)}))
        }
    });
    rig.acquire(1).await;
    let tags = json!({"resonate:scope": "local"});
    let create = json!({"id": "f.0.0", "timeoutAt": 9_000, "param": {}, "tags": tags});
    rig.fence(1, "promise.create", create).await.unwrap();
    rig.traced.name_step("f.0.0", "work 1/1");
    rig.traced.step_failed("f.0.0", &resonate_sdk::error::Error::Timeout);
    let settle = json!({"id": "f.0.0", "state": "resolved", "value": {}});
    rig.fence(1, "promise.settle", settle).await.unwrap();
    rig.fulfill(1).await.unwrap();
    assert_eq!(rig.names(), ["work 1/1", "bar", "bar on me fulfilled"]);
    for span in rig.spans() {
        assert_eq!(span.parent_span_id, opentelemetry::SpanId::from(11));
        assert_eq!(span.span_context.trace_id(), opentelemetry::TraceId::from(10));
        assert_eq!(span.span_context.trace_flags(), TraceFlags::SAMPLED);
    }
    let failed: Vec<_> = rig.spans()[0].events.iter().map(|event| event.name.clone()).collect();
    assert_eq!(failed, [key::EXCEPTION]);
    let created = &rig.server.seen()[1].1["action"]["data"]["param"]["headers"];
    assert_eq!(
        (&created[key::HEADER_INSTANCE], &created[key::HEADER_VERSION]),
        (&json!("me"), &json!("1"))
    );
}

#[tokio::test]
async fn a_suspend_that_comes_too_late_does_not_end_the_run() {
    let rig = Rig::new(|kind, _| match kind {
        "task.acquire" => acquired(1, json!([])),
        "task.suspend" => Reply::Answer(300, json!({"preload": []})),
        _ => Reply::Answer(200, json!({})),
    });
    rig.acquire(1).await;
    rig.suspend(1).await.unwrap();
    assert_eq!(rig.names(), Vec::<String>::new());
    rig.release(1).await.unwrap();
    assert_eq!(rig.names(), ["bar on me released"]);
}

#[tokio::test]
async fn a_release_says_whether_there_was_something_to_release() {
    for (reply, outcome) in [
        (Reply::Answer(200, json!({})), "released"),
        (Reply::Repeated(409, json!("stale")), "released"),
        (Reply::Answer(409, json!("stale")), "fenced"),
        (Reply::Lost, "fenced"),
    ] {
        let rig = Rig::new({
            let reply = reply.clone();
            move |kind, _| match kind {
                "task.acquire" => acquired(1, json!([])),
                _ => reply.clone(),
            }
        });
        rig.acquire(1).await;
        let _ = rig.release(1).await;
        assert_eq!(rig.names(), [format!("bar on me {outcome}")], "{reply:?}");
        assert_eq!(rig.traced.trace_id("f.0"), None, "the run is forgotten");
    }
}

#[tokio::test]
async fn an_awaiter_reports_a_time_out_under_one_id() {
    let rig = Rig::new(|_, _| Reply::Lost);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let mut promise = invocation("rejected_timedout", json!({}));
    promise["settledAt"] = now.into();
    let unblock = |promise: &Value| {
        let message = json!({"kind": "unblock", "head": {}, "data": {"promise": promise}});
        Message::parse(message.to_string()).unwrap()
    };
    rig.traced.observe(&unblock(&promise));
    rig.traced.observe(&unblock(&promise));
    assert_eq!(rig.names(), ["bar error=timed out", "bar error=timed out"]);
    let spans = rig.spans();
    assert_eq!(spans[0].span_context.span_id(), spans[1].span_context.span_id());
    promise["settledAt"] = (now - 60_000).into();
    rig.traced.observe(&unblock(&promise));
    assert_eq!(rig.spans().len(), 2, "an old one");
}

#[tokio::test]
async fn a_promise_of_a_client_without_tracing_gets_a_derived_root() {
    for version in [1, 2] {
        let rig = Rig::new(move |kind, _| {
            let task = json!({"id": "f.0", "state": "acquired", "version": version});
            let mut promise = invocation("pending", json!({}));
            promise["param"]["headers"].take();
            match kind {
                "task.acquire" => Reply::Answer(200, json!({"task": task, "promise": promise})),
                _ => Reply::Answer(404, json!("Promise not found")),
            }
        });
        rig.acquire(version).await;
        let expected: &[&str] = if version == 1 { &["received bar"] } else { &[] };
        assert_eq!(rig.names(), expected);
        assert!(rig.traced.trace_id("f.0").is_some());
    }
}
