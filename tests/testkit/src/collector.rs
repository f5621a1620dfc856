//! A trace collector: an OTLP/HTTP receiver in the process of the test.

use std::{
    fmt::Display,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::{net::TcpListener, sync::watch, time::Instant};

use crate::{
    DEADLINE,
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
    /// The number of requests, in whichever mode.
    requests: watch::Sender<usize>,
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
            requests: watch::Sender::new(0),
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

    /// The number of requests so far, in whichever mode.
    pub fn requests(&self) -> usize {
        *self.received.requests.borrow()
    }

    /// All accepted spans, in the order of their arrival.
    pub fn spans(&self) -> Vec<Span> {
        self.received.spans.lock().unwrap().clone()
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
        let receive = post(async move |body: Bytes| receive(&receiver, &body).await);
        let listener = TcpListener::bind(address).await.expect("a free port for the collector");
        received.open.send_replace(true);
        let server = axum::serve(listener, Router::new().route("/v1/traces", receive));
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
    let arrived = SystemTime::now();
    let mode = *received.mode.borrow();
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP in protobuf");
    let (status, spans) = match mode {
        Mode::Accept | Mode::Slow(_) => (StatusCode::OK, &received.spans),
        Mode::Refuse(status) => (StatusCode::from_u16(status).unwrap(), &received.refused),
        // On a connection that outlived its listener.
        Mode::Absent => (StatusCode::SERVICE_UNAVAILABLE, &received.refused),
    };
    spans.lock().unwrap().extend(read_all(request, arrived));
    received.requests.send_modify(|requests| *requests += 1);
    if let Mode::Slow(delay) = mode {
        tokio::time::sleep(delay).await;
    }
    (status, answer)
}
