//! From finished spans to the collector: bounded, counted, and never slowing a flow.

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
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};

use crate::limits::Limits;

/// How many spans of this process were exported or lost.
#[derive(Debug, Default)]
pub struct Counts {
    /// Accepted, not handed to the exporter yet.
    queued: AtomicU64,
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Spans that the collector accepted.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Spans that were lost because the collector was unreachable or refused them.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// A span processor, shared by the tracer provider and this crate's own spans. The SDK does not
/// expose how many spans its batch queue refused, so the bound is kept here.
#[derive(Debug, Clone)]
pub(crate) struct SharedProcessor {
    inner: Arc<dyn SpanProcessor>,
    counts: Arc<Counts>,
    bound: u64,
    limits: Limits,
}

impl SharedProcessor {
    /// `bound`: spans that wait in `inner` at most; not above its own queue size.
    pub fn new(
        inner: impl SpanProcessor + 'static,
        counts: Arc<Counts>,
        bound: u64,
        limits: Limits,
    ) -> Self {
        Self { inner: Arc::new(inner), counts, bound, limits }
    }
}

impl SpanProcessor for SharedProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.counts.queued.fetch_add(1, Ordering::Relaxed) >= self.bound {
            self.counts.queued.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.limits.apply(&mut span);
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
}

/// An exporter that counts, and logs each outage of the collector once, and its end once.
#[derive(Debug)]
pub(crate) struct CountingExporter<E> {
    pub exporter: E,
    pub counts: Arc<Counts>,
    pub endpoint: String,
    /// For log lines: many processes may write to one log.
    pub instance: String,
    pub down: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for CountingExporter<E> {
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
                        instance = self.instance,
                        collector = self.endpoint,
                        failed,
                        dropped,
                        "span export recovered"
                    );
                }
            }
            Err(error) => {
                self.counts.failed.fetch_add(spans, Ordering::Relaxed);
                if !self.down.swap(true, Ordering::Relaxed) {
                    tracing::warn!(instance = self.instance, collector = self.endpoint, %error, "span export is failing; flows are not affected");
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use opentelemetry::{
        InstrumentationScope, SpanId, TraceFlags, TraceId,
        trace::{SpanContext, SpanKind, Status, TraceState},
    };
    use opentelemetry_sdk::{
        error::OTelSdkError,
        trace::{BatchConfigBuilder, BatchSpanProcessor, SpanEvents, SpanLinks},
    };
    use std::{
        sync::mpsc::{Receiver, sync_channel},
        time::SystemTime,
    };

    pub(crate) fn span(flags: TraceFlags) -> SpanData {
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(1),
                SpanId::from(1),
                flags,
                false,
                TraceState::default(),
            ),
            parent_span_id: SpanId::INVALID,
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

    /// A collector that answers each batch with what the test sends, when it sends it.
    #[derive(Debug)]
    struct Collector(std::sync::Mutex<Receiver<bool>>);

    impl SpanExporter for Collector {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            match self.0.lock().unwrap().recv() {
                Ok(true) => Ok(()),
                _ => Err(OTelSdkError::InternalFailure("refused".to_owned())),
            }
        }
    }

    #[test]
    fn every_span_is_exported_failed_or_dropped_and_the_queue_is_bounded() {
        let (answer, answers) = sync_channel(16);
        let counts = Arc::new(Counts::default());
        let exporter = CountingExporter {
            exporter: Collector(answers.into()),
            counts: counts.clone(),
            endpoint: "test".to_owned(),
            instance: String::new(),
            down: AtomicBool::new(false),
        };
        let config =
            BatchConfigBuilder::default().with_max_queue_size(8).with_max_export_batch_size(2);
        let batch = BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build();
        let shared = SharedProcessor::new(batch, counts.clone(), 8, Limits::NONE);
        shared.on_end(span(TraceFlags::default()));
        for _ in 0..100 {
            shared.on_end(span(TraceFlags::SAMPLED));
        }
        // The exporter holds at most one batch of two, and the queue eight.
        assert!((90..=92).contains(&counts.dropped()), "{counts:?}");
        answer.send(false).unwrap();
        for _ in 0..8 {
            answer.send(true).unwrap();
        }
        shared.force_flush().unwrap();
        assert_eq!(counts.failed(), 2);
        assert_eq!(counts.exported() + counts.failed() + counts.dropped(), 100, "{counts:?}");
        drop(answer);
        shared.shutdown_with_timeout(Duration::from_secs(5)).unwrap();
    }
}
