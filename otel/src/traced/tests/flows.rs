//! The span of a flow, and of the request that starts or finds it.

use std::collections::HashMap;

use opentelemetry::{SpanId, TraceId, trace::Link};
use tokio::{sync::Notify, time::sleep};
use wire::ExchangeError;

use super::*;

/// The context of a client.
const INCOMING: &str = "00-00000000000000000000000000000001-0000000000000002-01";

/// The span of the flow that an earlier request has started, in the trace of [`CONTEXT`].
const FLOW: &str = "00000000000000cc";

fn headers(context: Option<&str>) -> HashMap<String, String> {
    context.map(|context| ("traceparent".to_owned(), context.to_owned())).into_iter().collect()
}

/// A server that creates each promise.
fn creates(_: &str, data: &Value) -> Reply {
    let mut promise = data.clone();
    promise["state"] = "pending".into();
    promise["createdAt"] = 1.into();
    Reply::Answer(200, json!({"promise": promise}))
}

/// A server on which an earlier request has created each promise.
fn finds(state: &'static str, flow: bool) -> impl Fn(&str, &Value) -> Reply {
    move |_, data| {
        let Reply::Answer(status, mut answer) = creates("", data) else { unreachable!() };
        answer["promise"]["state"] = state.into();
        answer["promise"]["param"]["headers"] = match flow {
            true => json!({"traceparent": CONTEXT, key::HEADER_FLOW: FLOW}),
            false => json!({"traceparent": CONTEXT}),
        };
        Reply::Answer(status, answer)
    }
}

/// A request with these headers that asks for a flow.
async fn request(rig: &Rig, context: Option<&str>) {
    let mut request = rig.flows.server_span("POST /order", &headers(context));
    let _ = request.flow("order").start(rig.traced.exchange(create())).await;
}

fn named(rig: &Rig, name: &str) -> SpanData {
    let mut found = rig.spans().into_iter().filter(|span| span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("no {name}: {:?}", rig.names()));
    assert!(found.next().is_none(), "more than one {name}");
    span
}

/// Trace and parent.
fn place(span: &SpanData) -> (TraceId, SpanId) {
    (span.span_context.trace_id(), span.parent_span_id)
}

/// Trace and id.
fn ids(span: &SpanData) -> (TraceId, SpanId) {
    (span.span_context.trace_id(), span.span_context.span_id())
}

fn linked(span: &SpanData) -> Vec<(u64, u64)> {
    let id = |link: &Link| {
        let trace = u128::from_be_bytes(link.span_context.trace_id().to_bytes());
        (trace as u64, u64::from_be_bytes(link.span_context.span_id().to_bytes()))
    };
    span.links.iter().map(id).collect()
}

fn has(span: &SpanData, name: &str) -> bool {
    span.attributes.iter().any(|pair| pair.key.as_str() == name)
}

#[tokio::test]
async fn a_flow_is_the_root_and_made_before_its_call_and_its_request() {
    let rig = Rig::new(creates);
    request(&rig, None).await;
    assert_eq!(rig.names(), ["order", "rpc foo", "POST /order"]);
    let (flow, call, request) = (&rig.spans()[0], &rig.spans()[1], &rig.spans()[2]);
    assert_eq!(flow.parent_span_id, SpanId::INVALID);
    assert_eq!((place(call), place(request)), (ids(flow), ids(flow)));
    assert_eq!((flow.start_time, flow.end_time <= request.end_time), (request.start_time, true));
    assert!(!has(request, key::RECONNECTED) && request.links.is_empty());
    let sent = &rig.server.seen()[0].1["param"]["headers"];
    assert_eq!(sent[key::HEADER_FLOW], flow.span_context.span_id().to_string());
    let (trace, id) = ids(call);
    assert_eq!(sent["traceparent"], format!("00-{trace}-{id}-01"));
}

#[tokio::test]
async fn an_incoming_context_is_the_parent_of_the_flow_and_of_the_request() {
    let rig = Rig::new(creates);
    request(&rig, Some(INCOMING)).await;
    let (flow, request) = (named(&rig, "order"), named(&rig, "POST /order"));
    let client = (TraceId::from(1), SpanId::from(2));
    assert_eq!((place(&flow), place(&request)), (client, client));
    assert_eq!(place(&named(&rig, "rpc foo")), ids(&flow));
}

#[tokio::test]
async fn a_request_joins_a_pending_flow_and_has_a_link_to_any_other() {
    let flow = (TraceId::from(10), SpanId::from(0xcc));
    let call = (TraceId::from(10), SpanId::from(11));
    for (state, has_span, incoming, joins, link) in [
        ("pending", true, None, Some(flow), None),
        ("pending", false, None, Some(call), None),
        ("resolved", true, None, None, Some((10, 0xcc))),
        ("rejected_timedout", false, None, None, Some((10, 11))),
        (
            "pending",
            true,
            Some(INCOMING),
            Some((TraceId::from(1), SpanId::from(2))),
            Some((10, 0xcc)),
        ),
        (
            "resolved",
            true,
            Some(INCOMING),
            Some((TraceId::from(1), SpanId::from(2))),
            Some((10, 0xcc)),
        ),
    ] {
        let rig = Rig::new(finds(state, has_span));
        request(&rig, incoming).await;
        assert_eq!(rig.names(), ["POST /order"], "a flow that was found has its span");
        let request = named(&rig, "POST /order");
        let case = format!("{state} {has_span} {incoming:?}: {request:?}");
        match joins {
            Some(place) => assert_eq!(self::place(&request), place, "{case}"),
            None => {
                assert_eq!(request.parent_span_id, SpanId::INVALID, "{case}");
                assert_ne!(request.span_context.trace_id(), TraceId::from(10), "{case}");
            }
        }
        assert_eq!(linked(&request), link.into_iter().collect::<Vec<_>>(), "{case}");
        assert!(has(&request, key::RECONNECTED), "{case}");
    }
}

