//! Starts OpenTelemetry for a process, and shuts it down on every way out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use opentelemetry::{InstrumentationScope, global, trace::TracerProvider};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{
        RandomIdGenerator, Sampler, SdkTracerProvider, ShouldSample, SpanExporter, SpanProcessor,
        Tracer,
    },
};
use tracing::{Level, Subscriber};
use tracing_subscriber::{
    Layer,
    filter::{FilterExt, LevelFilter, Targets, filter_fn},
    registry::LookupSpan,
};

use crate::{
    Identity, TelemetryBuilder,
    attributes::REQUEST_TARGET,
    builder::MakeSender,
    emit::Emitter,
    export::{
        AtOnce, Counts, SharedProcessor,
        batches::{Batches, Bounds, PATIENCE},
        losses::Log,
        otlp::Otlp,
        own::OwnProvider,
    },
    globals,
    limits::Limits,
    metrics::{Export as MetricExport, Metrics},
    variables::{ConfigurationError, Export},
};

/// Version of the semantic conventions that attributes follow.
pub(crate) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.42.0";

/// How long the last exports may take at the end of a process.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// OpenTelemetry of this process. Dropping it exports queued spans and the last values of metrics, for
/// two seconds at most.
#[derive(Debug)]
pub struct Telemetry {
    started: Option<Started>,
    metrics: Metrics,
    metric_export: Option<MetricExport>,
    identity: Identity,
    pub(crate) stores_baggage: bool,
    ended: AtomicBool,
}

#[derive(Debug)]
struct Started {
    provider: SdkTracerProvider,
    emitter: Arc<Emitter>,
    counts: Arc<Counts>,
}

/// The instrumentation scope of all spans and metrics.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL)
        .build()
}

impl Telemetry {
    /// Starts as the `OTEL_*` variables say. Spans are made if `OTEL_EXPORTER_OTLP_ENDPOINT` or
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, unless `OTEL_SDK_DISABLED` is `true` or
    /// `OTEL_TRACES_EXPORTER` is `none`. Otherwise contexts still travel, and no span is exported.
    /// The same goes for metrics, with `METRICS` in the place of `TRACES`.
    /// [`crate::ignored_variables`] tells which values mean nothing.
    ///
    /// It sets OpenTelemetry's global propagator and tracer provider, unless the application has set
    /// its own.
    ///
    /// # Errors
    /// The first variable that makes it impossible to export as asked; then nothing is started.
    pub fn start(identity: Identity) -> Result<Self, ConfigurationError> {
        Self::builder(identity).start()
    }

    /// Starts with something that the variables do not say, or not as the application wants it.
    pub fn builder(identity: Identity) -> TelemetryBuilder {
        TelemetryBuilder::new(identity)
    }

    /// Contexts travel, and nothing is exported.
    pub(crate) fn off(identity: Identity) -> Self {
        Self::new(None, identity)
    }

    fn new(started: Option<Started>, identity: Identity) -> Self {
        let (metrics, ended) = (Metrics::default(), AtomicBool::new(false));
        Self { started, metrics, metric_export: None, identity, stores_baggage: false, ended }
    }

    /// Exports by OTLP, or with `sender`.
    pub(crate) fn exporting(
        identity: Identity,
        export: &Export,
        sampler: Box<dyn ShouldSample>,
        limits: Limits,
        sender: Option<MakeSender>,
    ) -> Result<Self, ConfigurationError> {
        let resource = identity.resource();
        let invalid = |error| export.to.invalid(error);
        let sender = match sender {
            Some(make) => make(&resource),
            None => Box::new(Otlp::new(&export.to, &resource).map_err(invalid)?),
        };
        let Export { queue, batch, delay, .. } = *export;
        let counts = Arc::new(Counts::default());
        let log = Log::new(export.to.shown(), identity.instance.clone());
        let bounds = Bounds { queue, batch, delay, patience: PATIENCE };
        let processor = Batches::start(sender, bounds, counts.clone(), log)
            .map_err(|error| invalid(error.to_string()))?;
        let processor = SharedProcessor::new(processor, limits);
        Ok(Self::with_processor(identity, resource, processor, counts, sampler, limits))
    }

    /// Hands spans to a tracer provider of the application.
    pub(crate) fn with_own_provider(
        identity: Identity,
        own: OwnProvider,
        sampler: Box<dyn ShouldSample>,
    ) -> Self {
        let (provider, counts) = (own.provider.clone(), own.counts.clone());
        let processor = SharedProcessor::new(own, Limits::NONE);
        Self::with(identity, provider, processor, counts, sampler)
    }

    /// Makes the tracer provider OpenTelemetry's global one, unless the application has set its own.
    pub(crate) fn set_global(&self) {
        self.started.iter().for_each(|started| globals::tracer_provider(&started.provider));
    }

    /// Starts to measure. Layers that were made before do not.
    pub(crate) fn measure(&mut self, export: MetricExport) {
        if let Some(started) = &self.started {
            export.observe_spans(&started.counts);
        }
        self.metrics = Metrics::new(export.meter());
        self.metric_export = Some(export);
    }

