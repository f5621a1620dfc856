//! Clients that do not finish their requests, and what others notice of them.

use std::time::Duration;

use axum::{
    body::Bytes,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, Semaphore, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::*;

/// Nothing takes longer than this.
const SOON: Duration = Duration::from_secs(20);

const SHORT: Duration = Duration::from_millis(50);

/// In these tests, a time-out that is never reached.
const NEVER: Duration = Duration::from_secs(3_600);

const HALF_A_HEADER: &str = "POST /body HTTP/1.1\r\nhost: x\r\nx";
const HALF_A_BODY: &str = "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx";

struct Server {
    address: SocketAddr,
    /// `GET /slow` and the body of `GET /stream` end once this was notified.
    release: Arc<Notify>,
    /// One permit for each `GET /slow` that has begun.
    begun: Arc<Semaphore>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

async fn server(connections: usize, header: Duration, idle: Duration) -> Server {
    serving(Limits { connections, header, idle, new: Duration::ZERO }).await
}

async fn serving(limits: Limits) -> Server {
    let release = Arc::new(Notify::new());
    let begun = Arc::new(Semaphore::new(0));
    let (slow, stream, begins) = (release.clone(), release.clone(), begun.clone());
    let slow = async move || {
        let released = slow.notified();
        begins.add_permits(1);
        released.await;
        "slow"
    };
    let stream = async move || {
        let release = stream.clone();
        let frames = futures_util::stream::unfold(0, move |n| {
            let release = release.clone();
            async move {
                match n {
                    0 => return Some((Ok("first"), 1)),
                    1 => release.notified().await,
                    _ => return None,
                }
                Some((Ok::<_, Infallible>("last"), 2))
            }
        });
        Body::from_stream(frames)
    };
    let routes = Router::new()
        .route("/", get(async || "fast"))
        .route("/slow", get(slow))
        .route("/stream", get(stream))
        .route("/body", post(async |_: Bytes| "read"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async move {
        let _ = stopped.await;
    };
    let task = tokio::spawn(serve(listener, routes, limits, stopped));
    Server { address, release, begun, stop: Some(stop), task }
}

struct Client(TcpStream);

impl Server {
    /// A connection that sends this.
    async fn send(&self, text: &str) -> Client {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        Client(stream)
    }

    async fn get(&self, path: &str) -> Client {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
    }

    /// A request that waits for its answer.
    async fn slow(&self) -> Client {
        let client = self.get("/slow").await;
        timeout(SOON, self.begun.acquire()).await.unwrap().unwrap().forget();
        client
    }

    async fn healthy(&self) {
        self.get("/").await.reads("fast").await;
    }
}

impl Client {
    /// Reads until `end` arrives. Returns all of it.
    async fn reads(&mut self, end: &str) -> String {
        let mut text = String::new();
        let read = async {
            while !text.ends_with(end) {
                let byte = self.0.read_u8().await.unwrap();
                text.push(byte.into());
            }
        };
        let in_time = timeout(SOON, read).await.is_ok();
        assert!(in_time, "{text:?} instead of {end:?}");
        text
    }

    /// Reads until the server closes the connection.
    async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        // An error: it was closed before all was read that the client had sent.
        let _ = timeout(SOON, self.0.read_to_end(&mut text)).await.expect("still open");
        String::from_utf8(text).unwrap()
    }

    fn is_open(&self) -> bool {
        let read = self.0.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

#[tokio::test]
async fn a_header_that_is_not_complete_in_time_is_408() {
    let server = server(9, SHORT, NEVER).await;
    for half in ["G", HALF_A_HEADER] {
        let answer = server.send(half).await.rest().await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["detail"], "request header was not complete within 50ms");
    }
    // Not only the first header of a connection.
    let mut client = server.get("/").await;
    client.reads("fast").await;
    client.0.write_all(HALF_A_HEADER.as_bytes()).await.unwrap();
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn an_idle_connection_is_closed_later_and_without_an_answer() {
    let server = server(9, NEVER, SHORT).await;
    assert_eq!(server.send("").await.rest().await, "");
    let mut client = server.get("/").await;
    assert!(client.rest().await.ends_with("\r\n\r\nfast"));

    let server = self::server(9, SHORT, NEVER).await;
    let mut idle = server.get("/").await;
    idle.reads("fast").await;
    // Longer than a header may take.
    server.send(HALF_A_HEADER).await.rest().await;
    idle.0.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    idle.reads("fast").await;
}

#[tokio::test]
async fn an_answer_may_take_longer_than_any_time_out() {
    let server = server(9, SHORT, SHORT).await;
    let (mut slow, mut stream) = (server.slow().await, server.get("/stream").await);
    stream.reads("first\r\n").await;
    for _ in 0..3 {
        server.send(HALF_A_HEADER).await.rest().await;
    }
    server.release.notify_waiters();
    assert!(slow.rest().await.ends_with("slow"));
    assert!(stream.rest().await.contains("last"));
}

#[tokio::test]
async fn beyond_the_bound_the_connection_that_waits_longest_is_closed() {
    const BOUND: usize = 5;
    let server = server(BOUND, NEVER, NEVER).await;
    let mut slow = server.slow().await;
    let mut waiting = Vec::new();
    for text in ["", HALF_A_HEADER, HALF_A_BODY, "GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
        for _ in 0..3 * BOUND {
            waiting.push(server.send(text).await);
        }
        server.healthy().await;
    }
    server.healthy().await;
    // No more are open than fit beside the slow one.
    let mut open = waiting.split_off(waiting.len() - (BOUND - 1));
    for mut client in waiting {
        client.rest().await;
    }
    // Two have made room for the two health checks.
    for client in &mut open[2..] {
        client.reads("fast").await;
        assert!(client.is_open());
    }
    server.release.notify_waiters();
    slow.reads("slow").await;
}

#[tokio::test]
async fn a_connection_beyond_the_bound_waits_while_all_wait_for_answers() {
    let server = server(2, NEVER, NEVER).await;
    let mut slow = [server.slow().await, server.slow().await];
    let mut next = server.get("/").await;
    let early = timeout(SHORT, next.0.readable()).await;
    assert!(early.is_err(), "it was not served yet");
    server.release.notify_waiters();
    for client in &mut slow {
        client.reads("slow").await;
    }
    next.reads("fast").await;
}

#[tokio::test]
async fn a_new_connection_has_a_moment_for_its_request() {
    let limits = Limits { connections: 2, header: NEVER, idle: NEVER, new: 4 * SHORT };
    let server = serving(limits).await;
    let start = tokio::time::Instant::now();
    // More than there is room for, before any request has arrived.
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(server.send("").await);
    }
    for client in &mut clients[..2] {
        client.0.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        client.reads("fast").await;
    }
    // These have had an answer, and make room at once; then those that say nothing, after their moment.
    server.healthy().await;
    assert!(start.elapsed() >= 4 * SHORT, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_closed_connection_gives_its_room_back() {
    let server = server(2, SHORT, NEVER).await;
    let mut first = server.get("/").await;
    first.reads("fast").await;
    for text in ["", HALF_A_HEADER, HALF_A_BODY, "GET / HTTP/1.1\r\nconnection: close\r\n\r\n"] {
        for _ in 0..3 {
            let mut client = server.send(text).await;
            client.0.shutdown().await.unwrap();
            client.rest().await;
        }
    }
    assert!(first.is_open(), "there was room for the others");
}

#[tokio::test]
async fn at_the_end_only_requests_that_have_arrived_are_answered() {
    let mut server = server(9, NEVER, NEVER).await;
    let mut slow = server.slow().await;
    let mut idle = server.get("/").await;
    idle.reads("fast").await;
    let mut others = [server.send("").await, server.send(HALF_A_HEADER).await, idle];
    let mut body = server.send(HALF_A_BODY).await;
    // All of them have arrived.
    server.healthy().await;
    server.stop.take();
    for client in &mut others {
        assert_eq!(client.rest().await, "");
    }
    assert_eq!(body.rest().await, "");
    assert!(slow.is_open() && !server.task.is_finished());
    assert!(TcpStream::connect(server.address).await.is_err(), "it accepts nothing any more");
    server.release.notify_waiters();
    let answer = slow.rest().await;
    assert!(answer.contains("connection: close") && answer.ends_with("slow"), "{answer}");
    timeout(SOON, server.task).await.expect("the end").unwrap();
}
