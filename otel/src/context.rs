//! Trace context in the headers of durable promises, and ids that follow from a promise.

use std::{
    borrow::Cow,
    hash::Hasher,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    Context, SpanId, TraceId, global,
    propagation::{Extractor, Injector},
    trace::{SpanContext, TraceContextExt},
};
use wire::{Pairs, Promise};

/// The W3C header of baggage.
pub(crate) const BAGGAGE: &str = "baggage";

/// Most bytes of baggage that a promise carries: they come back with each acquisition of its task.
const MOST_BAGGAGE: usize = 1_024;

struct Reader<'a>(&'a Pairs<'a>);

impl Extractor for Reader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name).collect()
    }
}

struct Writer {
    headers: Pairs<'static>,
    baggage: bool,
}

impl Injector for Writer {
    fn set(&mut self, key: &str, value: String) {
        let value = match key {
            BAGGAGE if self.baggage => first_members(value),
            BAGGAGE => return,
            _ => value,
        };
        if !value.is_empty() {
            self.headers.set(key.to_owned(), value);
        }
    }
}

/// The members of a list, separated by commas, that fit into [`MOST_BAGGAGE`].
fn first_members(mut list: String) -> String {
    if list.len() > MOST_BAGGAGE {
        let end = list.as_bytes()[..=MOST_BAGGAGE].iter().rposition(|byte| *byte == b',');
        list.truncate(end.unwrap_or_default());
    }
    list
}

/// Reads a context with the global propagator. `None`: the headers carry none.
pub(crate) fn extract(headers: &Pairs) -> Option<Context> {
    let context = read(&Reader(headers));
    context.span().span_context().is_valid().then_some(context)
}

/// What the global propagator reads, which may be baggage without a span.
pub(crate) fn read(headers: &dyn Extractor) -> Context {
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), headers)
    })
}

/// The context in the headers of a promise.
pub(crate) fn of_promise(promise: &Promise) -> Option<Context> {
    promise.param.headers.as_ref().and_then(extract)
}

/// What the global propagator writes for `context`: with its `baggage`, of 1 KiB at most, or without.
pub(crate) fn inject(context: &Context, baggage: bool) -> Pairs<'static> {
    let mut writer = Writer { headers: Pairs::default(), baggage };
    global::get_text_map_propagator(|propagator| propagator.inject_context(context, &mut writer));
    writer.headers
}

/// The span that the headers of a promise name as the parent of everything below: its trace, and
/// whether that is sampled.
pub fn span_context(headers: &Pairs) -> Option<SpanContext> {
    extract(headers).map(|context| context.span().span_context().clone())
}

/// The trace id of a context, in hexadecimal digits.
pub(crate) fn trace_id_of(context: &Context) -> Option<String> {
    let span = context.span();
    span.span_context().is_valid().then(|| span.span_context().trace_id().to_string())
}

/// The context that the children of a span have as their parent.
pub(crate) fn child_of(parent: &Context, span: SpanContext) -> Context {
    parent.with_remote_span_context(span)
}

/// The time of a promise's `createdAt`, `settledAt` or `timeoutAt`: milliseconds of the server's
/// clock.
pub(crate) fn time(milliseconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds.try_into().unwrap_or_default())
}

/// A time as promises have it.
pub(crate) fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// A trace id that every process derives alike for a promise that carries no context.
pub(crate) fn derived_trace_id(promise: &Promise) -> TraceId {
    let halves = [hash("trace id, first half", promise), hash("trace id, second half", promise)];
    TraceId::from(u128::from(halves[0]) << 64 | u128::from(halves[1]))
}

/// The id of the span of a step: every process that runs it derives it alike, before the span is made.
pub(crate) fn step_span_id(trace: TraceId, promise: &str) -> SpanId {
    let mut hash = seahash::SeaHasher::new();
    hash.write(b"step");
    hash.write(&trace.to_bytes());
    hash.write(promise.as_bytes());
    // Zero is not a valid id.
    SpanId::from(hash.finish().max(1))
}

/// The context inside a step of a function with the context `function`.
pub(crate) fn of_step(function: &Context, promise: &str) -> Context {
    let span = function.span().span_context().clone();
    if !span.is_valid() {
        return function.clone();
    }
    let id = step_span_id(span.trace_id(), promise);
    let state = span.trace_state().clone();
    let step = SpanContext::new(span.trace_id(), id, span.trace_flags(), false, state);
    child_of(function, step)
}

/// A span id for `what` that every process derives alike.
pub(crate) fn derived_span_id(what: &str, promise: &Promise) -> SpanId {
    SpanId::from(hash(what, promise))
}

fn hash(what: &str, Promise { id, created_at, .. }: &Promise<'_>) -> u64 {
    let mut hash = seahash::SeaHasher::new();
    hash.write(what.as_bytes());
    hash.write_i64(*created_at);
    hash.write(Cow::as_ref(id).as_bytes());
    // Zero is not a valid id.
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
        let headers = inject(&child_of(&Context::new(), span), false);
        assert_eq!(
            headers.get("traceparent"),
            Some("00-00000000000000000000000000000001-0000000000000002-01")
        );
        let found = span_context(&headers).expect("it was just written");
        assert_eq!((found.trace_id(), found.span_id()), (TraceId::from(1), SpanId::from(2)));
        assert!(found.is_sampled());
        assert!(extract(&Pairs::default()).is_none());
        assert!(extract(&Pairs::from_iter([("traceparent", "nonsense")])).is_none());
    }

    #[test]
    fn baggage_is_cut_at_a_member() {
        let members = |count: usize| vec!["k=123456789"; count].join(",");
        assert_eq!(first_members(members(2)), members(2));
        assert_eq!(members(85).len(), 1_019);
        assert_eq!(first_members(members(86)), members(85));
        assert_eq!(first_members("x".repeat(1_024)).len(), 1_024);
        assert_eq!(first_members("x".repeat(1_025)), "");
        assert_eq!(first_members("x".repeat(1_024) + ",y"), "x".repeat(1_024));
        for (baggage, expected) in [(true, Some("k=v")), (false, None)] {
            let mut writer = Writer { headers: Pairs::default(), baggage };
            writer.set(BAGGAGE, "k=v".to_owned());
            assert_eq!(writer.headers.get(BAGGAGE), expected);
        }
    }

    #[test]
    fn derived_ids_follow_from_promise_and_time_alone() {
        let promise = |id: &str, created_at: i64| -> Promise<'static> {
            let text = format!(
                r#"{{"id": "{id}", "state": "pending", "timeoutAt": 0, "createdAt": {created_at}}}"#
            );
            serde_json::from_str::<Promise>(&text).unwrap().into_owned()
        };
        let id = derived_trace_id(&promise("flow", 1_700_000_000_000));
        assert_eq!(id, derived_trace_id(&promise("flow", 1_700_000_000_000)));
        assert_ne!(id, derived_trace_id(&promise("flow", 1_700_000_000_001)));
        assert_ne!(id, derived_trace_id(&promise("flow.0", 1_700_000_000_000)));
        let flow = promise("flow", 1);
        assert_ne!(derived_span_id("received", &flow), derived_span_id("timed out", &flow));
    }
}