#[tokio::test]
async fn nothing_is_exported_of_a_flow_that_is_not_sampled_or_of_a_request_that_joins_it() {
    let rig = Rig::new(creates);
    request(&rig, Some(&INCOMING.replace("-01", "-00"))).await;
    assert_eq!(rig.names(), [""; 0]);
    let rig = Rig::new(|kind, data| {
        let Reply::Answer(status, mut answer) = finds("pending", true)(kind, data) else {
            unreachable!()
        };
        answer["promise"]["param"]["headers"]["traceparent"] = CONTEXT.replace("-01", "-00").into();
        Reply::Answer(status, answer)
    });
    request(&rig, None).await;
    assert_eq!(rig.names(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_flow_whose_start_fails_says_so_and_leaves_nothing_without_a_parent() {
    for (reply, kind) in [
        (Reply::Lost, "unreachable"),
        (Reply::TooLarge, "too_large"),
        (Reply::Answer(400, json!("no")), "400"),
    ] {
        let rig = Rig::new({
            let reply = reply.clone();
            let mut created = Value::Null;
            move |kind, data| match kind {
                "promise.create" => {
                    created = data.clone();
                    reply.clone()
                }
                // It had taken effect.
                _ => creates("", &created),
            }
        });
        request(&rig, None).await;
        let (flow, request) = (named(&rig, "order"), named(&rig, "POST /order"));
        assert!(matches!(flow.status, Status::Error { .. }), "{flow:?}");
        let error = flow.attributes.iter().find(|pair| pair.key.as_str() == key::ERROR_TYPE);
        assert_eq!(error.map(|pair| pair.value.as_str().into_owned()).as_deref(), Some(kind));
        assert_eq!(place(&request), ids(&flow));
        sleep(Duration::from_secs(10)).await;
        let later = rig.spans().split_off(2);
        let expected: &[_] = if kind == "unreachable" { &["rpc foo"] } else { &[] };
        assert_eq!(later.iter().map(|span| &*span.name).collect::<Vec<_>>(), expected);
        assert!(later.iter().all(|call| place(call) == ids(&flow)), "{later:?}");
    }
}

/// A server that answers once it is told to.
struct Held {
    server: Scripted,
    release: Arc<Notify>,
}

#[async_trait::async_trait]
impl Exchange for Held {
    async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
        self.release.notified().await;
        self.server.exchange(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_during_the_creation_has_its_span_when_the_answer_is_there() {
    for pending in [false, true] {
        let release = Arc::new(Notify::new());
        let held = release.clone();
        let script = move |kind: &str, data: &Value| match pending {
            false => creates(kind, data),
            true => finds("pending", true)(kind, data),
        };
        let rig = Rig::with(script, |server| Held { server, release: held });
        let hung_up = tokio::time::timeout(Duration::from_secs(1), request(&rig, None)).await;
        assert!(hung_up.is_err() && rig.names().is_empty(), "{:?}", rig.names());
        sleep(Duration::from_secs(1)).await;
        release.notify_one();
        sleep(Duration::from_secs(1)).await;
        let request = named(&rig, "POST /order");
        let took = request.end_time.duration_since(request.start_time).unwrap();
        assert!(took < Duration::from_secs(1), "it ends with the hang-up: {took:?}");
        match pending {
            false => assert_eq!(place(&request), ids(&named(&rig, "order"))),
            true => assert_eq!(place(&request), (TraceId::from(10), SpanId::from(0xcc))),
        }
    }
}

#[tokio::test]
async fn only_the_first_promise_of_a_flow_starts_it() {
    let rig = Rig::new(creates);
    let flow = rig.flows.flow_span("order", &Context::new());
    flow.start(async {
        rig.traced.exchange(create()).await.unwrap();
        rig.traced.exchange(create()).await.unwrap();
    })
    .await;
    assert_eq!(rig.names(), ["order", "rpc foo", "rpc foo"]);
    let flow = ids(&rig.spans()[0]);
    assert!(rig.spans()[1..].iter().all(|call| place(call) == flow));
    assert!(rig.server.seen()[1].1["param"]["headers"][key::HEADER_FLOW].is_null());
}

#[tokio::test]
async fn a_request_without_a_flow_is_a_root_or_continues_its_client() {
    let rig = Rig::new(creates);
    drop(rig.flows.server_span("first", &headers(None)));
    let mut second = rig.flows.server_span("second", &headers(Some(INCOMING)));
    // It is refused before the flow starts.
    second.flow("order");
    second.set_error("500", "");
    drop(second);
    assert_eq!(named(&rig, "first").parent_span_id, SpanId::INVALID);
    let second = named(&rig, "second");
    assert_eq!(place(&second), (TraceId::from(1), SpanId::from(2)));
    assert!(has(&second, key::ERROR_TYPE) && matches!(second.status, Status::Error { .. }));
    assert_eq!(rig.spans().len(), 2);
}
