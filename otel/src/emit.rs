//! Makes spans once everything about them is known: ids, times, attributes.
//!
//! A started span must be ended by the same process and cannot be discarded, so none is started
//! for something that another process may end.

use std::{borrow::Cow, time::SystemTime};

use opentelemetry::{
    Context, InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Event, Link, SpanContext, SpanKind, Status, TraceContextExt},
};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, SamplingDecision, ShouldSample, SpanData, SpanEvents,
    SpanLinks, SpanProcessor,
};

use crate::export::SharedProcessor;

/// Makes ids, asks the sampler, and hands finished spans to the processor.
#[derive(Debug)]
pub(crate) struct Emitter {
    pub processor: SharedProcessor,
    pub sampler: Box<dyn ShouldSample>,
    pub ids: RandomIdGenerator,
    pub scope: InstrumentationScope,
}

/// A finished span.
pub(crate) struct Finished {
    pub name: Cow<'static, str>,
    pub kind: SpanKind,
    /// The span's own ids and flags.
    pub context: SpanContext,
    pub parent: SpanId,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<KeyValue>,
    pub events: Vec<Event>,
    pub status: Status,
}

impl Emitter {
    /// The ids of a new span under `parent`. Without a parent it starts a trace, and the sampler is
    /// asked once.
    pub fn child(&self, parent: &Context, name: &str, kind: &SpanKind) -> SpanContext {
        let parent = parent.span().span_context().clone();
        match parent.is_valid() {
            true => self.sibling(&parent, self.ids.new_span_id()),
            false => self.root(self.ids.new_trace_id(), self.ids.new_span_id(), name, kind),
        }
    }

    /// A span with the id `span` in the trace of `of`.
    pub fn sibling(&self, of: &SpanContext, span: SpanId) -> SpanContext {
        SpanContext::new(of.trace_id(), span, of.trace_flags(), false, of.trace_state().clone())
    }

    /// The first span of a trace.
    pub fn root(&self, trace: TraceId, span: SpanId, name: &str, kind: &SpanKind) -> SpanContext {
        let sampled = self.sampler.should_sample(None, trace, name, kind, &[], &[]);
        let flags = match sampled.decision {
            SamplingDecision::RecordAndSample => TraceFlags::SAMPLED,
            _ => TraceFlags::default(),
        };
        SpanContext::new(trace, span, flags, false, sampled.trace_state)
    }

    /// Hands a span to the processor, which ignores it if it is not sampled.
    pub fn emit(&self, span: Finished) {
        self.emit_linked(span, Vec::new());
    }

    /// The same, with links to other spans.
    pub fn emit_linked(&self, span: Finished, linked: Vec<Link>) {
        let mut links = SpanLinks::default();
        links.links = linked;
        let mut events = SpanEvents::default();
        events.events = span.events;
        self.processor.on_end(SpanData {
            span_context: span.context,
            parent_span_id: span.parent,
            parent_span_is_remote: true,
            span_kind: span.kind,
            name: span.name,
            start_time: span.start,
            // The clocks of server and process may differ a little. No span may end before it
            // starts.
            end_time: span.end.max(span.start),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events,
            links,
            status: span.status,
            instrumentation_scope: self.scope.clone(),
        });
    }
}
