//! What answers tell about a flow, however it stands: its id and its trace.

use resonate_sdk::types::PromiseRecord;
use serde::Serialize;

use crate::{client, config::Config};

/// The ids of a flow.
#[derive(Debug, Serialize)]
pub struct Ids {
    /// The flow's id.
    pub id: String,
    /// Its trace.
    #[serde(flatten)]
    pub trace: Trace,
    /// Whether an earlier request had started it.
    pub reconnected: bool,
}

/// Where to see a flow: absent where the flow began without tracing, or no Jaeger is known.
#[derive(Debug, Serialize)]
pub struct Trace {
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_url: Option<String>,
}

impl Trace {
    /// The trace of the flow whose first promise this is.
    pub fn of(promise: &PromiseRecord, config: &Config) -> Self {
        let trace_id = client::trace_of(promise);
        let trace_url = trace_id
            .as_ref()
            .zip(config.jaeger_url.as_ref())
            .map(|(id, jaeger)| format!("{jaeger}/trace/{id}"));
        Self { trace_id, trace_url }
    }
}
