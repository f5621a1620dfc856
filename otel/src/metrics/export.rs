//! From instruments to the collector: at fixed intervals, and once more at the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue,
    metrics::{Meter, MeterProvider},
};
use opentelemetry_otlp::{MetricExporter, Protocol, RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{
        Instrument, PeriodicReader, SdkMeterProvider, Stream, Temporality, data::ResourceMetrics,
        exporter::PushMetricExporter,
    },
};
use prost::Message;

use crate::{
    attributes as key,
    export::{Counts, otlp::Recorder},
    telemetry::scope,
    variables::{ConfigurationError, MetricExport},
};

/// Different attributes of one metric, at most. More are counted together, under
/// `otel.metric.overflow`.
const CARDINALITY: usize = 500;

/// The metrics of this process on their way out. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Export(SdkMeterProvider);

impl Export {
    /// # Errors
    /// The address is none.
    pub fn start(
        settings: &MetricExport,
        resource: Resource,
        instance: &str,
    ) -> Result<Self, ConfigurationError> {
        let invalid = |error| settings.to.invalid(error);
        let recorder = Recorder::new(settings.to.timeout).map_err(invalid)?;
        let mut exporter = MetricExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&settings.to.endpoint)
            .with_timeout(settings.to.timeout)
            .with_headers(settings.to.headers.clone())
            // The next export has everything that a failed one had.
            .with_retry_policy(RetryPolicy::disabled())
            .with_http_client(recorder.clone())
            .with_temporality(settings.temporality);
        if let Some(compression) = settings.to.compression {
            exporter = exporter.with_compression(compression);
        }
        let exporter = exporter.build().map_err(|error| invalid(error.to_string()))?;
        let exporter = Logged {
            exporter,
            recorder,
            endpoint: settings.to.shown(),
            instance: instance.to_owned(),
            down: AtomicBool::new(false),
        };
        Ok(Self::new(exporter, settings.interval, resource))
    }

    pub fn new(exporter: impl PushMetricExporter, interval: Duration, resource: Resource) -> Self {
        let reader = PeriodicReader::builder(exporter).with_interval(interval).build();
        let bounded = |_: &Instrument| {
            let stream = Stream::builder().with_cardinality_limit(CARDINALITY);
            stream.build().ok()
        };
        let provider = SdkMeterProvider::builder().with_resource(resource).with_reader(reader);
        Self(provider.with_view(bounded).build())
    }

    pub fn meter(&self) -> Meter {
        self.0.meter_with_scope(scope())
    }

    /// For metrics of the application.
    pub fn provider(&self) -> &SdkMeterProvider {
        &self.0
    }

    /// Adds the metrics of span export: all spans that were made end up in one of them.
    pub fn observe_spans(&self, counts: &Arc<Counts>) {
        let meter = self.meter();
        let of = |component: &'static str, error: Option<&'static str>| {
            let error = error.map(|error| KeyValue::new(key::ERROR_TYPE, error));
            let component = [
                KeyValue::new(key::COMPONENT_NAME, format!("{component}/0")),
                KeyValue::new(key::COMPONENT_TYPE, component),
            ];
            component.into_iter().chain(error).collect::<Vec<_>>()
        };
        let exporter = |error| of("otlp_http_span_exporter", error);
        let attributes = [exporter(None), exporter(Some("rejected")), exporter(Some("shutdown"))];
        let seen = counts.clone();
        meter
            .u64_observable_counter("otel.sdk.exporter.span.exported")
            .with_unit("{span}")
            .with_description("Spans whose export has finished, successfully or not.")
            .with_callback(move |observer| {
                let counts = [seen.exported(), seen.rejected(), seen.given_up()];
                for (count, attributes) in counts.into_iter().zip(&attributes) {
                    observer.observe(count, attributes);
                }
            })
            .build();
        let processor = |error| of("batching_span_processor", error);
        let attributes = [processor(None), processor(Some("queue_full"))];
        let seen = counts.clone();
        meter
            .u64_observable_counter("otel.sdk.processor.span.processed")
            .with_unit("{span}")
            .with_description("Spans whose processing has finished, successfully or not.")
            .with_callback(move |observer| {
                let passed_on = seen.exported() + seen.rejected() + seen.given_up();
                let counts = [passed_on, seen.dropped()];
                for (count, attributes) in counts.into_iter().zip(&attributes) {
                    observer.observe(count, attributes);
                }
            })
            .build();
    }

    /// Exports the last values, for `timeout` at most, and stops.
    pub fn end(&self, timeout: Duration) {
        let (provider, (end, ended)) = (self.0.clone(), mpsc::channel());
        // The provider itself waits for five seconds, whatever it is told.
        std::thread::spawn(move || {
            let _suppressed = Context::enter_telemetry_suppressed_scope();
            // The exporter has logged what an error would tell.
            let _ = provider.shutdown();
            let _ = end.send(());
        });
        let _ = ended.recv_timeout(timeout);
    }
}

/// An exporter that logs each outage once. Flows are not affected by one, and no value is lost: the
/// next export has the values of this one.
struct Logged {
    exporter: MetricExporter,
    recorder: Recorder,
    endpoint: String,
    instance: String,
    down: AtomicBool,
}

impl Logged {
    fn log(&self, error: Option<String>) {
        let (instance, collector) = (&self.instance, &self.endpoint);
        let was_down = self.down.swap(error.is_some(), Relaxed);
        match error {
            Some(error) if !was_down => tracing::warn!(
                instance,
                collector,
                error,
                "metric export is failing; flows are not affected; \
                 OTEL_METRICS_EXPORTER=none turns metrics off"
            ),
            None if was_down => tracing::info!(instance, collector, "metric export recovered"),
            _ => {}
        }
    }
}

impl PushMetricExporter for Logged {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.exporter.export(metrics).await;
        self.log(match self.recorder.take_last(&self.endpoint) {
            Some(Ok(body)) => partial(&body),
            Some(Err(error)) => Some(error),
            None => result.as_ref().err().map(ToString::to_string),
        });
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

/// What a collector that took an export did not take of it.
fn partial(body: &[u8]) -> Option<String> {
    let response = ExportMetricsServiceResponse::decode(body).ok()?;
    let partial = response.partial_success.filter(|partial| partial.rejected_data_points > 0)?;
    Some(format!(
        "the collector rejected {} data points: {}",
        partial.rejected_data_points, partial.error_message
    ))
}
