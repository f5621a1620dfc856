//! Trace contexts: where they come from, how they travel, and who reads them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use testkit::{Http, Server, Span, Stopped, until};

use crate::{
    invariants::{BY_HAND, Shape, shape},
    observed::{Observed, PLAIN, one, trace_of},
};

testkit::on_each_server!(
    an_incoming_context_is_continued,
    a_context_that_is_not_sampled_travels_and_nothing_is_exported,
    turned_off_nothing_is_exported_and_contexts_travel,
    a_promise_without_a_context_starts_a_trace,
    a_promise_without_a_context_joins_the_trace_of_its_parent,
    every_line_of_a_function_names_its_promise_and_its_trace,
    spans_reach_the_collector_within_a_second,
    only_requests_for_flows_are_traced,
    baggage_is_stored_in_invocations_if_it_is_asked_for,
    single_requests_have_spans_at_debug_level_only,
);

/// The contexts in the headers of the three promises of the await chain `id`.
async fn contexts(system: &Observed, id: &str) -> Vec<String> {
    let mut contexts = Vec::new();
    for promise in [id.to_owned(), format!("{id}.0"), format!("{id}.0.0")] {
        let promise = system.resonate().promise(&promise).await;
        assert_eq!(promise["state"], "resolved", "{promise}");
        let context = &promise["param"]["headers"]["traceparent"];
        contexts.push(context.as_str().unwrap_or_default().to_owned());
    }
    contexts
}

