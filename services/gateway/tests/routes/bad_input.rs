//! Whatever a client sends: a fitting status, an error in the format of RFC 9457, and never a
//! panic, a hang, or a 500.

use std::{sync::LazyLock, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri},
};
use futures_util::stream;
use gateway::Gateway;
use node::connections::{self, Limits};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::timeout,
};
use tower::ServiceExt;

use crate::gateway_with;

/// The largest body that is read.
const LARGEST_BODY: usize = 16 * 1024;

/// A request that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(10);

/// A gateway on an embedded server that no service is connected to, so that each flow stays
/// pending. Requests wait five milliseconds for its result.
struct Tested {
    runtime: Runtime,
    gateway: Gateway,
}

static TESTED: LazyLock<Tested> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let gateway = runtime.block_on(gateway_with(&["--await", "5ms", "--hosts", "*"]));
    Tested { runtime, gateway }
});

/// Sends a request; returns its answer with the whole body.
fn answer(request: Request<Body>) -> (Response<()>, Bytes) {
    let text = format!("{request:?}");
    TESTED.runtime.block_on(async {
        let exchange = async {
            let routes = TESTED.gateway.routes.clone();
            let (head, body) = routes.oneshot(request).await.unwrap().into_parts();
            (Response::from_parts(head, ()), axum::body::to_bytes(body, usize::MAX).await.unwrap())
        };
        timeout(HANG, exchange).await.unwrap_or_else(|_| panic!("no answer to {text}"))
    })
}

fn post(uri: &str) -> Request<Body> {
    Request::post(uri).body(Body::empty()).unwrap()
}

/// Fails unless the answer is an error in the format of RFC 9457 with `status`; returns its members.
#[track_caller]
fn problem(request: Request<Body>, status: u16) -> Value {
    let text = format!("{request:?}");
    let (head, body) = answer(request);
    assert_eq!(head.status(), status, "{text}: {body:?}");
    assert_eq!(head.headers()["content-type"], "application/problem+json", "{text}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["status"], status, "{text}: {body}");
    assert!(body["title"].is_string() && body["detail"].is_string(), "{text}: {body}");
    body
}

#[test]
fn a_bad_parameter_is_named_and_nothing_is_started() {
    let huge = "9".repeat(8_000);
    let long = "x".repeat(101);
    for (n, (parameter, value)) in [
        ("work", "6"),
        ("work", ""),
        ("work", "11m"),
        ("work", "%"),
        ("work", "%zz"),
        ("work", "%ff%fe"),
        ("work", "6%00s"),
        ("work", &*huge),
        ("sleep", "-1s"),
        ("sleep", "1h"),
        ("fail", "11"),
        ("fail", "1.0"),
        ("fail", "%F0%9F%92%A5"),
        ("fail", &*huge),
        ("id", ""),
        ("id", "a.b"),
        ("id", "..%2f"),
        ("id", &*long),
        ("wrok", "6s"),
        ("ID", "x"),
    ]
    .into_iter()
    .enumerate()
    {
        for route in ["await-chain", "detached-chain", "fan-out-workflow"] {
            let id = format!("bad-{n}-{route}");
            let own = if parameter == "id" { String::new() } else { format!("id={id}&") };
            let found = problem(post(&format!("/{route}?{own}{parameter}={value}")), 400);
            assert_eq!(found["parameter"], parameter, "{found}");
            assert!(found["value"].is_string() && found["allowed"].is_string(), "{found}");
            let detail = found["detail"].as_str().unwrap();
            let beginnings =
                [format!("invalid {parameter} "), format!("unknown parameter {parameter:?}")];
            assert!(beginnings.iter().any(|beginning| detail.starts_with(beginning)), "{found}");
            problem(Request::get(format!("/flows/{id}")).body(Body::empty()).unwrap(), 404);
        }
    }
}

#[test]
fn a_repeated_parameter_is_refused() {
    for query in ["id=a&id=a", "work=1s&id=b&work=1s", "fail=1&fail=2", "sleep=1s&sleep=1s"] {
        let found = problem(post(&format!("/await-chain?{query}")), 400);
        assert!(
            found["detail"].as_str().unwrap().ends_with(" was given more than once"),
            "{found}"
        );
    }
    let repeated = Request::post("/await-chain").header("idempotency-key", "a");
    let repeated = repeated.header("idempotency-key", "a").body(Body::empty()).unwrap();
    assert_eq!(problem(repeated, 400)["parameter"], "Idempotency-Key");
}

#[test]
fn an_unknown_route_is_404_and_a_wrong_method_405_with_what_is_allowed() {
    for path in ["/await-chain/", "//await-chain", "/flows", "/flows/", "/flows/a/b", "/x%ff"] {
        for method in [Method::GET, Method::POST] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            problem(request, 404);
        }
    }
    let unknown = problem(Request::get("/flows/nobody").body(Body::empty()).unwrap(), 404);
    let detail = "no such flow: nobody; start it with POST /await-chain?id=nobody";
    assert_eq!(unknown["detail"], detail);
    let unknown = problem(Request::get("/x").body(Body::empty()).unwrap(), 404);
    let detail = "no such route: /x; try POST /await-chain, /detached-chain, /fan-out-workflow or GET /flows/{id}";
    assert_eq!(unknown["detail"], detail);
    for (path, wrong, allowed) in [
        ("/await-chain", Method::GET, "POST"),
        ("/detached-chain", Method::DELETE, "POST"),
        ("/fan-out-workflow", Method::HEAD, "POST"),
        ("/fan-out-workflow", Method::from_bytes(b"BREW").unwrap(), "POST"),
        ("/flows/x", Method::POST, "GET,HEAD,DELETE"),
        ("/healthz", Method::PUT, "GET,HEAD"),
        ("/readyz", Method::OPTIONS, "GET,HEAD"),
    ] {
        let request = Request::builder().method(wrong.clone()).uri(path);
        let (head, _) = answer(request.body(Body::empty()).unwrap());
        assert_eq!(head.status(), 405, "{wrong} {path}");
        assert_eq!(head.headers()["allow"], allowed, "{wrong} {path}");
        assert_eq!(head.headers()["content-type"], "application/problem+json", "{wrong} {path}");
    }
}

