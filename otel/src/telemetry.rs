//! Starts OpenTelemetry for a process, and shuts it down on every way out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use opentelemetry::{InstrumentationScope, global, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, RandomIdGenerator, Sampler, SdkTracerProvider,
        ShouldSample, SimpleSpanProcessor, SpanExporter, SpanProcessor, Tracer,
    },
};
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use crate::{
    Identity,
    attributes::REQUEST_TARGET,
    emit::Emitter,
    export::{CountingExporter, Counts, SharedProcessor},
    limits::Limits,
    variables::{self, ConfigurationError, Settings},
};

/// How long unsent spans may take at the end of a process.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// OpenTelemetry of this process. Dropping it flushes queued spans, for two seconds at most.
#[derive(Debug)]
pub struct Telemetry {
    started: Option<Started>,
    identity: Identity,
}

#[derive(Debug)]
struct Started {
    provider: SdkTracerProvider,
    emitter: Arc<Emitter>,
    counts: Arc<Counts>,
    ended: AtomicBool,
}

impl Telemetry {
    /// Starts as the `OTEL_*` variables say. Spans are made if `OTEL_EXPORTER_OTLP_ENDPOINT` or
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, unless `OTEL_SDK_DISABLED` is `true` or
    /// `OTEL_TRACES_EXPORTER` is `none`. Otherwise contexts still travel, and nothing is exported.
    /// [`crate::ignored_variables`] tells which values mean nothing.
    ///
    /// # Errors
    /// The first variable that makes it impossible to export as asked; then nothing is started.
    pub fn start(identity: Identity) -> Result<Self, ConfigurationError> {
        let Settings { propagator, sampler, limits, export } = variables::settings()?;
        global::set_text_map_propagator(propagator);
        let Some(export) = export else {
            return Ok(Self { started: None, identity });
        };
        let invalid = |error: opentelemetry_otlp::ExporterBuildError| ConfigurationError {
            variable: export.given.0.to_owned(),
            value: export.given.1.clone(),
            expected: format!(
                "expected an OTLP/HTTP address such as http://127.0.0.1:4318 ({error})"
            ),
        };
        let mut exporter = OtlpExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(&export.endpoint)
            .with_timeout(export.timeout)
            .with_headers(export.headers.clone());
        if let Some(compression) = export.compression {
            exporter = exporter.with_compression(compression);
        }
        let exporter = exporter.build().map_err(invalid)?;
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(export.queue)
            .with_max_export_batch_size(export.batch)
            .with_scheduled_delay(export.delay);
        let counts = Arc::new(Counts::default());
        let exporter = CountingExporter {
            exporter,
            counts: counts.clone(),
            endpoint: export.endpoint,
            instance: identity.instance.clone(),
            down: AtomicBool::new(false),
        };
        let processor =
            BatchSpanProcessor::builder(exporter).with_batch_config(batch.build()).build();
        let bound = export.queue as u64;
        Ok(Self::with_processor(identity, processor, counts, bound, sampler, limits))
    }

    /// Hands each span to `exporter` at once, whatever the environment says: for tests and
    /// simulations, with an exporter that keeps spans in memory.
    pub fn with_exporter(identity: Identity, exporter: impl SpanExporter + 'static) -> Self {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let processor = SimpleSpanProcessor::new(exporter);
        let sampler = Box::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
        Self::with_processor(identity, processor, Arc::default(), u64::MAX, sampler, Limits::NONE)
    }

    fn with_processor(
        identity: Identity,
        mut processor: impl SpanProcessor + 'static,
        counts: Arc<Counts>,
        bound: u64,
        sampler: Box<dyn ShouldSample>,
        limits: Limits,
    ) -> Self {
        let resource = identity.resource();
        processor.set_resource(&resource);
        let processor = SharedProcessor::new(processor, counts.clone(), bound, limits);
        // The same sampler decides for the spans of the SDK and for those made here.
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(sampler.clone())
            .with_span_limits(limits.of_sdk())
            .with_span_processor(processor.clone())
            .build();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let emitter =
            Arc::new(Emitter { processor, sampler, ids: RandomIdGenerator::default(), scope });
        let started = Started { provider, emitter, counts, ended: AtomicBool::new(false) };
        Self { started: Some(started), identity }
    }

    /// Whether spans are made.
    pub fn is_on(&self) -> bool {
        self.started.is_some()
    }

    /// How many spans were exported or lost; `None` if none are made.
    pub fn counts(&self) -> Option<Arc<Counts>> {
        self.started.as_ref().map(|started| started.counts.clone())
    }

    /// A `tracing` layer that turns the spans of HTTP server layers into OpenTelemetry spans, and
    /// with `requests` those of single requests to the Resonate Server. It has a filter of its own,
    /// independent of the filter of log lines.
    pub fn layer<S>(&self, requests: bool) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let started = self.started.as_ref()?;
        let tracer: Tracer = started.provider.tracer(env!("CARGO_PKG_NAME"));
        let mut filter = Targets::new().with_target("otel::tracing", tracing::Level::TRACE);
        if requests {
            filter = filter.with_target(REQUEST_TARGET, tracing::Level::DEBUG);
        }
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        // These spans are about requests, not about source files and threads.
        let layer = layer
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        Some(layer.with_filter(filter))
    }

    pub(crate) fn emitter(&self) -> Option<Arc<Emitter>> {
        self.started.as_ref().map(|started| started.emitter.clone())
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Flushes queued spans, for two seconds at most, and stops. A second call does nothing.
    /// It blocks: call it after the runtime has ended, or in a thread of its own.
    pub fn shutdown(&self) {
        let Some(started) = &self.started else { return };
        if started.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = started.provider.shutdown_with_timeout(SHUTDOWN) {
            tracing::warn!(instance = self.identity.instance, %error, "spans were not flushed at shutdown");
        }
        let (failed, dropped) = (started.counts.failed(), started.counts.dropped());
        if failed + dropped > 0 {
            let instance = &self.identity.instance;
            tracing::warn!(instance, failed, dropped, "spans were lost");
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.shutdown();
    }
}
