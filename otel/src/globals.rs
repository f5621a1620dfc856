//! OpenTelemetry's globals: set for the application, unless it has set its own.

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId, global,
    propagation::TextMapPropagator,
    trace::{Span, SpanContext, TraceContextExt, TraceState, Tracer, TracerProvider},
};
use opentelemetry_sdk::trace::SdkTracerProvider;

/// Sets the propagator.
pub(crate) fn propagator(propagator: impl TextMapPropagator + Send + Sync + 'static) {
    // OpenTelemetry's default propagator has no fields.
    if global::get_text_map_propagator(|current| current.fields().next().is_none()) {
        global::set_text_map_propagator(propagator);
    }
}

/// Sets the tracer provider.
pub(crate) fn tracer_provider(provider: &SdkTracerProvider) {
    if makes_no_spans() {
        global::set_tracer_provider(provider.clone());
    }
}

/// Whether the provider is OpenTelemetry's default one, which makes no spans: a child span then has
/// the context of its parent.
fn makes_no_spans() -> bool {
    let (trace, id) = (TraceId::from(1), SpanId::from(1));
    let parent = SpanContext::new(trace, id, TraceFlags::default(), true, TraceState::default());
    let parent = Context::new().with_remote_span_context(parent);
    let tracer = global::tracer_provider().tracer(env!("CARGO_PKG_NAME"));
    let span = tracer.build_with_context(tracer.span_builder("probe"), &parent);
    let none = span.span_context().span_id() == id;
    // Its end would export it, if the application samples what its parent does not.
    std::mem::forget(span);
    none
}
