//! Streams that fail in every way.

use super::*;
use axum::{
    Router,
    extract::Path,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use clap::{Args, FromArgMatches};
use resonate_otel::{Identity, Telemetry};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};
use wire::{Answer, Exchange, Request};

use crate::{config::Config, server::Chunks, test_log::Recorded};

const STREAM: [(axum::http::HeaderName, &str); 1] = [(CONTENT_TYPE, "text/event-stream")];

/// A stream to a server that answers `GET /poll` so, the number of the request given.
async fn stream(answer: fn(usize) -> Response, id: ConnectionId) -> (MessageStream, Seen) {
    let (told, ids) = mpsc::channel(64);
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let poll = async move |Path((_, id)): Path<(String, String)>| {
        // What the test does not look at is dropped.
        let _ = told.try_send(id);
        answer(counted.fetch_add(1, Ordering::Relaxed))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/poll/{group}/{id}", get(poll));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let config = config(&url);
    let transport = crate::server::http(&config).unwrap();
    (stream_over(transport, &config, id), Seen { ids, requests })
}

fn config(url: &str) -> Config {
    let command = Config::augment_args(clap::Command::new("test"));
    Config::from_arg_matches(&command.get_matches_from(["test", "--server", url])).unwrap()
}

fn stream_over(transport: Arc<dyn Transport>, config: &Config, id: ConnectionId) -> MessageStream {
    let identity = Identity {
        name: "g".to_owned(),
        instance: "i".to_owned(),
        namespace: String::new(),
        version: "0".to_owned(),
    };
    let telemetry = Telemetry::start(identity).unwrap();
    crate::server::client(config, "g", id, transport, &telemetry).1
}

/// What the server has seen.
struct Seen {
    ids: mpsc::Receiver<String>,
    requests: Arc<AtomicUsize>,
}

struct Tell(mpsc::Sender<String>);

impl Listener for Tell {
    fn connected(&self, _: &str) {}

    fn message(&self, message: Message) {
        let _ = self.0.try_send(message.into_text());
    }
}

#[tokio::test]
async fn a_stream_that_fails_in_any_way_is_opened_again_without_spinning() {
    let answers: [fn(usize) -> Response; 4] = [
        |_| StatusCode::SERVICE_UNAVAILABLE.into_response(),
        |_| (StatusCode::MOVED_PERMANENTLY, [("location", "/")]).into_response(),
        |_| "<html></html>".into_response(),
        |_| (STREAM, "").into_response(),
    ];
    let logged =
        ["waiting for the Resonate Server"; 3].into_iter().chain(["ends at once, again and again"]);
    for (answer, logged) in answers.into_iter().zip(logged) {
        let log = Recorded::start();
        let (stream, mut seen) = stream(answer, ConnectionId::Instance("i".to_owned())).await;
        stream.open(Tell(mpsc::channel(1).0));
        let start = Instant::now();
        for _ in 0..6 {
            assert_eq!(seen.ids.recv().await.as_deref(), Some("i"));
        }
        // 10, 20, 40, 80 and 100 ms at least.
        assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
        assert!(seen.requests.load(Ordering::Relaxed) < 10);
        stream.close();
        assert!(!*stream.up().borrow());
        let lines = log.lines();
        assert!(lines.len() == 1 && lines[0].contains(logged), "{lines:?}");
    }
}

#[tokio::test]
async fn garbage_is_skipped_and_each_connection_can_have_an_id_of_its_own() {
    let execute = r#"{"kind":"execute","head":{},"data":{"task":{"id":"x","version":1}}}"#;
    assert_eq!(Message::execute("x", 1).into_text(), execute);
    let answer = |_| {
        let message = Message::execute("x", 1).into_text();
        (STREAM, format!("data: garbage\n\ndata: {message}\n\n")).into_response()
    };
    let (stream, mut seen) = stream(answer, ConnectionId::Fresh).await;
    let (tell, mut told) = mpsc::channel(1);
    stream.open(Tell(tell));
    assert_eq!(told.recv().await.as_deref(), Some(execute));
    let (first, second) = (seen.ids.recv().await, seen.ids.recv().await);
    assert!(first.is_some() && first != second);
}

/// A server whose connections the test gets, as what sends their text.
struct Connections(mpsc::Sender<mpsc::Sender<String>>);

#[async_trait::async_trait]
impl Exchange for Connections {
    async fn exchange(&self, _: Request) -> Result<Answer, ExchangeError> {
        std::future::pending().await
    }
}

#[async_trait::async_trait]
impl Transport for Connections {
    fn server(&self) -> &str {
        "http://server"
    }

    async fn open_stream(&self, _: &str, _: &str) -> Result<Chunks, ExchangeError> {
        let (sender, texts) = mpsc::channel(4);
        self.0.send(sender).await.unwrap();
        let next =
            async |mut texts: mpsc::Receiver<String>| Some((Ok(texts.recv().await?.into()), texts));
        Ok(futures_util::stream::unfold(texts, next).boxed())
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_replaced_and_read_for_another_moment() {
    let (connected, mut connections) = mpsc::channel(4);
    let config = config("http://server");
    let stream = stream_over(Arc::new(Connections(connected)), &config, ConnectionId::Fresh);
    let (tell, mut told) = mpsc::channel(4);
    stream.open(Tell(tell));
    let old = connections.recv().await.unwrap();
    let start = Instant::now();
    let new = connections.recv().await.unwrap();
    assert!(start.elapsed() <= RENEW.mul_f64(1.2), "{:?}", start.elapsed());
    tokio::time::sleep(OVERLAP / 2).await;
    for (connection, id) in [(&new, "new"), (&old, "old")] {
        let message = Message::execute(id, 1).into_text();
        connection.send(format!("data: {message}\n\n")).await.unwrap();
        let told = tokio::time::timeout(OVERLAP, told.recv()).await;
        assert_eq!(told, Ok(Some(message)), "{id}");
    }
    tokio::time::sleep(2 * OVERLAP).await;
    assert!(old.is_closed() && !new.is_closed());
}

/// A server whose tokens a test decides.
#[derive(Default)]
struct Guarded {
    accepts: AtomicBool,
    /// When a stream was asked for.
    asked: Mutex<Vec<Instant>>,
    refused: Notify,
}

impl Guarded {
    fn asked(&self) -> Vec<Instant> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl Exchange for Guarded {
    async fn exchange(&self, _: Request) -> Result<Answer, ExchangeError> {
        std::future::pending().await
    }
}

#[async_trait::async_trait]
impl Transport for Guarded {
    fn server(&self) -> &str {
        "http://server"
    }

    async fn open_stream(&self, _: &str, _: &str) -> Result<Chunks, ExchangeError> {
        self.asked.lock().unwrap().push(Instant::now());
        if self.accepts.load(Ordering::Relaxed) {
            return Ok(futures_util::stream::pending().boxed());
        }
        let (server, reason) = ("http://server".to_owned(), "expired".to_owned());
        Err(ExchangeError::Unauthorized { server, reason })
    }

    async fn refused(&self) {
        self.refused.notified().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_tried_slowly_until_it_is_right() {
    let server = Arc::new(Guarded::default());
    let config = config("http://server");
    let stream = stream_over(server.clone(), &config, ConnectionId::Fresh);
    let mut up = stream.up();
    stream.open(Tell(mpsc::channel(1).0));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let asked = server.asked();
    assert!((8..=13).contains(&asked.len()), "{} attempts in 20 s", asked.len());
    assert!(!*up.borrow());

    server.accepts.store(true, Ordering::Relaxed);
    let right = Instant::now();
    up.wait_for(|up| *up).await.unwrap();
    assert!(right.elapsed() <= Duration::from_secs(3), "{:?}", right.elapsed());

    // The token expires while the stream is open, which does not show it: a request does.
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.accepts.store(false, Ordering::Relaxed);
    server.asked();
    server.refused.notify_waiters();
    let expired = Instant::now();
    up.wait_for(|up| !*up).await.unwrap();
    assert!(expired.elapsed() <= Duration::from_millis(100), "{:?}", expired.elapsed());

    // The server takes the token for streams, and refuses requests all the same.
    server.accepts.store(true, Ordering::Relaxed);
    up.wait_for(|up| *up).await.unwrap();
    server.asked();
    for _ in 0..1_000 {
        server.refused.notify_waiters();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let asked = server.asked().len();
    assert!((5..=10).contains(&asked), "{asked} streams in 10 s");
}
