//! How OpenTelemetry starts: as the `OTEL_*` variables say, and as the application does.

use std::fmt;

use opentelemetry::{
    global,
    propagation::{TextMapCompositePropagator, TextMapPropagator},
};
use opentelemetry_sdk::{
    Resource,
    trace::{ShouldSample, SpanExporter, TracerProviderBuilder},
};

use crate::{
    Identity, Telemetry, context,
    export::{
        Sender,
        own::{OfExporter, OwnProvider},
    },
    globals,
    metrics::Export as MetricExport,
    variables::{self, ConfigurationError, Settings},
};

/// Makes what sends the spans of a resource.
pub(crate) type MakeSender = Box<dyn FnOnce(&Resource) -> Box<dyn Sender> + Send>;

/// Where spans go.
enum Spans {
    Otlp,
    Exporter(MakeSender),
    Provider(Box<TracerProviderBuilder>),
}

/// What an application says in place of a variable. Get one from [`Telemetry::builder`].
pub struct TelemetryBuilder {
    identity: Identity,
    endpoint: Option<String>,
    headers: Vec<(String, String)>,
    spans: Spans,
    sampler: Option<Box<dyn ShouldSample>>,
    propagator: Option<Box<dyn TextMapPropagator + Send + Sync>>,
}

impl fmt::Debug for TelemetryBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_struct("TelemetryBuilder").field("identity", &self.identity).finish()
    }
}

impl TelemetryBuilder {
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            endpoint: None,
            headers: Vec::new(),
            spans: Spans::Otlp,
            sampler: None,
            propagator: None,
        }
    }

    /// The address of a collector, without `/v1/traces`, in place of `OTEL_EXPORTER_OTLP_ENDPOINT`: OTLP
    /// over HTTP, such as `http://127.0.0.1:4318`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// A header of each export, beside those of `OTEL_EXPORTER_OTLP_HEADERS`: many backends want a key.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Exports spans with `exporter` in place of OTLP. The queue is that of this crate; sending a batch
    /// again is up to the exporter. If `start` is called within a Tokio runtime, the exporter can use it.
    pub fn exporter(mut self, exporter: impl SpanExporter + 'static) -> Self {
        self.spans =
            Spans::Exporter(Box::new(|resource| Box::new(OfExporter::new(exporter, resource))));
        self
    }

    /// Hands spans to the processors of a tracer provider of the application, which `start` builds from
    /// `provider`: with a sampler, ids and resource of its own. Get it back for other spans with
    /// [`Telemetry::tracer_provider`]. Spans that are handed to it count as exported.
    pub fn tracer_provider(mut self, provider: TracerProviderBuilder) -> Self {
        self.spans = Spans::Provider(Box::new(provider));
        self
    }

    /// The sampler, in place of `OTEL_TRACES_SAMPLER`. It is asked once for each flow, and once for each
    /// span that the application makes.
    pub fn sampler(mut self, sampler: impl ShouldSample + 'static) -> Self {
        self.sampler = Some(Box::new(sampler));
        self
    }

    /// The propagator, in place of `OTEL_PROPAGATORS`. It becomes OpenTelemetry's global one, and writes
    /// contexts into promises. Without `traceparent`, no worker in another language joins.
    pub fn propagator(
        mut self,
        propagator: impl TextMapPropagator + Send + Sync + 'static,
    ) -> Self {
        self.propagator = Some(Box::new(propagator));
        self
    }

    /// Starts. What was not said is as the `OTEL_*` variables say: see [`Telemetry::start`].
    ///
    /// # Errors
    /// What makes it impossible to export as asked; then nothing is started.
    pub fn start(mut self) -> Result<Telemetry, ConfigurationError> {
        let settings = variables::settings(&|name| self.variable(name))?;
        let Settings { propagator, mut stores_baggage, sampler, limits, mut export, mut metrics } =
            settings;
        let own = self.propagator.take();
        if let Some(own) = &own {
            stores_baggage = own.fields().any(|field| field == context::BAGGAGE);
        }
        let sampler = self.sampler.take().unwrap_or(sampler);
        let destinations = export.iter_mut().map(|export| &mut export.to);
        for to in destinations.chain(metrics.iter_mut().map(|export| &mut export.to)) {
            to.headers.extend(self.headers.iter().cloned());
        }
        let identity = self.identity;
        let mut telemetry = match (export, self.spans) {
            (None, _) => Telemetry::off(identity),
            (Some(_), Spans::Provider(provider)) => {
                let own = OwnProvider::new(*provider, sampler.clone(), identity.resource());
                Telemetry::with_own_provider(identity, own, sampler)
            }
            (Some(export), Spans::Exporter(sender)) => {
                Telemetry::exporting(identity, &export, sampler, limits, Some(sender))?
            }
            (Some(export), Spans::Otlp) => {
                Telemetry::exporting(identity, &export, sampler, limits, None)?
            }
        };
        telemetry.stores_baggage = stores_baggage;
        if let Some(settings) = metrics {
            let Identity { instance, .. } = telemetry.identity();
            let resource = telemetry.identity().resource();
            let export = MetricExport::start(&settings, resource, instance)?;
            telemetry.measure(export);
        }
        // Nothing can fail any more.
        match own {
            Some(own) => {
                global::set_text_map_propagator(TextMapCompositePropagator::new(vec![own]));
            }
            None => globals::propagator(propagator),
        }
        telemetry.set_global();
        Ok(telemetry)
    }

    /// A variable, unless the application has said something else.
    fn variable(&self, name: &str) -> Option<String> {
        let own = !matches!(self.spans, Spans::Otlp);
        match name {
            // Nothing is sent there.
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" if own => Some("own".to_owned()),
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" if own => Some("http/protobuf".to_owned()),
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" | "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
                if self.endpoint.is_some() =>
            {
                None
            }
            "OTEL_EXPORTER_OTLP_ENDPOINT" if self.endpoint.is_some() => self.endpoint.clone(),
            _ => variables::set(name),
        }
    }
}
