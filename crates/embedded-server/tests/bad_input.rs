//! Bad input: whatever is sent to `POST /`, the answer comes soon, is no 5xx, and the server lives on.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use embedded_server::Config;
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestCaseError};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Far longer than any answer takes; only a hang reaches it.
const SOON: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 256 * 1024;

/// A server and a client, both on one runtime.
struct Target {
    runtime: Runtime,
    http: reqwest::Client,
    address: SocketAddr,
}

impl Target {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let bind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = runtime.block_on(bind).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let config = Config { max_body: MAX_BODY, ..Config::default() };
        runtime.spawn(embedded_server::run(listener, config, std::future::pending()));
        Self {
            runtime,
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
            address,
        }
    }

    /// Posts a body; checks what every answer must be; returns its status.
    fn post(&self, body: impl Into<reqwest::Body>) -> Result<u16, TestCaseError> {
        let request = self.http.post(format!("http://{}", self.address)).timeout(SOON);
        let answer = self.runtime.block_on(async {
            let answer = request.body(body).send().await?;
            Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.bytes().await?))
        });
        let (status, body) = answer.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        prop_assert!(status < 500, "{status}");
        if status != 413 {
            let body: Value = serde_json::from_slice(&body).expect("a JSON answer");
            prop_assert_eq!(&body["head"]["status"], &json!(status));
            prop_assert!(body["kind"].is_string() && body["head"]["corrId"].is_string());
            prop_assert!(status < 400 || body["data"].is_string(), "a reason: {}", body);
        }
        Ok(status)
    }

    fn is_alive(&self) -> bool {
        let id = json!({"id": "nobody-made-this"});
        matches!(self.post(envelope("promise.get", &id).to_string()), Ok(404))
    }
}

fn envelope(kind: &str, data: &Value) -> Value {
    let head = json!({"corrId": "c", "version": "2026-04-01", "auth": null});
    json!({"kind": kind, "head": head, "data": data})
}

/// A good request of each kind.
fn good() -> Vec<Value> {
    let tags = json!({"resonate:target": "poll://any@g", "resonate:branch": "a"});
    let param = json!({"headers": {"h": "v"}, "data": "x"});
    let create = json!({"id": "a", "timeoutAt": i64::MAX, "param": param, "tags": tags});
    let settle = json!({"id": "a", "state": "resolved", "value": param});
    let wait = json!({"awaited": "b", "awaiter": "a"});
    let action = |kind: &str, data: &Value| json!({"kind": kind, "head": {}, "data": data});
    let other = json!({"id": "b", "timeoutAt": i64::MAX, "param": {}, "tags": {}});
    [
        ("promise.create", create.clone()),
        ("promise.get", json!({"id": "a"})),
        ("promise.register_callback", wait.clone()),
        ("promise.register_listener", json!({"awaited": "a", "address": "poll://uni@g/i"})),
        ("promise.search", json!({"state": "pending", "tags": tags, "limit": 5, "cursor": "a"})),
        ("task.get", json!({"id": "a"})),
        ("task.create", json!({"pid": "p", "ttl": 1, "action": action("promise.create", &create)})),
        ("task.acquire", json!({"id": "a", "version": 0, "pid": "p", "ttl": 1000})),
        (
            "task.fence",
            json!({"id": "a", "version": 1, "action": action("promise.create", &other)}),
        ),
        ("task.heartbeat", json!({"pid": "p", "tasks": [{"id": "a", "version": 1}]})),
        ("task.suspend", json!({"id": "a", "version": 1, "actions": [action("k", &wait)]})),
        ("task.release", json!({"id": "a", "version": 1})),
        ("task.search", json!({"state": "acquired", "limit": 5})),
        ("task.fulfill", json!({"id": "a", "version": 1, "action": action("k", &settle)})),
        ("promise.settle", settle),
        ("schedule.create", json!({"id": "a", "cron": "* * * * *"})),
    ]
    .map(|(kind, data)| envelope(kind, &data))
    .to_vec()
}

