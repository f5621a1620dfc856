//! A collector of spans and metrics: an OTLP/HTTP receiver in the process of the test.

use std::{
    fmt::Display,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::Message;
use tokio::{net::TcpListener, sync::watch, time::Instant};

use crate::{
    DEADLINE,
    metric::{self, Point},
    span::{Span, read_all},
};

/// How the collector answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It accepts everything.
    Accept,
    /// It accepts nothing and answers with this status.
    Refuse(u16),
    /// It accepts everything and answers after this delay.
    Slow(Duration),
    /// Nobody listens on its port.
    Absent,
}

/// The collector. It runs on a thread of its own, so that no test delays what arrives.
pub struct Collector {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    received: Arc<Received>,
}

struct Received {
    spans: Mutex<Vec<Span>>,
    refused: Mutex<Vec<Span>>,
    /// The last accepted value of each series.
    points: Mutex<Vec<Point>>,
    /// The number of requests with spans, in whichever mode.
    requests: watch::Sender<usize>,
    /// The number of requests with metrics, in whichever mode.
    metric_requests: watch::Sender<usize>,
    mode: watch::Receiver<Mode>,
    /// Whether the port is open.
    open: watch::Sender<bool>,
}

impl Collector {
    /// Starts a collector on `port`, which must be free.
    pub fn start(port: u16, mode: Mode) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let (mode, modes) = watch::channel(mode);
        let received = Arc::new(Received {
            spans: Mutex::default(),
            refused: Mutex::default(),
            points: Mutex::default(),
            requests: watch::Sender::new(0),
            metric_requests: watch::Sender::new(0),
            mode: modes,
            open: watch::Sender::new(false),
        });
        let serve = serve(address, received.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(serve);
        });
        Self { address, mode, received }
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the mode, and waits until it applies.
    pub async fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        let mut open = self.received.open.subscribe();
        open.wait_for(|open| *open == (mode != Mode::Absent)).await.unwrap();
    }

    /// The number of requests with spans so far, in whichever mode.
    pub fn requests(&self) -> usize {
        *self.received.requests.borrow()
    }

    /// All accepted spans, in the order of their arrival.
    pub fn spans(&self) -> Vec<Span> {
        self.received.spans.lock().unwrap().clone()
    }

    /// The last value of each metric and attributes, in the order of their first arrival.
    pub fn points(&self) -> Vec<Point> {
        self.received.points.lock().unwrap().clone()
    }

    /// The number of requests with metrics so far, in whichever mode.
    pub fn metric_requests(&self) -> usize {
        *self.received.metric_requests.borrow()
    }

    /// Waits until `look` is true of the values, which it sees after each request.
    ///
    /// # Panics
    /// After [`DEADLINE`]. The message shows `context`.
    pub async fn measured(
        &self,
        context: &impl Display,
        what: &str,
        mut look: impl FnMut(&[Point]) -> bool,
    ) {
        let mut requests = self.received.metric_requests.subscribe();
        let deadline = Instant::now() + DEADLINE;
        loop {
            requests.mark_unchanged();
            let points = self.points();
            if look(&points) {
                return;
            }
            if tokio::time::timeout_at(deadline, requests.changed()).await.is_err() {
                panic!("{DEADLINE:?} passed without {what}: {points:#?}\n{context}");
            }
        }
    }

    /// All refused spans.
    pub fn refused(&self) -> Vec<Span> {
        self.received.refused.lock().unwrap().clone()
    }

    /// Calls `look` with the spans so far, now and after each request, until it returns something.
    /// `None` after [`DEADLINE`].
    pub async fn try_until<T>(&self, mut look: impl FnMut(&[Span]) -> Option<T>) -> Option<T> {
        let mut requests = self.received.requests.subscribe();
        let deadline = Instant::now() + DEADLINE;
        loop {
            requests.mark_unchanged();
            if let Some(found) = look(&self.spans()) {
                return Some(found);
            }
            tokio::time::timeout_at(deadline, requests.changed()).await.ok()?.ok()?;
        }
    }

    /// [`Collector::try_until`] that fails the test if nothing comes. The message shows what
    /// `explain` makes of the spans, and `context`.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn until<T>(
        &self,
        context: &impl Display,
        what: &str,
        look: impl FnMut(&[Span]) -> Option<T>,
        explain: impl FnOnce(&[Span]) -> String,
    ) -> T {
        let found = self.try_until(look).await;
        found.unwrap_or_else(|| {
            let explanation = explain(&self.spans());
            panic!("{DEADLINE:?} passed without {what}: {explanation}\n{context}")
        })
    }
}

/// Listens in every mode but `Absent`, until the collector is dropped.
async fn serve(address: SocketAddr, received: Arc<Received>) {
    let mut mode = received.mode.clone();
    loop {
        if mode.wait_for(|mode| *mode != Mode::Absent).await.is_err() {
            return;
        }
        let receiver = received.clone();
        let spans = post(async move |body: Bytes| receive(&receiver, &body).await);
        let receiver = received.clone();
        let metrics = post(async move |body: Bytes| receive_metrics(&receiver, &body).await);
        let routes = Router::new().route("/v1/traces", spans).route("/v1/metrics", metrics);
        let listener = TcpListener::bind(address).await.expect("a free port for the collector");
        received.open.send_replace(true);
        let server = axum::serve(listener, routes);
        let dropped = tokio::select! {
            end = mode.wait_for(|mode| *mode == Mode::Absent) => end.is_err(),
            served = server.into_future() => panic!("the collector has ended: {served:?}"),
        };
        received.open.send_replace(false);
        if dropped {
            return;
        }
    }
}

async fn receive(received: &Received, body: &[u8]) -> (StatusCode, Vec<u8>) {
    let (arrived, mode) = (SystemTime::now(), *received.mode.borrow());
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP in protobuf");
    let status = status(mode);
    let spans = if status.is_success() { &received.spans } else { &received.refused };
    spans.lock().unwrap().extend(read_all(request, arrived));
    received.requests.send_modify(|requests| *requests += 1);
    delay(mode).await;
    (status, answer)
}

async fn receive_metrics(received: &Received, body: &[u8]) -> (StatusCode, Vec<u8>) {
    let (arrived, mode) = (SystemTime::now(), *received.mode.borrow());
    let answer = ExportMetricsServiceResponse::default().encode_to_vec();
    let request = ExportMetricsServiceRequest::decode(body).expect("OTLP in protobuf");
    let status = status(mode);
    if status.is_success() {
        let mut points = received.points.lock().unwrap();
        for point in metric::read_all(request, arrived) {
            match points.iter_mut().find(|before| before.is_same_series(&point)) {
                Some(before) => *before = point,
                None => points.push(point),
            }
        }
    }
    received.metric_requests.send_modify(|requests| *requests += 1);
    delay(mode).await;
    (status, answer)
}

fn status(mode: Mode) -> StatusCode {
    match mode {
        Mode::Accept | Mode::Slow(_) => StatusCode::OK,
        Mode::Refuse(status) => StatusCode::from_u16(status).unwrap(),
        // On a connection that outlived its listener.
        Mode::Absent => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn delay(mode: Mode) {
    if let Mode::Slow(delay) = mode {
        tokio::time::sleep(delay).await;
    }
}
