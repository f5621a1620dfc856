//! The id and the trace of a flow, as answers show them.

use serde::Serialize;
use wire::Promise;

/// Which flow an answer is about.
#[cfg_attr(test, derive(utoipa::ToSchema))]
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

/// Where to see a flow. Empty if the flow was started without tracing; without the link if the flow is
/// not sampled, or no Jaeger is configured.
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[derive(Debug, Serialize)]
pub struct TraceLink {
    /// The id of the trace, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    /// The trace in Jaeger.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_url: Option<String>,
}

impl TraceLink {
    /// The trace of the flow that starts with `promise`.
    pub fn of(promise: &Promise, jaeger_url: Option<&str>) -> Self {
        let span = promise.param.headers.as_ref().and_then(resonate_otel::span_context);
        let sampled = span.as_ref().filter(|span| span.is_sampled());
        let link = sampled.zip(jaeger_url);
        let trace_url = link.map(|(span, jaeger)| format!("{jaeger}/trace/{}", span.trace_id()));
        Self { trace_id: span.map(|span| span.trace_id().to_string()), trace_url }
    }
}

#[cfg(test)]
impl Ids {
    /// Those of a flow that is traced.
    pub fn example(id: &str) -> Self {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        Self {
            id: id.to_owned(),
            trace: TraceLink {
                trace_id: Some(trace.to_owned()),
                trace_url: Some(format!("http://127.0.0.1:16686/trace/{trace}")),
            },
            reconnected: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use resonate_otel::{Identity, Telemetry};
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_flow_that_is_sampled_has_a_link() {
        // It reads contexts as the process does.
        let identity = Identity {
            name: "gateway".to_owned(),
            instance: "gateway".to_owned(),
            namespace: String::new(),
            version: "0".to_owned(),
        };
        let _telemetry = Telemetry::start(identity).unwrap();
        let trace = "7e570000000000000000000000000001";
        let url = format!("http://jaeger/trace/{trace}");
        for (flags, jaeger, expected) in [
            ("01", Some("http://jaeger"), json!({"trace_id": trace, "trace_url": url})),
            ("00", Some("http://jaeger"), json!({"trace_id": trace})),
            ("01", None, json!({"trace_id": trace})),
        ] {
            let context = format!("00-{trace}-7e57000000000001-{flags}");
            let promise = json!({"id": "x", "state": "pending", "timeoutAt": 2, "createdAt": 1,
                "param": {"headers": {"traceparent": context}}})
            .to_string();
            let link = TraceLink::of(&serde_json::from_str(&promise).unwrap(), jaeger);
            assert_eq!(serde_json::to_value(link).unwrap(), expected);
        }
    }
}
