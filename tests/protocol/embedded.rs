//! What the embedded server does beyond the official one, and its binary.

use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use embedded_server::Config;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Context, PATIENCE, now};
use crate::servers::{Embedded, until};

/// So long that no retry can be taken for an immediate delivery.
const NEVER: Duration = Duration::from_secs(3_600);

async fn start(config: Config) -> (Embedded, Context) {
    let server = Embedded::start(config).await;
    let context = Context::new(&server.url, &reqwest::Client::new(), "embedded", "0");
    (server, context)
}

async fn without_retry() -> (Embedded, Context) {
    start(Config { retry_timeout: NEVER, ..Config::default() }).await
}

#[tokio::test]
async fn a_message_for_a_dead_connection_goes_to_a_living_one_at_once() {
    let (server, c) = without_retry().await;
    let mut doomed = c.listen("doomed").await;
    let mut living = c.listen("living").await;
    let (id, held) = (c.id("t"), c.id("held"));
    for id in [&id, &held] {
        c.create(id, json!({"resonate:target": format!("{}/doomed", c.anycast())})).await;
        doomed.executes(id, 0).await;
    }
    c.acquire(&held, 0, "doomed", 60_000).await.status(200);
    drop(doomed);
    // Only what is still pending: the other one has a lease, and waits for its end.
    living.executes(&id, 0).await;
    let next = c.id("next");
    c.create_target(&next).await;
    living.executes(&next, 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_message_for_nobody_waits_for_the_first_connection() {
    let (server, c) = without_retry().await;
    let (id, gone) = (c.id("t"), c.id("gone"));
    c.create_target(&id).await;
    c.create_target(&gone).await;
    c.settle(&gone).await.status(200);
    let mut first = c.listen("first").await;
    first.executes(&id, 0).await;
    // It was delivered; the next connection gets only what comes.
    let mut second = c.listen("second").await;
    drop(first);
    second.executes(&id, 0).await;
    assert_eq!(second.waiting(), None);
    server.stop().await;
}

#[tokio::test]
async fn settled_flows_are_forgotten_after_their_retention() {
    let retention = Duration::from_millis(800);
    let (server, c) = start(Config { retention, ..Config::default() }).await;
    let (root, child, open) = (c.id("r"), c.id("r.1"), c.id("open"));
    let branch = json!({"resonate:branch": root});
    let tags = json!({"resonate:branch": root, "resonate:target": c.anycast()});
    c.create(&root, tags.clone()).await;
    c.create(&child, branch.clone()).await;
    c.create(&open, json!({})).await;
    c.settle(&c.id("open")).await.status(200);
    c.create(&c.id("open.1"), json!({})).await;
    c.settle(&root).await.status(200);
    // The flow is whole as long as one of its promises is pending.
    tokio::time::sleep(retention * 2).await;
    assert_eq!(c.get(&root).await["state"], "resolved");
    let settled = Instant::now();
    c.settle(&child).await.status(200);
    let gone = async |id: &str| {
        let reply = c.call("promise.get", json!({"id": id})).await;
        reply.body["head"]["status"] == 404
    };
    until(|| gone(&child)).await;
    // The server counts whole milliseconds.
    assert!(settled.elapsed() + Duration::from_millis(1) >= retention, "not before its time");
    assert!(gone(&root).await, "as a whole");
    c.call("task.get", json!({"id": root})).await.refuses(404, "Task not found");
    assert_eq!(c.get(&open).await["state"], "resolved", "its flow is not over");
    // What comes next under the same id is new, and finds nothing of what was.
    c.create(&root, tags).await;
    let reply = c.acquire(&root, 0, "pid", 60_000).await.status(200);
    assert_eq!(reply["preload"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn the_oldest_settled_flows_are_forgotten_when_there_are_too_many() {
    let config = Config { max_settled_flows: 2, ..Config::default() };
    let (server, c) = start(config).await;
    let ids: Vec<String> = (0..4).map(|n| c.id(&format!("p{n}"))).collect();
    for id in &ids {
        c.create(id, json!({})).await;
        c.settle(id).await.status(200);
        let at = now();
        until(|| async { now() > at }).await; // So that each has an age of its own.
    }
    let found = c.call("promise.search", json!({})).await.status(200);
    let found: Vec<_> = found["promises"].as_array().into_iter().flatten().collect();
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0]["id"], &found[1]["id"]), (&json!(ids[2]), &json!(ids[3])));
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_supported_is_refused_with_a_reason() {
    let (server, c) = without_retry().await;
    let kinds = [
        "task.halt",
        "task.continue",
        "schedule.get",
        "schedule.create",
        "schedule.delete",
        "schedule.search",
    ];
    for kind in kinds {
        let reason = format!("Not supported by the embedded server: {kind}");
        c.call(kind, json!({"id": "x"})).await.refuses(400, &reason);
    }
    let reason = "Not supported by the embedded server: addresses other than poll://";
    for address in ["http://localhost/hook", "https://localhost", "gcps://project/topic", "bash://"]
    {
        let tags = json!({"resonate:target": address});
        let create = json!({"id": c.id("p"), "timeoutAt": c.far(), "tags": tags});
        c.call("promise.create", create).await.refuses(400, reason);
        let listener = json!({"awaited": c.id("p"), "address": address});
        c.call("promise.register_listener", listener).await.refuses(400, reason);
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_and_bodies_are_limited() {
    let config = Config { max_connections: 1, max_body: 100, ..Config::default() };
    let (server, c) = start(config).await;
    let first = c.listen("first").await;
    let second = || c.http.get(format!("{}/poll/group/second", c.url)).send();
    assert_eq!(second().await.expect("an answer").status().as_u16(), 503);
    drop(first);
    until(|| async { second().await.is_ok_and(|answer| answer.status().is_success()) }).await;
    assert_eq!(c.post(vec![b' '; 100]).await.0, 400);
    assert_eq!(c.post(vec![b' '; 101]).await.0, 413);
    server.stop().await;
}

#[tokio::test]
async fn shutdown_ends_streams_and_waits_for_no_one() {
    let (server, c) = without_retry().await;
    let stream = c.listen("me").await;
    // A client that never finishes its request.
    let address = c.url.trim_start_matches("http://");
    let mut slow = TcpStream::connect(address).await.expect("a connection");
    slow.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").await.expect("sent");
    until(|| async { c.http.get(format!("{}/health", c.url)).send().await.is_ok() }).await;
    server.stop().await;
    stream.ended().await;
    let again = TcpStream::connect(address).await;
    assert!(again.is_err(), "the port is free again");
}

/// The binary as a process, killed if a test fails.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn binary(listen: &str) -> Process {
    let binary = Command::new(env!("CARGO_BIN_EXE_embedded-server"))
        .args(["--listen", listen])
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Process(binary.expect("the binary starts"))
}

#[test]
fn the_binary_says_what_a_restart_costs_and_ends_on_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let mut process = binary("127.0.0.1:0");
        let mut stdout = BufReader::new(process.0.stdout.take().expect("stdout"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on http://").expect("its address");
        let _stream = std::net::TcpStream::connect(address).expect("it listens");
        let mut stderr = BufReader::new(process.0.stderr.take().expect("stderr"));
        let mut warning = String::new();
        stderr.read_line(&mut warning).expect("a line");
        assert!(warning.contains("a restart forgets everything"), "{warning}");
        let pid = process.0.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill");
        assert!(sent.success());
        assert_eq!(exit_code(&mut process), Some(0), "after {signal}");
    }
}

#[test]
fn a_port_in_use_and_a_bad_setting_exit_with_64() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut process = binary(&address);
    assert_eq!(exit_code(&mut process), Some(64));
    let mut told = String::new();
    let mut stderr = process.0.stderr.take().expect("stderr");
    stderr.read_to_string(&mut told).expect("text");
    assert!(told.starts_with(&format!("cannot listen on {address}: ")), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");

    let bad =
        Command::new(env!("CARGO_BIN_EXE_embedded-server")).args(["--retention", "5x"]).output();
    let bad = bad.expect("the binary runs");
    assert_eq!(bad.status.code(), Some(64));
    let told = String::from_utf8_lossy(&bad.stderr);
    assert!(told.contains("'5x'") && told.contains("10m"), "{told}");
}

fn exit_code(process: &mut Process) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = process.0.try_wait().expect("a status") {
            return status.code();
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}
