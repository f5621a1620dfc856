//! The id and the trace of a flow, as answers show them.

use serde::Serialize;
use wire::Promise;

/// Which flow an answer is about.
#[derive(Debug, Serialize)]
pub struct Ids {
    /// The flow's id.
    pub id: String,
    /// Its trace.
    #[serde(flatten)]
    pub trace: TraceLink,
    /// Whether an earlier request started it.
    pub reconnected: bool,
}

/// Where to see a flow. Empty if the flow was started without tracing; without the link if no
/// Jaeger is configured.
#[derive(Debug, Serialize)]
pub struct TraceLink {
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_url: Option<String>,
}

impl TraceLink {
    /// The trace of the flow that starts with `promise`.
    pub fn of(promise: &Promise, jaeger_url: Option<&str>) -> Self {
        let trace_id = promise.param.headers.as_ref().and_then(resonate_otel::trace_id);
        let link = trace_id.as_ref().zip(jaeger_url);
        let trace_url = link.map(|(id, jaeger)| format!("{jaeger}/trace/{id}"));
        Self { trace_id, trace_url }
    }
}
