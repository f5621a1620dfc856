//! What the embedded server does beyond the official one, and its executable.

use std::{
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use embedded_server::Config;
use serde_json::json;
use testkit::{Log, Process, Resonate, Stopped, process, until};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    client::{Context, now},
    servers::Embedded,
};

tests![
    a_message_for_a_dead_connection_goes_to_a_living_one_at_once,
    a_message_for_nobody_waits_for_the_first_connection,
    settled_flows_are_forgotten_after_their_retention,
    the_oldest_settled_flows_are_forgotten_when_there_are_too_many,
    what_is_not_supported_is_refused_with_a_reason,
    connections_and_bodies_are_limited,
    shutdown_ends_streams_and_waits_for_no_one,
    the_binary_says_what_a_restart_costs_and_ends_on_a_signal,
    a_port_in_use_and_a_bad_setting_exit_with_64,
];

/// So long that no retry can be mistaken for an immediate delivery.
const NEVER: Duration = Duration::from_secs(3_600);

async fn start(config: Config) -> (Embedded, Context) {
    let server = Embedded::start(config).await;
    let context = Context::new(Resonate::new(&server.url), "embedded", "0");
    (server, context)
}

async fn without_retry() -> (Embedded, Context) {
    start(Config { retry_timeout: NEVER, ..Config::default() }).await
}

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
    // Only the pending task: the held one waits for the end of its lease.
    living.executes(&id, 0).await;
    let next = c.id("next");
    c.create_target(&next).await;
    living.executes(&next, 0).await;
    server.stop().await;
}

async fn a_message_for_nobody_waits_for_the_first_connection() {
    let (server, c) = without_retry().await;
    let (id, gone) = (c.id("t"), c.id("gone"));
    c.create_target(&id).await;
    c.create_target(&gone).await;
    c.settle(&gone).await.status(200);
    let mut first = c.listen("first").await;
    first.executes(&id, 0).await;
    // The message was delivered: the next connection receives only new ones.
    let mut second = c.listen("second").await;
    drop(first);
    second.executes(&id, 0).await;
    assert_eq!(second.waiting(), None);
    server.stop().await;
}

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
    // No promise of a flow is forgotten while one of them is pending.
    tokio::time::sleep(retention * 2).await;
    assert_eq!(c.get(&root).await["state"], "resolved");
    let settled = Instant::now();
    c.settle(&child).await.status(200);
    let gone = async |id: &str| {
        let reply = c.call("promise.get", json!({"id": id})).await;
        reply.body["head"]["status"] == 404
    };
    until(&"", "the end of the retention", async || gone(&child).await.then_some(())).await;
    // The server counts whole milliseconds.
    assert!(
        settled.elapsed() + Duration::from_millis(1) >= retention,
        "not before its retention is over"
    );
    assert!(gone(&root).await, "the whole flow is forgotten");
    c.call("task.get", json!({"id": root})).await.refuses(404, "Task not found");
    assert_eq!(c.get(&open).await["state"], "resolved", "its flow has not ended");
    // A flow with the same id starts from scratch.
    c.create(&root, tags).await;
    let reply = c.acquire(&root, 0, "pid", 60_000).await.status(200);
    assert_eq!(reply["preload"], json!([]));
    server.stop().await;
}

async fn the_oldest_settled_flows_are_forgotten_when_there_are_too_many() {
    let config = Config { max_settled_flows: 2, ..Config::default() };
    let (server, c) = start(config).await;
    let ids: Vec<String> = (0..4).map(|n| c.id(&format!("p{n}"))).collect();
    for id in &ids {
        c.create(id, json!({})).await;
        c.settle(id).await.status(200);
        let at = now();
        // Each promise has an age of its own.
        until(&"", "the next millisecond", async || (now() > at).then_some(())).await;
    }
    let found = c.call("promise.search", json!({})).await.status(200);
    let found: Vec<_> = found["promises"].as_array().into_iter().flatten().collect();
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0]["id"], &found[1]["id"]), (&json!(ids[2]), &json!(ids[3])));
    server.stop().await;
}

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

async fn connections_and_bodies_are_limited() {
    let config = Config { max_connections: 1, max_body: 100, ..Config::default() };
    let (server, c) = start(config).await;
    let first = c.listen("first").await;
    let second = async || c.server.listen("group", "second").await.status().as_u16();
    assert_eq!(second().await, 503);
    drop(first);
    let free = async || (second().await == 200).then_some(());
    until(&"", "a free connection", free).await;
    assert_eq!(c.post(vec![b' '; 100]).await.0, 400);
    assert_eq!(c.post(vec![b' '; 101]).await.0, 413);
    server.stop().await;
}

async fn shutdown_ends_streams_and_waits_for_no_one() {
    let (server, c) = without_retry().await;
    let stream = c.listen("me").await;
    // A client that never completes its request.
    let address = c.server.url().trim_start_matches("http://");
    let mut slow = TcpStream::connect(address).await.expect("a connection");
    slow.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").await.expect("sent");
    c.server.get("/health").await.expect("an answer");
    server.stop().await;
    stream.ended().await;
    let again = TcpStream::connect(address).await;
    assert!(again.is_err(), "the port is free again");
}

/// Starts the executable with these arguments and no settings.
fn start_executable(arguments: &[&str], log: &Log) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embedded-server"));
    command.args(arguments);
    process::set(&mut command, &[]);
    Process::start(&mut command, log)
}

async fn the_binary_says_what_a_restart_costs_and_ends_on_a_signal() {
    for signal in ["TERM", "INT"] {
        let log = Log::new();
        let mut server = start_executable(&["--listen", "127.0.0.1:0"], &log);
        let listening = "listening on http://";
        let line = log.line("its address", |line| line.text.starts_with(listening)).await;
        let address = line.text.trim_start_matches(listening);
        TcpStream::connect(address).await.expect("a server that listens");
        let warning = "embedded Resonate server: state is in memory and lost on restart";
        log.line("a warning", |line| line.text.contains(warning)).await;
        server.signal(signal);
        assert_eq!(server.exited().await.code(), Some(0), "after SIG{signal}");
        Stopped::check(&log);
    }
}

async fn a_port_in_use_and_a_bad_setting_exit_with_64() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, lines) = fails(&["--listen", &address]).await;
    assert_eq!(code, Some(64), "{lines:?}");
    let expected = format!(
        "error: cannot listen on {address}: Address already in use (os error 98); choose another address with EMBEDDED_SERVER_LISTEN"
    );
    assert_eq!(lines, [expected]);

    let (code, lines) = fails(&["--retention", "5x"]).await;
    let expected = "error: invalid --retention \"5x\": expected a duration such as 500ms or 3s";
    assert_eq!((code, lines), (Some(64), vec![expected.to_owned()]));
}

/// Runs the executable to its end: exit code and lines.
async fn fails(arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let log = Log::new();
    let status = start_executable(arguments, &log).exited().await;
    log.ended().await;
    (status.code(), log.all(|_| true).into_iter().map(|line| line.text).collect())
}
