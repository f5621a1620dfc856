//! From finished spans to the collector: bounded, counted, and never slowing a flow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_executor::block_on;
use opentelemetry::Context;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};

use crate::limits::Limits;

pub(crate) mod batches;
pub(crate) mod losses;
pub(crate) mod otlp;
pub(crate) mod own;

/// What became of the spans of this process. Once all is done, [`made`](Self::made) is the sum of
/// the others.
#[derive(Debug, Default)]
pub struct Counts {
    made: AtomicU64,
    exported: AtomicU64,
    rejected: AtomicU64,
    dropped: AtomicU64,
    given_up: AtomicU64,
}

impl Counts {
    /// Sampled spans that ended.
    pub fn made(&self) -> u64 {
        self.made.load(Relaxed)
    }

    /// Spans that the collector accepted.
    pub fn exported(&self) -> u64 {
        self.exported.load(Relaxed)
    }

    /// Spans that the collector rejected for good.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// Spans that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Spans without an answer of the collector when the process ended.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Relaxed)
    }

    /// A span was handed to the application, which answers for it.
    fn handed_over(&self) {
        self.made.fetch_add(1, Relaxed);
        self.exported.fetch_add(1, Relaxed);
    }

    /// Spans that were lost, for whatever reason.
    pub fn lost(&self) -> u64 {
        self.rejected() + self.dropped() + self.given_up()
    }
}

/// What a collector answers to a batch.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It took the batch, but for some spans, for a reason.
    Accepted { rejected: u64, message: String },
    /// It will never take the batch.
    Rejected { error: String },
    /// It may take the batch later, perhaps after some time. `answered`: it was reached.
    Refused { error: String, after: Option<Duration>, answered: bool },
}

/// Sends batches to a collector, one at a time, from one thread.
pub(crate) trait Sender: Send + 'static {
    /// Sends spans. It keeps them until the next call.
    fn send(&mut self, batch: Vec<SpanData>) -> Answer;

    /// Sends the same spans again.
    fn resend(&mut self) -> Answer;
}

/// A span processor, shared by the tracer provider and this crate's own spans.
#[derive(Debug, Clone)]
pub(crate) struct SharedProcessor {
    inner: Arc<dyn SpanProcessor>,
    limits: Limits,
}

impl SharedProcessor {
    pub fn new(inner: impl SpanProcessor + 'static, limits: Limits) -> Self {
        Self { inner: Arc::new(inner), limits }
    }
}

impl SpanProcessor for SharedProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        if span.span_context.is_sampled() {
            self.limits.apply(&mut span);
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
}

/// Hands each span to an exporter at once.
#[derive(Debug)]
pub(crate) struct AtOnce<E> {
    pub exporter: E,
    pub counts: Arc<Counts>,
}

impl<E: SpanExporter + 'static> SpanProcessor for AtOnce<E> {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.counts.made.fetch_add(1, Relaxed);
        let count = match block_on(self.exporter.export(vec![span])) {
            Ok(()) => &self.counts.exported,
            Err(_) => &self.counts.rejected,
        };
        count.fetch_add(1, Relaxed);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::SystemTime;

    use opentelemetry::{
        InstrumentationScope, SpanId, TraceFlags, TraceId,
        trace::{SpanContext, SpanKind, Status, TraceState},
    };
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    /// A span below another one.
    pub(crate) fn span(flags: TraceFlags) -> SpanData {
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(1),
                SpanId::from(1),
                flags,
                false,
                TraceState::default(),
            ),
            parent_span_id: SpanId::from(2),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "span".into(),
            start_time: SystemTime::now(),
            end_time: SystemTime::now(),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }
}
