//! From finished spans to the collector: bounded, counted, and never in a flow's way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};

/// What became of the spans of this process.
#[derive(Debug, Default)]
pub struct Counts {
    /// Accepted, and not handed to the exporter yet.
    queued: AtomicU64,
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Spans that the collector has accepted.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Spans that were lost because the collector was out of reach or refused them.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// The batch processor, shared by the tracer provider and this crate's own spans. The SDK does
/// not expose how many spans its queue refused, so the bound is kept here.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    batch: Arc<BatchSpanProcessor>,
    counts: Arc<Counts>,
    bound: u64,
}

impl Shared {
    /// `bound` must be at most the queue size of `batch`.
    pub fn new(batch: BatchSpanProcessor, counts: Arc<Counts>, bound: u64) -> Self {
        Self { batch: Arc::new(batch), counts, bound }
    }
}

impl SpanProcessor for Shared {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.counts.queued.fetch_add(1, Ordering::Relaxed) >= self.bound {
            self.counts.queued.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.batch.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batch.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batch.shutdown_with_timeout(timeout)
    }
}

/// An exporter that counts, and says once when the collector goes and once when it is back.
#[derive(Debug)]
pub(crate) struct Watched<E> {
    pub exporter: E,
    pub counts: Arc<Counts>,
    pub endpoint: String,
    pub down: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        self.counts.queued.fetch_sub(spans, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => {
                self.counts.exported.fetch_add(spans, Ordering::Relaxed);
                if self.down.swap(false, Ordering::Relaxed) {
                    let (failed, dropped) = (self.counts.failed(), self.counts.dropped());
                    tracing::info!(
                        collector = self.endpoint,
                        failed,
                        dropped,
                        "the trace collector is back; counts of lost spans are since the start"
                    );
                }
            }
            Err(error) => {
                self.counts.failed.fetch_add(spans, Ordering::Relaxed);
                if !self.down.swap(true, Ordering::Relaxed) {
                    tracing::warn!(collector = self.endpoint, %error, "the trace collector does not take spans; flows go on without them");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
