//! Spans as the collector receives them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{self as otlp, span::SpanKind, status::StatusCode},
};

/// Attributes, with each value as text.
pub type Attributes = BTreeMap<String, String>;

/// A span.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace id, in hexadecimal.
    pub trace: String,
    /// The span id, in hexadecimal.
    pub id: String,
    /// The id of the parent; `None` for the first span of a trace.
    pub parent: Option<String>,
    /// The name.
    pub name: String,
    /// `internal`, `server`, `client`, `producer` or `consumer`.
    pub kind: &'static str,
    /// When it started.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// The attributes.
    pub attributes: Attributes,
    /// The events.
    pub events: Vec<Event>,
    /// Trace id and span id of each linked span.
    pub links: Vec<(String, String)>,
    /// The message of an error status; `None` for any other status.
    pub error: Option<String>,
    /// The attributes of the resource.
    pub resource: Attributes,
    /// When it arrived.
    pub arrived: SystemTime,
}

/// An event of a span.
#[derive(Debug, Clone)]
pub struct Event {
    /// The name.
    pub name: String,
    /// When it happened.
    pub time: SystemTime,
    /// The attributes.
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

    /// An attribute; empty if it is absent.
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The id of its promise.
    pub fn promise(&self) -> &str {
        self.get("resonate.promise.id")
    }

    /// The version of its task, or 0.
    pub fn version(&self) -> i64 {
        self.get("resonate.task.version").parse().unwrap_or_default()
    }

    /// Whether `resonate.takeover` is set.
    pub fn takeover(&self) -> bool {
        self.get("resonate.takeover") == "true"
    }

    /// The time from start to end.
    pub fn duration(&self) -> Duration {
        self.end.duration_since(self.start).expect("no span ends before it starts")
    }

    /// The time from its end to its arrival; zero if it ended later than that.
    pub fn delay(&self) -> Duration {
        self.arrived.duration_since(self.end).unwrap_or_default()
    }
}

/// The spans of an export request.
pub(crate) fn read_all(request: ExportTraceServiceRequest, arrived: SystemTime) -> Vec<Span> {
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
        error: (status.code == StatusCode::Error as i32).then_some(status.message),
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

pub(crate) fn attributes(list: Vec<KeyValue>) -> Attributes {
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
