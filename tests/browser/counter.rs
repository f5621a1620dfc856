//! A proxy in front of a Resonate Server that counts requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use tokio::net::TcpListener;

/// The proxy. It ends with the test's runtime.
pub struct Counter {
    /// Its own address.
    pub url: String,
    count: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Proxy {
    server: String,
    client: reqwest::Client,
    count: Arc<AtomicUsize>,
}

impl Counter {
    /// A proxy to the server at this address.
    pub async fn start(server: &str) -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let proxy = Proxy { server: server.to_owned(), client, count: count.clone() };
        let app = Router::new()
            .route("/", post(forward))
            .route("/poll/{group}/{id}", get(poll))
            .with_state(proxy);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, count }
    }

    /// How many requests come in this time.
    pub async fn during(&self, time: Duration) -> usize {
        let before = self.count.load(Ordering::Relaxed);
        tokio::time::sleep(time).await;
        self.count.load(Ordering::Relaxed) - before
    }
}

async fn forward(State(proxy): State<Proxy>, body: Body) -> Response {
    proxy.count.fetch_add(1, Ordering::Relaxed);
    let body = reqwest::Body::wrap_stream(body.into_data_stream());
    let answer = proxy.client.post(&proxy.server).body(body).send().await.unwrap();
    let status = answer.status();
    let body = Body::from_stream(answer.bytes_stream());
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}

async fn poll(State(proxy): State<Proxy>, Path((group, id)): Path<(String, String)>) -> Response {
    let answer =
        proxy.client.get(format!("{}/poll/{group}/{id}", proxy.server)).send().await.unwrap();
    let body = Body::from_stream(answer.bytes_stream());
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}
