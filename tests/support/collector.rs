//! A collector of traces: an OTLP/HTTP receiver in the test's own process.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{self as otlp, span::SpanKind, status::StatusCode as SpanStatus},
};
use prost::Message;
use tokio::{net::TcpListener, sync::watch, time::Instant};

use crate::support::{DEADLINE, Log};

/// How the collector answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It takes everything.
    Accept,
    /// It takes nothing, and says so with this status.
    Refuse(u16),
    /// It takes everything, and answers that late.
    Slow(Duration),
    /// Nobody listens on its port.
    Absent,
}

/// Attributes, with each value as text.
pub type Attributes = BTreeMap<String, String>;

/// A span as it arrived.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// None: the first span of its trace.
    pub parent: Option<String>,
    pub name: String,
    pub kind: &'static str,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Attributes,
    pub events: Vec<Event>,
    /// Trace and span that it links to.
    pub links: Vec<(String, String)>,
    /// The message, if the span's status is an error.
    pub error: Option<String>,
    pub resource: Attributes,
    pub arrived: SystemTime,
}

/// An event on a span.
#[derive(Debug, Clone)]
pub struct Event {
    pub name: String,
    pub time: SystemTime,
    pub attributes: Attributes,
}

impl Span {
    /// `service.name`.
    pub fn service(&self) -> &str {
        &self.resource["service.name"]
    }

    /// `service.instance.id`.
    pub fn instance(&self) -> &str {
        &self.resource["service.instance.id"]
    }

    /// An attribute, or nothing.
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The promise that it is about.
    pub fn promise(&self) -> &str {
        self.get("resonate.promise.id")
    }

    /// The version of the task, or 0.
    pub fn version(&self) -> i64 {
        self.get("resonate.task.version").parse().unwrap_or_default()
    }

    /// Whether `resonate.takeover` is set.
    pub fn takeover(&self) -> bool {
        self.get("resonate.takeover") == "true"
    }

    /// Its length.
    pub fn length(&self) -> Duration {
        self.end.duration_since(self.start).expect("no span ends before it starts")
    }
}

/// The collector. It runs on a thread of its own, so that no test's runtime delays what arrives.
pub struct Collector {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    shared: Arc<Shared>,
}

struct Shared {
    spans: Mutex<Vec<Span>>,
    refused: Mutex<Vec<Span>>,
    /// How many requests came, in whichever mode.
    requests: watch::Sender<usize>,
    mode: watch::Receiver<Mode>,
    /// Whether the port is listened on.
    open: watch::Sender<bool>,
}

impl Collector {
    /// A collector on `port`, which nobody listens on.
    pub fn start(port: u16, mode: Mode) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let (mode, modes) = watch::channel(mode);
        let shared = Arc::new(Shared {
            spans: Mutex::default(),
            refused: Mutex::default(),
            requests: watch::Sender::new(0),
            mode: modes,
            open: watch::Sender::new(false),
        });
        let serve = serve(address, shared.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(serve);
        });
        Self { address, mode, shared }
    }

    /// The value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes how it answers, and waits until that is so.
    pub async fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        let mut open = self.shared.open.subscribe();
        open.wait_for(|open| *open == (mode != Mode::Absent)).await.unwrap();
    }

    /// How many requests came so far, in whichever mode.
    pub fn requests(&self) -> usize {
        *self.shared.requests.borrow()
    }

    /// All spans that were taken, in the order of their arrival.
    pub fn spans(&self) -> Vec<Span> {
        self.shared.spans.lock().unwrap().clone()
    }

    /// All spans that were refused.
    pub fn refused(&self) -> Vec<Span> {
        self.shared.refused.lock().unwrap().clone()
    }

    /// Waits until what has arrived gives something; `explain` tells a failed test what was there.
    pub async fn until<T>(
        &self,
        what: &str,
        log: &Log,
        mut look: impl FnMut(&[Span]) -> Option<T>,
        explain: impl FnOnce(&[Span]) -> String,
    ) -> T {
        let mut requests = self.shared.requests.subscribe();
        let deadline = Instant::now() + DEADLINE;
        loop {
            requests.mark_unchanged();
            let spans = self.spans();
            if let Some(found) = look(&spans) {
                return found;
            }
            if tokio::time::timeout_at(deadline, requests.changed()).await.is_err() {
                panic!("waited in vain for {what}; {}\nthe logs:\n{log}", explain(&spans));
            }
        }
    }
}

/// Listens as the mode has it, until the collector is dropped.
async fn serve(address: SocketAddr, shared: Arc<Shared>) {
    let mut mode = shared.mode.clone();
    loop {
        if mode.wait_for(|mode| *mode != Mode::Absent).await.is_err() {
            return;
        }
        let receiver = shared.clone();
        let receive = post(async move |body: Bytes| receive(&receiver, &body).await);
        let listener = TcpListener::bind(address).await.expect("a free port for the collector");
        shared.open.send_replace(true);
        let server = axum::serve(listener, Router::new().route("/v1/traces", receive));
        let ended = tokio::select! {
            end = mode.wait_for(|mode| *mode == Mode::Absent) => end.is_err(),
            served = server.into_future() => panic!("the collector ended: {served:?}"),
        };
        shared.open.send_replace(false);
        if ended {
            return;
        }
    }
}

async fn receive(shared: &Shared, body: &[u8]) -> (StatusCode, Vec<u8>) {
    let arrived = SystemTime::now();
    let mode = *shared.mode.borrow();
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP in protobuf");
    let (status, these) = match mode {
        Mode::Accept | Mode::Slow(_) => (StatusCode::OK, &shared.spans),
        Mode::Refuse(status) => (StatusCode::from_u16(status).unwrap(), &shared.refused),
        // A connection that is left over: its listener is gone.
        Mode::Absent => (StatusCode::SERVICE_UNAVAILABLE, &shared.refused),
    };
    these.lock().unwrap().extend(spans(request, arrived));
    shared.requests.send_modify(|requests| *requests += 1);
    if let Mode::Slow(delay) = mode {
        tokio::time::sleep(delay).await;
    }
    (status, answer)
}

fn spans(request: ExportTraceServiceRequest, arrived: SystemTime) -> Vec<Span> {
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let resource = attributes(of_resource.resource.unwrap_or_default().attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(read(span, resource.clone(), arrived));
        }
    }
    all
}

fn read(span: otlp::Span, resource: Attributes, arrived: SystemTime) -> Span {
    let event = |event: otlp::span::Event| Event {
        name: event.name,
        time: time(event.time_unix_nano),
        attributes: attributes(event.attributes),
    };
    let kind = match SpanKind::try_from(span.kind).expect("a kind of span") {
        SpanKind::Unspecified => "unspecified",
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    };
    let status = span.status.unwrap_or_default();
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        name: span.name,
        kind,
        start: time(span.start_time_unix_nano),
        end: time(span.end_time_unix_nano),
        attributes: attributes(span.attributes),
        events: span.events.into_iter().map(event).collect(),
        links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
        error: (status.code == SpanStatus::Error as i32).then_some(status.message),
        resource,
        arrived,
    }
}

fn time(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(list: Vec<KeyValue>) -> Attributes {
    list.into_iter().map(|KeyValue { key, value, .. }| (key, text(value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    }
}