#[test]
fn a_path_that_does_not_decode_is_400() {
    for id in ["%ff", "%", "a%2fb", "a.b", "%00", &"x".repeat(101)] {
        problem(Request::get(format!("/flows/{id}")).body(Body::empty()).unwrap(), 400);
    }
}

/// A body of `length` bytes; if it is chunked, its length is not announced.
fn body(length: usize, chunked: bool) -> Body {
    let pieces = vec![Bytes::from(vec![b'x'; 1_000]); length / 1_000];
    let rest = Bytes::from(vec![b'x'; length % 1_000]);
    let pieces = pieces.into_iter().chain([rest]);
    match chunked {
        true => Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>))),
        false => Body::from(pieces.collect::<Vec<_>>().concat()),
    }
}

#[test]
fn a_body_over_16_kib_is_413_however_it_is_sent() {
    for chunked in [false, true] {
        let send = |length| Request::post("/await-chain?id=body").body(body(length, chunked));
        assert_eq!(answer(send(LARGEST_BODY).unwrap()).0.status(), StatusCode::ACCEPTED);
        problem(send(LARGEST_BODY + 1).unwrap(), 413);
        problem(send(1_000_000).unwrap(), 413);
    }
}

#[test]
fn a_body_that_breaks_off_is_400() {
    let pieces = [Ok(Bytes::from("x")), Err(std::io::Error::other("gone"))];
    let request = Request::post("/await-chain").body(Body::from_stream(stream::iter(pieces)));
    problem(request.unwrap(), 400);
}

/// What no HTTP library sends: each is answered with a 4xx, and the next request is served.
#[test]
fn bytes_that_are_not_http_do_no_harm() {
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let requests = [
        ("nonsense\r\n\r\n".into(), 400),
        (b"GET /flows/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 400),
        (b"POST /await-chain HTTP/1.1\r\nhost: x\r\nid\0: x\r\n\r\n".to_vec(), 400),
        (b"POST /await-chain HTTP/1.1\r\nhost: x\r\nidempotency-key: \xc3\xa9\r\n\r\n".to_vec(), 400),
        (b"POST /await-chain HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec(), 400),
        // Refused as soon as the length is announced, without waiting for the body.
        (b"POST /await-chain HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n".to_vec(), 413),
        (
            format!(
                "POST /await-chain HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}"
            )
            .into(),
            413,
        ),
        (
            b"POST /await-chain HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
            400,
        ),
        (format!("POST /await-chain HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)).into(), 431),
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000)).into(), 431),
        (b"POST /await-chain HTTP/1.1\r\nhost: x\r\nidempotency-k".to_vec(), 408),
    ];
    TESTED.runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { header: Duration::from_millis(500), ..Limits::new(100) };
        let routes = TESTED.gateway.routes.clone();
        tokio::spawn(connections::serve(listener, routes, limits, std::future::pending()));
        for (bytes, status) in requests {
            let bytes: Vec<u8> = bytes;
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The server may close the connection before it has read everything.
            let _ = stream.write_all(&bytes).await;
            let mut line = [0; 12];
            let read = timeout(HANG, stream.read_exact(&mut line)).await;
            read.unwrap_or_else(|_| panic!("no answer to {text}"))
                .unwrap_or_else(|error| panic!("{error} instead of an answer to {text}"));
            assert_eq!(line, format!("HTTP/1.1 {status}").as_bytes(), "{text}");
        }
    });
}

