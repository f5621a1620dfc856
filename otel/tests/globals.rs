//! What the application has set before stays: OpenTelemetry's globals are its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector, TextMapPropagator, text_map_propagator::FieldIter},
    trace::{Span, Tracer},
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use resonate_otel::{Identity, Telemetry, TelemetryBuilder};

#[derive(Debug)]
struct Mine(Vec<String>);

impl TextMapPropagator for Mine {
    fn inject_context(&self, _: &Context, _: &mut dyn Injector) {}

    fn extract_with_context(&self, context: &Context, _: &dyn Extractor) -> Context {
        context.clone()
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.0)
    }
}

fn builder(exporter: InMemorySpanExporter) -> TelemetryBuilder {
    let identity = Identity {
        name: "orders".to_owned(),
        instance: "orders-1".to_owned(),
        namespace: String::new(),
        version: "0".to_owned(),
    };
    Telemetry::builder(identity).exporter(exporter)
}

fn start(exporter: InMemorySpanExporter) -> Telemetry {
    builder(exporter).start().unwrap()
}

fn fields() -> Vec<String> {
    global::get_text_map_propagator(|it| it.fields().map(str::to_owned).collect())
}

/// One test: the globals are those of its process.
#[test]
fn globals_are_set_unless_the_application_has_its_own() {
    // Metrics cannot be exported there, which is known last.
    #[cfg(feature = "metrics")]
    {
        let nowhere = builder(InMemorySpanExporter::default()).endpoint("not an address");
        nowhere.start().unwrap_err();
        assert_eq!(fields(), [""; 0], "a failed start sets nothing");
        let span = global::tracer("user code").start("through no provider");
        assert!(!span.span_context().is_valid(), "a failed start sets nothing");
    }

    let first = InMemorySpanExporter::default();
    let telemetry = start(first.clone());
    assert!(fields().contains(&"traceparent".to_owned()));
    global::tracer("user code").start("through the global provider");
    let _ = telemetry.tracer_provider().unwrap().force_flush();
    assert_eq!(first.get_finished_spans().unwrap().len(), 1);

    let own = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(own.clone()).build();
    global::set_tracer_provider(provider);
    global::set_text_map_propagator(Mine(vec!["x-mine".to_owned()]));
    let second = InMemorySpanExporter::default();
    let telemetry = start(second.clone());
    assert_eq!(fields(), ["x-mine"]);
    assert!(
        own.get_finished_spans().unwrap().is_empty(),
        "the look at the provider leaves no span"
    );
    global::tracer("user code").start("through the application's own");
    let _ = telemetry.tracer_provider().unwrap().force_flush();
    assert_eq!(own.get_finished_spans().unwrap().len(), 1);
    assert!(second.get_finished_spans().unwrap().is_empty());
}
