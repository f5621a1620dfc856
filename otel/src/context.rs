//! Trace context in the headers of durable promises, and contexts that follow from a promise.

use std::{
    collections::HashMap,
    hash::Hasher,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    Context, SpanId, TraceId, global,
    trace::{FutureExt, SpanContext, TraceContextExt},
};
use tracing::Instrument;

/// `param.headers` or `value.headers` of a promise.
pub(crate) type Headers = HashMap<String, String>;

/// Reads a context with whatever propagator is set. `None`: the headers carry none.
pub(crate) fn extract(headers: &Headers) -> Option<Context> {
    let context = global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), headers)
    });
    context.span().span_context().is_valid().then_some(context)
}

/// What the propagator writes for `context`.
pub(crate) fn inject(context: &Context) -> Headers {
    let mut headers = Headers::new();
    global::get_text_map_propagator(|propagator| propagator.inject_context(context, &mut headers));
    headers
}

/// Takes the caller's span and trace context along into a future that is run elsewhere, as in
/// `tokio::spawn`. A span alone carries no context where tracing is turned off.
pub fn in_current_context<F: Future>(future: F) -> impl Future<Output = F::Output> {
    future.in_current_span().with_current_context()
}

/// The context of a span: what its children have as their parent.
pub(crate) fn child_of(parent: &Context, span: SpanContext) -> Context {
    parent.with_remote_span_context(span)
}

/// The time of a promise's `createdAt`, `settledAt` or `timeoutAt`, in milliseconds of the
/// server's clock.
pub(crate) fn time(milliseconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds.try_into().unwrap_or_default())
}

/// A trace id that every process derives alike for a promise that carries no context.
pub(crate) fn derived_trace_id(promise: &str, created_at: i64) -> TraceId {
    let halves = [
        hash("trace id, first half", promise, created_at),
        hash("trace id, second half", promise, created_at),
    ];
    TraceId::from(u128::from(halves[0]) << 64 | u128::from(halves[1]))
}

/// A span id for `what` that every process derives alike.
pub(crate) fn derived_span_id(what: &str, promise: &str, created_at: i64) -> SpanId {
    SpanId::from(hash(what, promise, created_at))
}

fn hash(what: &str, promise: &str, created_at: i64) -> u64 {
    let mut hash = seahash::SeaHasher::new();
    hash.write(what.as_bytes());
    hash.write_i64(created_at);
    hash.write(promise.as_bytes());
    // Zero would be no valid id.
    hash.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::{TraceFlags, trace::TraceState};
    use opentelemetry_sdk::propagation::TraceContextPropagator;

    #[test]
    fn a_context_passes_through_headers() {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let span = SpanContext::new(
            TraceId::from(1),
            SpanId::from(2),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        );
        let headers = inject(&child_of(&Context::new(), span));
        assert_eq!(
            headers["traceparent"],
            "00-00000000000000000000000000000001-0000000000000002-01"
        );
        let found = extract(&headers).expect("it was just written");
        assert_eq!(found.span().span_context().span_id(), SpanId::from(2));
        assert!(extract(&Headers::new()).is_none());
        assert!(
            extract(&Headers::from([("traceparent".to_owned(), "nonsense".to_owned())])).is_none()
        );
    }

    #[test]
    fn derived_ids_follow_from_promise_and_time_alone() {
        let id = derived_trace_id("flow", 1_700_000_000_000);
        assert_eq!(id, derived_trace_id("flow", 1_700_000_000_000));
        assert_ne!(id, derived_trace_id("flow", 1_700_000_000_001));
        assert_ne!(id, derived_trace_id("flow.0", 1_700_000_000_000));
        assert_ne!(derived_span_id("received", "flow", 1), derived_span_id("timed out", "flow", 1));
    }
}