fn method() -> impl Strategy<Value = Method> {
    let known = select(vec!["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"]);
    let any = prop_oneof![4 => Just("POST".to_owned()), 4 => known.prop_map(str::to_owned), 1 => "[A-Z]{1,20}"];
    any.prop_map(|name| Method::from_bytes(name.as_bytes()).unwrap())
}

fn path() -> impl Strategy<Value = String> {
    let flows = select(vec!["/await-chain", "/detached-chain", "/fan-out-workflow"]);
    let others = select(vec!["/", "/flows/", "/healthz", "/readyz", "/flows/x", "/await-chain/"]);
    prop_oneof![
        4 => flows.prop_map(str::to_owned),
        1 => others.prop_map(str::to_owned),
        2 => "/flows/[a-zA-Z0-9._~%-]{0,120}",
        1 => "/[!-\"$->@-~]{0,40}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        8 => select(vec!["id", "work", "sleep", "fail"]).prop_map(str::to_owned),
        1 => "[ -\"$-~]{0,10}",
    ];
    let value = prop_oneof![
        4 => "[a-z0-9]{1,3}(ms|s|m)?",
        2 => "(%[0-9a-fA-F]{2}){1,6}",
        1 => "%[0-9a-zA-Z]?[g-z%]?",
        1 => "[0-9]{300,3000}",
        1 => "[!-\"$-~]{0,20}",
    ];
    let pair = (name, value, any::<bool>());
    let pair =
        pair.prop_map(|(name, value, both)| if both { format!("{name}={value}") } else { name });
    vec(pair, 0..5).prop_map(|pairs| pairs.join("&"))
}

fn headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    let name = select(vec![
        "idempotency-key",
        "traceparent",
        "tracestate",
        "baggage",
        "content-type",
        "content-length",
        "content-encoding",
        "accept",
        "expect",
        "host",
        "x-forwarded-for",
    ]);
    let value = prop_oneof![
        vec(any::<u8>(), 0..150),
        "[a-zA-Z0-9_-]{1,20}".prop_map(String::into_bytes),
        "00-[0-9a-f]{30,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}".prop_map(String::into_bytes),
    ];
    let header = (name, value).prop_filter_map("invalid header value", |(name, value)| {
        Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?))
    });
    vec(header, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn every_request_gets_a_fitting_answer(
        method in method(),
        path in path(),
        query in query(),
        headers in headers(),
        (length, chunked) in (prop_oneof![3 => Just(0_usize), 1 => 1..40_000_usize], any::<bool>()),
    ) {
        let uri = format!("{path}?{query}").parse::<Uri>();
        prop_assume!(uri.is_ok());
        let mut request = Request::new(body(length, chunked));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.unwrap();
        request.headers_mut().extend(headers);
        let text = format!("{method} {path}?{query}");
        let starts = ["/await-chain", "/detached-chain", "/fan-out-workflow"].contains(&&*path);
        let (head, body) = answer(request);
        let status = head.status().as_u16();
        let expected: &[u16] = match (starts, &method) {
            (true, &Method::POST) if length > LARGEST_BODY => &[413],
            // 202: no service runs the flow; 200: a detached flow was started.
            (true, &Method::POST) => &[200, 202, 400, 422],
            (true, _) => &[405],
            // A route with an id, a health check, or no route; 400 is for invalid ids.
            (false, _) => &[200, 400, 404, 405],
        };
        prop_assert!(expected.contains(&status), "{text}: {status} {body:?}");
        prop_assert_eq!(status == 405, head.headers().contains_key("allow"), "{}", &text);
        if status >= 400 {
            prop_assert_eq!(&head.headers()["content-type"], "application/problem+json", "{}", &text);
        }
        if status >= 400 && method != Method::HEAD {
            let problem: Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&problem["status"], status, "{}: {}", &text, &problem);
            prop_assert!(problem["title"].is_string() && problem["detail"].is_string());
        }
    }
}

#[test]
fn a_form_of_another_site_starts_nothing() {
    let form = |id: &str, name: &str, value: &str| {
        let uri = format!("/await-chain?id={id}");
        let request = Request::post(uri).header("host", "127.0.0.1:5000").header(name, value);
        let kind = "application/x-www-form-urlencoded";
        request.header("content-type", kind).body(Body::from("a=b")).unwrap()
    };
    for (name, value) in [("sec-fetch-site", "cross-site"), ("origin", "http://elsewhere")] {
        let refused = problem(form("form-1", name, value), 403);
        assert!(refused["detail"].as_str().unwrap().contains("own page"), "{refused}");
        problem(Request::get("/flows/form-1").body(Body::empty()).unwrap(), 404);
    }
    for (name, value) in [("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:5000")] {
        assert_eq!(answer(form("form-2", name, value)).0.status(), 202, "{name}: {value}");
    }
}