async fn an_incoming_context_is_continued(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let trace = "7e570000000000000000000000000010";
    let context = format!("00-{trace}-7e57000000000010-01");
    let headers = [("traceparent", &*context)];
    let path = "/await-chain?id=continued";
    let answer = system.http().send(Method::POST, path, &headers).await.unwrap();
    answer.expect_message(3);
    assert_eq!(trace_of(&answer), trace);
    let spans = expect_tree!(system, trace, PLAIN, @"
        ? gateway: await-chain [internal] promise=continued
          gateway: rpc foo [producer] promise=continued group=service-a
            service-a: foo [internal] promise=continued group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=continued group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=continued.0 group=service-b
              service-b: bar [internal] promise=continued.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=continued.0 group=service-b outcome=fulfilled
              service-b: rpc baz [producer] promise=continued.0.0 group=service-c
                service-c: baz [internal] promise=continued.0.0 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=continued.0.0 group=service-c outcome=fulfilled
        ? gateway: POST /await-chain [server] route=/await-chain status=200
    ");
    for name in ["await-chain", "POST /await-chain"] {
        assert_eq!(one(&spans, name).parent.as_deref(), Some("7e57000000000010"), "{name}");
    }
    system.stop().await
}

async fn a_context_that_is_not_sampled_travels_and_nothing_is_exported(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let trace = "7e570000000000000000000000000011";
    let context = format!("00-{trace}-7e57000000000011-00");
    let headers = [("traceparent", &*context)];
    let path = "/await-chain?id=unsampled&work=300ms";
    let linking = [("GATEWAY_JAEGER_URL", "http://jaeger.test")];
    let http = system.another_gateway("gateway-link", &linking).await;
    let answer = http.send(Method::POST, path, &headers).await.unwrap();
    answer.expect_message(3);
    assert_eq!((trace_of(&answer), &answer.body["trace_url"]), (trace, &Value::Null));
    let sampled = http.post("/await-chain?id=sampled").await;
    let url = format!("http://jaeger.test/trace/{}", trace_of(&sampled));
    assert_eq!(sampled.body["trace_url"], url);
    let root = system.resonate().promise("unsampled").await;
    let context = root["param"]["headers"]["traceparent"].as_str().unwrap();
    assert!(context.starts_with(&format!("00-{trace}-")) && context.ends_with("-00"), "{context}");
    let bar = system.resonate().promise("unsampled.0").await;
    let below = bar["param"]["headers"]["traceparent"].as_str().unwrap();
    assert!(below.starts_with(&format!("00-{trace}-")) && below.ends_with("-00"), "{below}");
    assert_ne!(below, context, "each call has its own span id");
    // No span, neither now nor at the end.
    expect_tree!(system, trace, PLAIN, @"");
    system.stop().await
}

async fn turned_off_nothing_is_exported_and_contexts_travel(server: Server) -> Stopped {
    let system = Observed::start(server, &[("OTEL_SDK_DISABLED", "true")]).await;
    let context = "00-7e570000000000000000000000000012-7e57000000000012-01";
    let path = "/await-chain?id=off";
    let headers = [("traceparent", context)];
    let answer = system.http().send(Method::POST, path, &headers).await.unwrap();
    answer.expect_message(3);
    assert_eq!(trace_of(&answer), "7e570000000000000000000000000012");
    assert_eq!(contexts(&system, "off").await, [context; 3]);
    let answer = system.http().post("/await-chain?id=off-plain").await;
    answer.expect_message(3);
    assert_eq!(answer.body["trace_id"], Value::Null, "{}", answer.text);
    assert_eq!(contexts(&system, "off-plain").await, [""; 3]);
    let (collector, stopped) = system.stop_and_keep().await;
    assert_eq!(collector.requests(), 0, "requests reached the collector");
    stopped
}

async fn baggage_is_stored_in_invocations_if_it_is_asked_for(server: Server) -> Stopped {
    let members = (0..50).map(|n| format!("key{n}={}", "v".repeat(40)));
    let baggage = members.collect::<Vec<_>>().join(",");
    let stored = async |system: &Observed, id: &str| {
        let path = format!("/await-chain?id={id}&work=10ms");
        let headers = [("baggage", &*baggage)];
        system.http().send(Method::POST, &path, &headers).await.unwrap().expect_message(3);
        let of = async |promise: String| {
            let promise = system.resonate().promise(&promise).await;
            assert_eq!(promise["state"], "resolved", "{promise}");
            let stored = promise["param"]["headers"]["baggage"].as_str();
            stored.map(str::to_owned)
        };
        // The calls of foo, bar and baz, and a step of bar.
        futures_util::future::join_all(["", ".0", ".0.1", ".0.0"].map(|it| of(format!("{id}{it}"))))
            .await
    };
    let system = Observed::shared(server).await;
    assert_eq!(stored(&system, "baggage-off").await, [const { None }; 4]);
    system.stop().await;

    let settings = [("OTEL_PROPAGATORS", "tracecontext,baggage")];
    let system = Observed::start(server, &settings).await;
    let found = stored(&system, "baggage-on").await;
    assert_eq!(found[3], None, "a step has none");
    for found in &found[..3] {
        let found = found.as_ref().expect("each call has some");
        assert!((900..=1_024).contains(&found.len()), "{} bytes", found.len());
        assert!(found.split(',').all(|member| baggage.split(',').any(|it| it == member)));
    }
    system.stop().await
}

fn call(function: &str) -> Value {
    let call = json!({"func": function, "args": null});
    json!({"headers": {}, "data": BASE64_STANDARD.encode(call.to_string())})
}

async fn a_promise_without_a_context_starts_a_trace(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let id = format!("{BY_HAND}-alone");
    system.resonate().create(&id, "poll://any@service-b", call("bar")).await;
    let received = system.span("the root span", |span| span.name == "received bar").await;
    let spans = expect_tree!(
        system,
        &received.trace,
        PLAIN,
        redact: [(id.as_str(), "[id]")],
        @"
        service-b: received bar [consumer] promise=[id] group=service-b
          service-b: bar [internal] promise=[id] group=service-b state=resolved
          service-b: bar on service-b* [consumer] promise=[id] group=service-b outcome=fulfilled
          service-b: rpc baz [producer] promise=[id].0 group=service-c
            service-c: baz [internal] promise=[id].0 group=service-c state=resolved
            service-c: baz on service-c* [consumer] promise=[id].0 group=service-c outcome=fulfilled
        "
    );
    let runs = spans.iter().filter(|span| span.name.starts_with("bar on "));
    assert!(runs.count() >= 1, "{spans:#?}");
    system.stop().await
}

async fn a_promise_without_a_context_joins_the_trace_of_its_parent(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let parent = "parent";
    let answer = system.http().post(&format!("/fan-out-workflow?id={parent}")).await;
    answer.expect_message(3);
    let id = format!("{BY_HAND}-joins");
    let timeout = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(600);
    let tags = json!({
        "resonate:origin": parent, "resonate:branch": id, "resonate:parent": parent,
        "resonate:scope": "global", "resonate:target": "poll://any@service-c",
    });
    let timeout = timeout.as_millis() as u64;
    let promise = json!({"id": id, "timeoutAt": timeout, "param": call("baz"), "tags": tags});
    let (status, data) = system.resonate().send("promise.create", promise).await;
    assert_eq!(status, 200, "{data}");
    expect_tree!(
        system,
        trace_of(&answer),
        PLAIN,
        redact: [(id.as_str(), "[id]")],
        @"
        gateway: fan-out-workflow [internal] promise=parent
          gateway: POST /fan-out-workflow [server] route=/fan-out-workflow status=200
          gateway: rpc zim [producer] promise=parent group=service-g
            service-c: baz [internal] promise=[id] group=service-c state=resolved
            service-g: zim [internal] promise=parent group=service-g state=resolved
            service-c: baz on service-c* [consumer] promise=[id] group=service-c outcome=fulfilled
            service-g: zim on service-g* [consumer] promise=parent group=service-g outcome=fulfilled
            service-g: rpc dop [producer] promise=parent.1 group=service-i
              service-i: dop [internal] promise=parent.1 group=service-i state=resolved
              service-i: dop on service-i* [consumer] promise=parent.1 group=service-i outcome=fulfilled
            service-g: rpc rax [producer] promise=parent.0 group=service-h
              service-h: rax [internal] promise=parent.0 group=service-h state=resolved
              service-h: rax on service-h* [consumer] promise=parent.0 group=service-h outcome=fulfilled
        "
    );
    system.stop().await
}

async fn every_line_of_a_function_names_its_promise_and_its_trace(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let answer = system.http().post("/await-chain?id=lines&work=400ms&fail=1").await;
    answer.expect_message(3);
    for (message, step, promise) in [
        ("step started", "lines.0.0", "lines.0"),
        ("step done", "lines.0.0", "lines.0"),
        ("step started", "lines.0.1.0", "lines.0.1"),
        ("step failed, retrying", "lines.0.1.0", "lines.0.1"),
        ("step done", "lines.0.1.0", "lines.0.1"),
    ] {
        let lines = system.log.all(|line| line.in_run(message, promise));
        assert_eq!(lines.len(), 1, "{message} of {promise}: {lines:#?}");
        assert_eq!(lines[0].field("trace_id"), Some(trace_of(&answer)), "{}", lines[0].text);
        assert_eq!(lines[0].field("promise"), Some(step), "{}", lines[0].text);
    }
    system.stop().await
}

async fn spans_reach_the_collector_within_a_second(server: Server) -> Stopped {
    const ALLOWANCE: Duration = Duration::from_millis(500);
    let system = Observed::shared(server).await;
    let http = system.http();
    let mut latest = Duration::ZERO;
    for n in 0..5 {
        let answer = http.post(&format!("/await-chain?id=soon-{n}&work=50ms")).await;
        answer.expect_message(3);
        let trace = trace_of(&answer).to_owned();
        // This span ends last: with the answer.
        system.span("the request", |span| span.trace == trace && span.kind == "server").await;
        for span in system.collector.spans().iter().filter(|span| span.trace == trace) {
            let delay = span.delay();
            assert!(delay < Duration::from_secs(1) + ALLOWANCE, "{delay:?} late: {span:#?}");
            latest = latest.max(delay);
        }
    }
    eprintln!("spans on {server:?} arrived at most {latest:?} after their end");
    system.stop().await
}

async fn only_requests_for_flows_are_traced(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let http = system.http();
    let service = Http::new(&system.address("service-a"));
    for http in [&http, &service] {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(http.get(path).await.status, 200);
        }
    }
    http.get("/flows/healthy").await.expect_problem(404);
    http.get("/await-chain").await.expect_problem(405);
    // Spans of earlier requests would arrive no later than those of this one.
    http.post("/await-chain?id=health").await.expect_message(3);
    let later = |span: &Span| span.get("url.query") == "id=health";
    system.span("the next request", later).await;
    let foo = |span: &Span| span.name == "foo" && span.promise() == "health";
    system.span("a span of service-a", foo).await;
    let traced = system
        .collector
        .spans()
        .into_iter()
        .find(|span| span.kind == "server" && span.get("http.request.method") != "POST");
    assert!(traced.is_none(), "{traced:#?}");
    system.stop().await
}

async fn single_requests_have_spans_at_debug_level_only(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let debug = system.another_gateway("gateway-debug", &[("NODE_LOG", "node=debug")]).await;
    let answer = debug.post("/fan-out-workflow?id=debug").await;
    answer.expect_message(3);
    let trace = trace_of(&answer).to_owned();
    let request = system.span("the request", |span| span.trace == trace && span.kind == "client");
    let request = request.await;
    assert_eq!((&*request.name, request.instance()), ("promise.create", "gateway-debug"));
    // One that finds a flow would be below a span that is never made.
    debug.post("/fan-out-workflow?id=debug").await.expect_message(3);
    until(&system.log, "the flow's trace", async || {
        let spans = system.collector.spans();
        spans.iter().any(|span| span.trace == trace && span.kind == "server").then_some(())
    })
    .await;
    let spans = system.collector.spans();
    let others: Vec<_> =
        spans.iter().filter(|span| shape(span) == Shape::Single && span.trace != trace).collect();
    assert!(others.is_empty(), "{others:#?}");
    system.stop().await
}
