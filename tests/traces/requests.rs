//! The requests that start flows or find them: which trace they are in, and what their spans say.

use std::time::Duration;

use futures_util::join;
use reqwest::Method;
use testkit::{Http, Server, Span, Stopped};

use crate::{
    invariants::{Shape, shape},
    observed::{Observed, PLAIN, trace_of},
    proxy::{Fault, Proxy},
};

testkit::on_each_server!(
    a_request_that_finds_a_settled_flow_has_its_own_trace_with_a_link,
    a_request_that_finds_a_pending_flow_joins_it_unless_it_has_a_context,
    a_flow_whose_creation_was_not_answered_is_one_trace_with_the_request_that_is_sent_again,
    a_client_that_hangs_up_leaves_a_request_that_says_so,
    a_request_says_what_http_conventions_ask_for,
);

async fn a_request_that_finds_a_settled_flow_has_its_own_trace_with_a_link(
    server: Server,
) -> Stopped {
    let system = Observed::shared(server).await;
    let http = system.http();
    let first = http.post("/await-chain?id=link").await;
    let again = http.post("/await-chain?id=link").await;
    let trace = "7e570000000000000000000000000001";
    let context = format!("00-{trace}-7e57000000000001-01");
    let headers = [("traceparent", &*context)];
    let continued = http.send(Method::POST, "/await-chain?id=link", &headers).await.unwrap();
    for answer in [&again, &continued] {
        answer.expect_start(3.into(), "link", true);
        assert_eq!(trace_of(answer), trace_of(&first), "the answer names the flow's trace");
    }
    let flow = system.span("the flow", |span| is_flow(span, "link")).await;
    let alone = |span: &Span| span.kind == "server" && !span.links.is_empty() && asks(span, "link");
    let alone = system.span("the request", |span| alone(span) && span.trace != trace).await;
    expect_tree!(system, &alone.trace, PLAIN, @"
        gateway: POST /await-chain [server] route=/await-chain status=200 reconnected link=another trace
    ");
    let request = expect_tree!(system, trace, PLAIN, @"
        ? gateway: POST /await-chain [server] route=/await-chain status=200 reconnected link=another trace
    ").remove(0);
    for request in [&request, &alone] {
        assert_eq!(request.links, [(flow.trace.clone(), flow.id.clone())]);
    }
    assert!(alone.trace != flow.trace && trace != flow.trace, "{alone:#?}");
    system.stop().await
}

async fn a_request_that_finds_a_pending_flow_joins_it_unless_it_has_a_context(
    server: Server,
) -> Stopped {
    let system = Observed::shared(server).await;
    let http = system.http();
    let path = "/fan-out-workflow?id=joins&sleep=1s";
    let trace = "7e570000000000000000000000000003";
    let context = format!("00-{trace}-7e57000000000003-01");
    let first = http.post(path);
    let others = async {
        let flow = system.span("the flow", |span| is_flow(span, "joins")).await;
        let headers = [("traceparent", &*context)];
        let continued = http.send(Method::POST, path, &headers);
        let (joins, continued) = join!(http.post(path), continued);
        (flow, joins, continued.unwrap())
    };
    let (first, (flow, joins, continued)) = join!(first, others);
    first.expect_start(3.into(), "joins", false);
    for answer in [&joins, &continued] {
        answer.expect_start(3.into(), "joins", true);
        assert_eq!(trace_of(answer), flow.trace);
    }
    expect_tree!(system, &flow.trace, PLAIN, @"
        gateway: fan-out-workflow [internal] promise=joins
          gateway: POST /fan-out-workflow [server] route=/fan-out-workflow status=200
          gateway: POST /fan-out-workflow [server] route=/fan-out-workflow status=200 reconnected
          gateway: rpc zim [producer] promise=joins group=service-g
            service-g: zim [internal] promise=joins group=service-g state=resolved
            service-g: zim on service-g* [consumer] promise=joins group=service-g outcome=fulfilled
            service-g: rpc dop [producer] promise=joins.1 group=service-i
              service-i: dop [internal] promise=joins.1 group=service-i state=resolved
              service-i: dop on service-i* [consumer] promise=joins.1 group=service-i outcome=fulfilled
            service-g: rpc rax [producer] promise=joins.0 group=service-h
              service-h: rax [internal] promise=joins.0 group=service-h state=resolved
              service-h: rax on service-h* [consumer] promise=joins.0 group=service-h outcome=fulfilled
              service-h: sleep 1s [internal] promise=joins.0.0
    ");
    let request = expect_tree!(system, trace, PLAIN, @"
        ? gateway: POST /fan-out-workflow [server] route=/fan-out-workflow status=200 reconnected link=another trace
    ").remove(0);
    assert_eq!(request.links, [(flow.trace, flow.id)]);
    system.stop().await
}

/// Whether this is the span of the flow `id`.
fn is_flow(span: &Span, id: &str) -> bool {
    shape(span) == Shape::Flow && span.promise() == id
}

/// Whether this request asks for the flow `id`.
fn asks(span: &Span, id: &str) -> bool {
    span.get("url.query") == format!("id={id}")
}

async fn a_flow_whose_creation_was_not_answered_is_one_trace_with_the_request_that_is_sent_again(
    server: Server,
) -> Stopped {
    let system = Observed::start(server, &[]).await;
    let proxy = Proxy::start(&system.server_url, "promise.create", Fault::LoseAnswers).await;
    let arguments = ["gateway", "--server", &proxy.url(), "--listen", "127.0.0.1:0"];
    let http = Http::new(&system.start_process("gateway-proxied", &arguments, &[]).await);
    let path = "/await-chain?id=unanswered&sleep=6s";
    http.post(path).await.expect_problem(503);
    // It was created all the same.
    let trace = system.trace_of("unanswered").await;
    proxy.release();
    let again = http.post(path).await;
    again.expect_start(3.into(), "unanswered", true);
    assert_eq!(trace_of(&again), trace);
    let flow = system.span("the flow", |span| is_flow(span, "unanswered")).await;
    let reason = flow.error.clone().expect("it says that there was no answer");
    assert_eq!(flow.get("error.type"), "unreachable");
    expect_tree!(
        system,
        &trace,
        PLAIN,
        redact: [(reason.as_str(), "[reason]")],
        @"
        gateway: await-chain [internal] promise=unanswered ERROR [reason]
          gateway: POST /await-chain [server] route=/await-chain status=503 ERROR
          gateway: POST /await-chain [server] route=/await-chain status=200 reconnected
          gateway: rpc foo [producer] promise=unanswered group=service-a
            service-a: foo [internal] promise=unanswered group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=unanswered group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=unanswered.0 group=service-b
              service-b: bar [internal] promise=unanswered.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=unanswered.0 group=service-b outcome=fulfilled
              service-b: rpc baz [producer] promise=unanswered.0.0 group=service-c
                service-c: baz [internal] promise=unanswered.0.0 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=unanswered.0.0 group=service-c outcome=fulfilled
                service-c: sleep 6s [internal] promise=unanswered.0.0.0
        "
    );
    system.stop().await
}

async fn a_client_that_hangs_up_leaves_a_request_that_says_so(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let http = system.http();
    let path = "/await-chain?id=hangs-up&sleep=500ms";
    {
        let request = http.post(path);
        tokio::select! {
            answer = request => panic!("answered before the hang-up: {}", answer.text),
            _ = system.span("the flow", |span| is_flow(span, "hangs-up")) => {}
        }
        // Here the request is dropped, and its connection with it.
    }
    let trace = system.trace_of("hangs-up").await;
    let hung_up = |span: &Span| span.trace == trace && span.kind == "server";
    let request = system.span("the request", hung_up).await;
    assert_eq!(request.get("error.type"), "client_disconnected", "{request:#?}");
    assert!(request.duration() < Duration::from_secs(10), "{request:#?}");
    expect_tree!(system, &trace, PLAIN, @"
        gateway: await-chain [internal] promise=hangs-up
          gateway: POST /await-chain [server] route=/await-chain ERROR the client closed the connection before the answer
          gateway: rpc foo [producer] promise=hangs-up group=service-a
            service-a: foo [internal] promise=hangs-up group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=hangs-up group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=hangs-up.0 group=service-b
              service-b: bar [internal] promise=hangs-up.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=hangs-up.0 group=service-b outcome=fulfilled
              service-b: rpc baz [producer] promise=hangs-up.0.0 group=service-c
                service-c: baz [internal] promise=hangs-up.0.0 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=hangs-up.0.0 group=service-c outcome=fulfilled
                service-c: sleep 500ms [internal] promise=hangs-up.0.0.0
    ");
    system.stop().await
}

async fn a_request_says_what_http_conventions_ask_for(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let http = system.http();
    let headers = [
        ("user-agent", "test/1"),
        ("x-forwarded-for", "192.0.2.4, 198.51.100.7"),
        ("x-forwarded-proto", "https"),
    ];
    for (path, headers, status) in [
        ("/await-chain?id=http", &headers[..], 200),
        ("/await-chain?id=http-failed&fail=5", &[], 502),
        ("/await-chain?work=6", &[], 400),
    ] {
        let answer = http.send(Method::POST, path, headers).await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text);
        let query = path.split_once('?').unwrap().1;
        let matches = |span: &Span| span.kind == "server" && span.get("url.query") == query;
        let span = system.span("the request", matches).await;
        let (address, port) = system.gateway.rsplit_once(':').unwrap();
        let direct = headers.is_empty();
        for (name, expected) in [
            ("http.request.method", "POST"),
            ("http.route", "/await-chain"),
            ("http.response.status_code", &*status.to_string()),
            ("url.scheme", if direct { "http" } else { "https" }),
            ("url.path", "/await-chain"),
            ("server.address", address),
            ("server.port", port),
            ("client.address", if direct { address } else { "192.0.2.4" }),
            ("network.peer.address", address),
            ("network.protocol.version", "1.1"),
            ("user_agent.original", if direct { "" } else { "test/1" }),
            ("error.type", if status == 502 { "502" } else { "" }),
            ("span.type", ""),
        ] {
            assert_eq!(span.get(name), expected, "{name} of {span:#?}");
        }
        assert!(span.get("network.peer.port").parse::<u16>().is_ok(), "{span:#?}");
        assert_eq!(span.error.is_some(), status == 502, "{span:#?}");
        // A request that starts nothing is a trace of its own.
        let root = span.parent.is_none();
        assert_eq!(root, status == 400, "{span:#?}");
    }
    system.stop().await
}