/// Any JSON, with the numbers and strings that hurt.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(-1), Just(0)].prop_map(Value::from),
        Just(Value::from(u64::MAX)),
        any::<String>().prop_map(Value::from),
        "[a-c.]{0,3}".prop_map(Value::from),
        "(poll|http|POLL)://(any|uni|x)?@?[a-z%:/?#\\[\\]@]{0,9}".prop_map(Value::from),
        (0..60_000_usize).prop_map(|length| Value::from("\u{1F980}".repeat(length / 4))),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            hash_map("[a-z]{0,3}", inner, 0..6)
                .prop_map(|map| Value::from(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The places of a value: itself, and everything in it.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(field, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// A good request of any kind with anything in one or two of its places.
fn almost_good() -> impl Strategy<Value = Value> {
    let change = (any::<prop::sample::Index>(), any_json());
    (prop::sample::select(good()), vec(change, 1..3)).prop_map(|(mut request, changes)| {
        for (index, value) in changes {
            let mut found = Vec::new();
            places(&request, "", &mut found);
            let place: &String = index.get(&found);
            if let Some(place) = request.pointer_mut(place) {
                *place = value;
            }
        }
        request
    })
}

/// The text of a good request with some bytes cut out and others put in.
fn garbled() -> impl Strategy<Value = Vec<u8>> {
    let cut = (any::<prop::sample::Index>(), 0..12_usize, vec(any::<u8>(), 0..6));
    (prop::sample::select(good()), vec(cut, 1..4)).prop_map(|(request, cuts)| {
        let mut text = request.to_string().into_bytes();
        for (start, length, bytes) in cuts {
            if text.is_empty() {
                break;
            }
            let start = start.index(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, bytes);
        }
        text
    })
}

fn check<S: Strategy>(
    cases: u32,
    strategy: S,
    test: impl Fn(&Target, S::Value) -> Result<(), TestCaseError>,
) {
    let target = Target::start();
    let config = Cases { cases, failure_persistence: None, ..Cases::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&strategy, |value| test(&target, value));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(target.is_alive(), "the server still answers");
}

#[test]
fn good_requests_are_good() {
    let target = Target::start();
    for request in good() {
        let status = target.post(request.to_string()).expect("an answer");
        // So that what the others change was good before.
        assert_eq!(status == 400, request["kind"] == "schedule.create", "{request}");
    }
    assert!(target.is_alive());
}

#[test]
fn any_bytes_are_refused() {
    check(400, vec(any::<u8>(), 0..300), |target, body| {
        prop_assert_eq!(target.post(body)?, 400);
        Ok(())
    });
}

#[test]
fn garbled_requests_are_answered() {
    check(1_500, garbled(), |target, body| target.post(body).map(drop));
}

#[test]
fn wrong_types_and_oversized_values_are_answered() {
    check(1_500, almost_good(), |target, request| target.post(request.to_string()).map(drop));
}

#[test]
fn any_json_is_refused() {
    check(300, any_json(), |target, body| {
        prop_assert!(matches!(target.post(body.to_string())?, 400 | 413));
        Ok(())
    });
}

#[test]
fn unknown_kinds_are_refused() {
    let kind = prop_oneof![any::<String>(), "(promise|task|schedule|debug)\\.[a-z_]{0,12}"];
    let known: Vec<String> =
        good().iter().map(|good| good["kind"].as_str().unwrap_or_default().to_owned()).collect();
    check(500, kind, |target, kind| {
        prop_assume!(!known.contains(&kind));
        let status = target.post(envelope(&kind, &json!({"id": "x"})).to_string())?;
        prop_assert!(matches!(status, 400 | 403), "{}", status);
        Ok(())
    });
}

#[test]
fn depth_and_length_have_limits() {
    let target = Target::start();
    let head = r#""head":{"corrId":"c","version":"2026-04-01"}"#;
    for depth in [10, 127, 128, 10_000, 60_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        for field in ["id", "unknown"] {
            let data = format!("{{\"{field}\":{open}{close}}}");
            let body = format!("{{\"kind\":\"promise.get\",{head},\"data\":{data}}}");
            assert_eq!(target.post(body).expect("an answer"), 400, "{field} at {depth}");
        }
    }
    let long = "x".repeat(MAX_BODY - 1_000);
    let create = envelope("promise.create", &json!({"id": long, "timeoutAt": i64::MAX}));
    assert_eq!(target.post(create.to_string()).expect("an answer"), 200);
    assert_eq!(target.post("x".repeat(MAX_BODY + 1)).expect("an answer"), 413);
    assert!(target.is_alive());
}

#[test]
fn broken_http_harms_nobody() {
    let start = prop_oneof![
        Just("POST / HTTP/1.1\r\n"),
        Just("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"),
        Just("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"),
        Just("GET /poll/%ff/%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        Just(""),
    ];
    check(150, (start, vec(any::<u8>(), 0..100)), |target, (start, bytes)| {
        target.runtime.block_on(async {
            let mut stream = TcpStream::connect(target.address).await.expect("a connection");
            // The server may hang up at any point.
            let _ = stream.write_all(start.as_bytes()).await;
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
            assert!(read.is_ok(), "the server hangs");
            assert!(!answer.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&answer));
        });
        Ok(())
    });
}