    /// Hands each span to `exporter` at once, whatever the environment says: for tests and
    /// simulations, with an exporter that keeps spans in memory.
    pub fn with_exporter(identity: Identity, mut exporter: impl SpanExporter + 'static) -> Self {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let resource = identity.resource();
        exporter.set_resource(&resource);
        let counts = Arc::new(Counts::default());
        let limits = Limits::NONE;
        let processor = SharedProcessor::new(AtOnce { exporter, counts: counts.clone() }, limits);
        let sampler = Box::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
        Self::with_processor(identity, resource, processor, counts, sampler, limits)
    }

    fn with_processor(
        identity: Identity,
        resource: Resource,
        processor: SharedProcessor,
        counts: Arc<Counts>,
        sampler: Box<dyn ShouldSample>,
        limits: Limits,
    ) -> Self {
        // The same sampler decides for the spans of the SDK and for those made here.
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(sampler.clone())
            .with_span_limits(limits.of_sdk())
            .with_span_processor(processor.clone())
            .build();
        Self::with(identity, provider, processor, counts, sampler)
    }

    fn with(
        identity: Identity,
        provider: SdkTracerProvider,
        processor: SharedProcessor,
        counts: Arc<Counts>,
        sampler: Box<dyn ShouldSample>,
    ) -> Self {
        let ids = RandomIdGenerator::default();
        let emitter = Arc::new(Emitter { processor, sampler, ids, scope: scope() });
        let started = Started { provider, emitter, counts };
        Self::new(Some(started), identity)
    }

    /// Whether spans are made.
    pub fn is_on(&self) -> bool {
        self.started.is_some()
    }

    /// The tracer provider of this process, for spans of the application; `None` if none are made.
    pub fn tracer_provider(&self) -> Option<&SdkTracerProvider> {
        self.started.as_ref().map(|started| &started.provider)
    }

    /// How many spans were exported or lost; `None` if none are made.
    pub fn counts(&self) -> Option<Arc<Counts>> {
        self.started.as_ref().map(|started| started.counts.clone())
    }

    /// The metrics of this process, for what the layers of this crate do not see.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The provider of these metrics, for those of the application; `None` if there are none.
    #[cfg(feature = "metrics")]
    pub fn meter_provider(&self) -> Option<&opentelemetry_sdk::metrics::SdkMeterProvider> {
        self.metric_export.as_ref().map(MetricExport::provider)
    }

    /// A `tracing` layer that turns spans into OpenTelemetry spans: those of HTTP server layers, those
    /// of the application that `spans` lets through, and with `requests` those of single requests to
    /// the Resonate Server. An error that is logged within such a span marks it as failed.
    ///
    /// Spans of this crate, of the SDK and of OpenTelemetry itself never pass, unless `spans` names
    /// their target. The filter of log lines is another one.
    pub fn layer<S>(
        &self,
        spans: Targets,
        requests: bool,
    ) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let started = self.started.as_ref()?;
        let tracer: Tracer = started.provider.tracer_with_scope(scope());
        // A target also matches every target that starts with it.
        let mut filter = Targets::new()
            .with_default(spans.default_level().unwrap_or(LevelFilter::OFF))
            .with_targets(["resonate", "opentelemetry"].map(|target| (target, LevelFilter::OFF)))
            .with_target("otel::tracing", Level::TRACE)
            .with_targets(spans);
        if requests {
            filter = filter.with_target(REQUEST_TARGET, Level::DEBUG);
        }
        let events = filter_fn(|it| it.is_span() || *it.level() == Level::ERROR);
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        // These spans are about requests, not about source files and threads.
        let layer = layer
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        Some(layer.with_filter(filter.and(events)))
    }

    pub(crate) fn emitter(&self) -> Option<Arc<Emitter>> {
        self.started.as_ref().map(|started| started.emitter.clone())
    }

    /// Whether promises carry baggage.
    pub(crate) fn stores_baggage(&self) -> bool {
        self.stores_baggage
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Exports queued spans and the last values of metrics, for two seconds at most, and stops. A
    /// second call does nothing. It blocks: call it after the runtime has ended, or in a thread of its
    /// own. Which spans are lost is logged.
    pub fn shutdown(&self) {
        if self.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let spans = |timeout| {
            if let Some(started) = &self.started {
                // The processor has logged what an error would tell.
                let _ = started.provider.shutdown_with_timeout(timeout);
            }
        };
        end(spans, self.metric_export.as_ref(), SHUTDOWN);
    }

    /// The same with another bound, for a process that has to end at once.
    pub fn last_flush(&self) -> impl Fn(Duration) + Send + 'static + use<> {
        let processor = self.started.as_ref().map(|started| started.emitter.processor.clone());
        let metrics = self.metric_export.clone();
        move |timeout| {
            let spans = |timeout| {
                if let Some(processor) = &processor {
                    let _ = processor.shutdown_with_timeout(timeout);
                }
            };
            end(spans, metrics.as_ref(), timeout);
        }
    }
}

/// Ends both exports within `timeout`. Metrics come last, because they count the spans that were
/// exported, and have a quarter of the time for themselves.
fn end(spans: impl Fn(Duration), metrics: Option<&MetricExport>, timeout: Duration) {
    let end = Instant::now() + timeout;
    let Some(metrics) = metrics else { return spans(timeout) };
    spans(timeout - timeout / 4);
    metrics.end(end.saturating_duration_since(Instant::now()));
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.shutdown();
    }
}
