//! Spans that are made when everything about them is known: with their ids and all their times.
//!
//! A span that was started must be ended by the same process and cannot be taken back, so none is
//! started for something that another process may end.

use std::{borrow::Cow, time::SystemTime};

use opentelemetry::{
    Context, InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Event, SpanContext, SpanKind, Status, TraceContextExt},
};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, SamplingDecision, ShouldSample, SpanData, SpanEvents,
    SpanLinks, SpanProcessor,
};

use crate::export::Shared;

/// Makes ids, asks the sampler, and hands finished spans on.
#[derive(Debug)]
pub(crate) struct Emitter {
    pub processor: Shared,
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
    /// The ids of a new span under `parent`; a trace of its own where there is no parent, with
    /// the sampler asked once.
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

    /// Hands a span to the batch processor. What is not sampled ends there.
    pub fn emit(&self, span: Finished) {
        let mut events = SpanEvents::default();
        events.events = span.events;
        self.processor.on_end(SpanData {
            span_context: span.context,
            parent_span_id: span.parent,
            parent_span_is_remote: true,
            span_kind: span.kind,
            name: span.name,
            start_time: span.start,
            // Server and process may disagree by a little; a span that ends before it starts
            // would be drawn as broken.
            end_time: span.end.max(span.start),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status: span.status,
            instrumentation_scope: self.scope.clone(),
        });
    }
}
