//! Exporters and tracer providers of the application.

use std::{cell::Cell, fmt, sync::Arc, time::Duration};

use futures_executor::block_on;
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanKind, TraceContextExt, TraceState, Tracer,
        TracerProvider,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        IdGenerator, RandomIdGenerator, SamplingDecision, SamplingResult, SdkTracerProvider,
        ShouldSample, Span, SpanData, SpanExporter, SpanProcessor, TracerProviderBuilder,
    },
};
use tokio::runtime::Handle;

use super::{Answer, Counts, Sender};
use crate::telemetry::scope;

/// Sends batches with an exporter of the application, which repeats what it wants to repeat.
pub(crate) struct OfExporter<E: SpanExporter> {
    exporter: E,
    runtime: Option<Handle>,
}

impl<E: SpanExporter + 'static> OfExporter<E> {
    pub fn new(mut exporter: E, resource: &Resource) -> Self {
        exporter.set_resource(resource);
        Self { exporter, runtime: Handle::try_current().ok() }
    }
}

impl<E: SpanExporter + 'static> Sender for OfExporter<E> {
    fn send(&mut self, batch: Vec<SpanData>) -> Answer {
        let _runtime = self.runtime.as_ref().map(Handle::enter);
        match block_on(self.exporter.export(batch)) {
            Ok(()) => Answer::Accepted { rejected: 0, message: String::new() },
            Err(error) => Answer::Rejected { error: error.to_string() },
        }
    }

    fn resend(&mut self) -> Answer {
        Answer::Rejected { error: "the exporter sends a batch once".to_owned() }
    }
}

impl<E: SpanExporter> Drop for OfExporter<E> {
    fn drop(&mut self) {
        let _runtime = self.runtime.as_ref().map(Handle::enter);
        // It is over, whatever it says.
        let _ = self.exporter.shutdown();
    }
}

impl Sender for Box<dyn Sender> {
    fn send(&mut self, batch: Vec<SpanData>) -> Answer {
        (**self).send(batch)
    }

    fn resend(&mut self) -> Answer {
        (**self).resend()
    }
}

thread_local! {
    /// The ids of the span that is being handed to a provider. It is sampled.
    static HANDED: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// A tracer provider of the application, as a processor of finished spans.
#[derive(Clone)]
pub(crate) struct OwnProvider {
    pub provider: SdkTracerProvider,
    pub counts: Arc<Counts>,
}

impl OwnProvider {
    pub fn new(
        builder: TracerProviderBuilder,
        sampler: Box<dyn ShouldSample>,
        resource: Resource,
    ) -> Self {
        let provider = builder
            .with_resource(resource)
            .with_id_generator(Ids(RandomIdGenerator::default()))
            .with_sampler(Sampler(sampler))
            .build();
        Self { provider, counts: Arc::default() }
    }
}

impl fmt::Debug for OwnProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("OwnProvider")
    }
}

impl SpanProcessor for OwnProvider {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    /// Makes the span again, by the provider.
    fn on_end(&self, span: SpanData) {
        let own = &span.span_context;
        let parent = match span.parent_span_id {
            SpanId::INVALID => Context::new(),
            id => Context::new().with_remote_span_context(SpanContext::new(
                own.trace_id(),
                id,
                TraceFlags::SAMPLED,
                span.parent_span_is_remote,
                own.trace_state().clone(),
            )),
        };
        let mut builder = SpanBuilder::from_name(span.name)
            .with_kind(span.span_kind)
            .with_start_time(span.start_time)
            .with_attributes(span.attributes);
        builder.events = Some(span.events.events);
        builder.links = Some(span.links.links);
        HANDED.set(Some((own.trace_id(), own.span_id())));
        let tracer = self.provider.tracer_with_scope(scope());
        let mut made = tracer.build_with_context(builder, &parent);
        HANDED.set(None);
        made.set_status(span.status);
        made.end_with_timestamp(span.end_time);
        self.counts.handed_over();
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.provider.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.provider.shutdown_with_timeout(timeout)
    }
}

#[derive(Debug)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        HANDED.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        HANDED.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// The sampler of the flows; a span that is handed over has been sampled.
#[derive(Debug, Clone)]
struct Sampler(Box<dyn ShouldSample>);

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if HANDED.get().is_none() {
            return self.0.should_sample(parent, trace, name, kind, attributes, links);
        }
        let state = parent.map(|parent| parent.span().span_context().trace_state().clone());
        SamplingResult {
            decision: SamplingDecision::RecordAndSample,
            attributes: Vec::new(),
            trace_state: state.unwrap_or(TraceState::NONE),
        }
    }
}
