//! Starts OpenTelemetry for a process, and ends it on every way out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    InstrumentationScope, KeyValue, global,
    propagation::{TextMapCompositePropagator, TextMapPropagator},
    trace::TracerProvider,
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::{BaggagePropagator, TraceContextPropagator},
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Config, RandomIdGenerator, SdkTracerProvider,
        SpanProcessor, Tracer,
    },
};
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use crate::{
    emit::Emitter,
    export::{Counts, Shared, Watched},
    observer::REQUESTS,
};

/// A span reaches the collector about this long after its end, unless `OTEL_BSP_SCHEDULE_DELAY`
/// says otherwise: a crash should be seen while one still looks.
const SCHEDULE_DELAY: Duration = Duration::from_millis(500);

/// Spans that wait for the collector at most, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise. The
/// SDK allocates them all at the start: this is its default too, and about 1 MB.
const QUEUE: usize = 2048;

/// At the end of a process, unsent spans are given this long.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// A variable of OpenTelemetry that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable}={value:?} cannot be used: {allowed}")]
pub struct ConfigurationError {
    /// Its name.
    pub variable: String,
    /// What it is set to.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

/// Who emits: the attributes `service.*` of every span of a process.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `service.name`: the group, which all replicas share.
    pub name: String,
    /// `service.instance.id`: unique to the process.
    pub instance: String,
    /// `service.namespace`.
    pub namespace: &'static str,
    /// `service.version`.
    pub version: &'static str,
}

/// OpenTelemetry of this process; its end flushes what is queued, for two seconds at most.
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
    /// Starts by the `OTEL_*` variables. Spans are made where `OTEL_EXPORTER_OTLP_ENDPOINT` or
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set and `OTEL_SDK_DISABLED` is not `true`;
    /// otherwise contexts still travel, and that is all.
    ///
    /// # Errors
    /// The first variable that cannot be used; nothing was started then.
    pub fn start(identity: Identity) -> Result<Self, ConfigurationError> {
        global::set_text_map_propagator(propagator()?);
        let Some((variable, endpoint)) = endpoint() else {
            return Ok(Self { started: None, identity });
        };
        let failed = |error: opentelemetry_otlp::ExporterBuildError| ConfigurationError {
            variable: variable.to_owned(),
            value: endpoint.clone(),
            allowed: format!(
                "an OTLP/HTTP address such as http://127.0.0.1:4318 is expected ({error})"
            ),
        };
        let exporter = SpanExporter::builder().with_http();
        let exporter = exporter
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .build()
            .map_err(failed)?;

        // The environment wins over what the application says of itself.
        let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
        let resource = Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes([
                KeyValue::new("service.instance.id", identity.instance.clone()),
                KeyValue::new("service.namespace", identity.namespace),
                KeyValue::new("service.version", identity.version),
            ])
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attribute(KeyValue::new(
                "service.name",
                name.unwrap_or_else(|| identity.name.clone()),
            ))
            .build();
        let counts = Arc::new(Counts::default());
        let exporter = Watched {
            exporter,
            counts: counts.clone(),
            endpoint,
            instance: identity.instance.clone(),
            down: AtomicBool::new(false),
        };
        let bound = variable_or("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE)?;
        let mut batch = BatchConfigBuilder::default().with_max_queue_size(bound);
        if std::env::var_os("OTEL_BSP_SCHEDULE_DELAY").is_none() {
            batch = batch.with_scheduled_delay(SCHEDULE_DELAY);
        }
        let mut processor =
            BatchSpanProcessor::builder(exporter).with_batch_config(batch.build()).build();
        processor.set_resource(&resource);
        let processor = Shared::new(processor, counts.clone(), bound as u64);
        // The SDK reads OTEL_TRACES_SAMPLER for its own spans; the same sampler decides here.
        let sampler = Config::default().sampler;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(sampler.clone())
            .with_span_processor(processor.clone())
            .build();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let emitter =
            Arc::new(Emitter { processor, sampler, ids: RandomIdGenerator::default(), scope });
        let started = Started { provider, emitter, counts, ended: AtomicBool::new(false) };
        Ok(Self { started: Some(started), identity })
    }

    /// Whether spans are made.
    pub fn is_on(&self) -> bool {
        self.started.is_some()
    }

    /// What became of the spans; `None` where none are made.
    pub fn counts(&self) -> Option<Arc<Counts>> {
        self.started.as_ref().map(|started| started.counts.clone())
    }

    /// Turns `tracing` spans into OpenTelemetry's: those of HTTP server layers, which stand at
    /// level TRACE, and with `requests` those of single requests to the Resonate Server. Its filter
    /// is its own; that of the log lines does not matter.
    pub fn layer<S>(&self, requests: bool) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let started = self.started.as_ref()?;
        let tracer: Tracer = started.provider.tracer(env!("CARGO_PKG_NAME"));
        let mut filter = Targets::new().with_target("otel::tracing", tracing::Level::TRACE);
        if requests {
            filter = filter.with_target(REQUESTS, tracing::Level::DEBUG);
        }
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        // A request's span is about the request, not about source files and threads.
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

    /// Sends what is queued, for two seconds at most, and ends. A second call does nothing.
    /// It blocks: after the runtime, or in a thread of its own.
    pub fn shutdown(&self) {
        let Some(started) = &self.started else { return };
        if started.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = started.provider.shutdown_with_timeout(SHUTDOWN) {
            tracing::warn!(instance = self.identity.instance, %error, "not all spans were sent at the end");
        }
        let (failed, dropped) = (started.counts.failed(), started.counts.dropped());
        if failed + dropped > 0 {
            let instance = &self.identity.instance;
            tracing::warn!(
                instance,
                failed,
                dropped,
                "spans were lost in the life of this process"
            );
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// The endpoint and the variable that set it; none: tracing is off.
fn endpoint() -> Option<(&'static str, String)> {
    if std::env::var("OTEL_SDK_DISABLED")
        .is_ok_and(|value| value.trim().eq_ignore_ascii_case("true"))
    {
        return None;
    }
    ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"].into_iter().find_map(
        |variable| {
            Some((variable, std::env::var(variable).ok().filter(|value| !value.is_empty())?))
        },
    )
}

/// `OTEL_PROPAGATORS`, which the Rust SDK does not read itself.
fn propagator() -> Result<TextMapCompositePropagator, ConfigurationError> {
    let names =
        std::env::var("OTEL_PROPAGATORS").unwrap_or_else(|_| "tracecontext,baggage".to_owned());
    let mut propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name {
            "tracecontext" => propagators.push(Box::new(TraceContextPropagator::new())),
            "baggage" => propagators.push(Box::new(BaggagePropagator::new())),
            "none" => {}
            _ => {
                return Err(ConfigurationError {
                    variable: "OTEL_PROPAGATORS".to_owned(),
                    value: names.clone(),
                    allowed: "a list of tracecontext and baggage, or none, is expected".to_owned(),
                });
            }
        }
    }
    Ok(TextMapCompositePropagator::new(propagators))
}

fn variable_or(variable: &str, default: usize) -> Result<usize, ConfigurationError> {
    let Ok(value) = std::env::var(variable) else { return Ok(default) };
    let number = value.parse().ok().filter(|number| *number > 0);
    let allowed = "an integer above 0 is expected".to_owned();
    number.ok_or(ConfigurationError { variable: variable.to_owned(), value, allowed })
}
