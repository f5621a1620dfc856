//! An application that brings its own exporter or tracer provider gets the same whole trace.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};
use resonate_otel::{Identity, Telemetry, TracedFunction, TracedNetwork, TracedStep};
use resonate_sdk::prelude::*;
use tracing_subscriber::{Registry, filter::Targets, layer::SubscriberExt};

/// How long a test waits for its spans.
const LONGEST: Duration = Duration::from_secs(20);

fn identity() -> Identity {
    Identity {
        name: "orders".to_owned(),
        instance: "orders-1".to_owned(),
        namespace: String::new(),
        version: "0".to_owned(),
    }
}

#[resonate_sdk::function]
async fn charge(cents: i64) -> Result<i64> {
    tracing::info_span!("POST /charges", otel.kind = "client").in_scope(|| ());
    match cents {
        0 => Err(Error::Application { message: "nothing to charge".to_owned() }),
        cents => Ok(cents),
    }
}

#[resonate_sdk::function]
async fn order(ctx: &Context, cents: i64) -> Result<i64> {
    ctx.run(TracedStep::new("charge the card", charge), cents).await
}

/// A flow of one process on an embedded server.
async fn flow(telemetry: &Telemetry, cents: i64) -> Result<i64> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(embedded_server::run(listener, Default::default(), std::future::pending()));
    let network = HttpNetwork::new(url, None, Some("orders".to_owned()), None);
    let traced = Arc::new(TracedNetwork::new(Arc::new(network), telemetry));
    let config = ResonateConfig { network: Some(traced.clone()), ..Default::default() };
    let resonate = Resonate::new(config).with_dependency(traced.traced().clone());
    resonate.register(TracedFunction::new(order)).unwrap();
    let result = resonate.rpc("flow", "order", cents).await;
    resonate.stop().await.unwrap();
    result
}

/// Runs the flow with `telemetry`, waits for `expected` spans, and ends it.
async fn trace(
    telemetry: Telemetry,
    exporter: &InMemorySpanExporter,
    cents: i64,
    expected: usize,
) -> Vec<SpanData> {
    let begin = Instant::now();
    let layer = telemetry.layer(Targets::new().with_default(tracing::Level::INFO), false);
    let _default = tracing::subscriber::set_default(Registry::default().with(layer));
    assert_eq!(flow(&telemetry, cents).await.is_ok(), cents > 0);
    // The result may be there before the answer to the fulfil, which ends the run.
    let spans = loop {
        let provider = telemetry.tracer_provider().unwrap().clone();
        tokio::task::spawn_blocking(move || provider.force_flush()).await.unwrap().unwrap();
        let spans = exporter.get_finished_spans().unwrap();
        if spans.len() >= expected || begin.elapsed() > LONGEST {
            break spans;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    tokio::task::spawn_blocking(move || telemetry.shutdown()).await.unwrap();
    spans
}

/// Each span below its parent, and the kinds of all of them.
fn tree(spans: &[SpanData]) -> Vec<String> {
    let names: HashMap<_, _> =
        spans.iter().map(|span| (span.span_context.span_id(), span.name.clone())).collect();
    let parent = |span: &SpanData| match names.get(&span.parent_span_id) {
        Some(parent) => parent.to_string(),
        None => span.parent_span_id.to_string(),
    };
    let mut tree: Vec<_> =
        spans.iter().map(|span| format!("{} < {}", span.name, parent(span))).collect();
    tree.sort();
    for span in spans {
        assert_eq!(span.span_context.trace_id(), spans[0].span_context.trace_id());
        let scope = &span.instrumentation_scope;
        assert_eq!(
            (scope.name(), scope.version()),
            ("resonate-otel", Some(env!("CARGO_PKG_VERSION")))
        );
        assert!(scope.schema_url().is_some());
    }
    tree
}

const TREE: [&str; 5] = [
    "POST /charges < charge the card",
    "charge the card < rpc order",
    "order < rpc order",
    "order on orders-1 < rpc order",
    "rpc order < 0000000000000000",
];

#[tokio::test]
async fn spans_go_to_an_exporter_of_the_application() {
    let exporter = InMemorySpanExporter::default();
    let telemetry = Telemetry::builder(identity()).exporter(exporter.clone()).start().unwrap();
    let counts = telemetry.counts().unwrap();
    let spans = trace(telemetry, &exporter, 5, TREE.len()).await;
    assert_eq!(tree(&spans), TREE);
    assert_eq!((counts.made(), counts.exported(), counts.lost()), (5, 5, 0));
    let kind = |name: &str| &spans.iter().find(|span| span.name == name).unwrap().span_kind;
    assert_eq!(kind("order on orders-1"), &SpanKind::Consumer);
    assert_eq!(kind("POST /charges"), &SpanKind::Client);
}

#[tokio::test]
async fn spans_go_through_a_tracer_provider_of_the_application() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    let telemetry = Telemetry::builder(identity()).tracer_provider(provider).start().unwrap();
    let counts = telemetry.counts().unwrap();
    assert!(telemetry.tracer_provider().is_some());
    let spans = trace(telemetry, &exporter, 0, TREE.len()).await;
    assert_eq!(tree(&spans), TREE);
    assert_eq!(counts.made(), 4, "the application made the fifth itself");
    // The step reports the error that its function returned.
    let step = spans.iter().find(|span| span.name == "charge the card").unwrap();
    assert_eq!(step.events.len(), 1);
    let text = format!("{:?} {:?}", step.events[0].attributes, step.status);
    assert!(text.contains("resonate_sdk::Error::Application"), "{text}");
    assert!(text.contains("description: \"nothing to charge\""), "{text}");
}

#[tokio::test]
async fn a_sampler_of_the_application_decides_once_for_a_flow() {
    let exporter = InMemorySpanExporter::default();
    let telemetry = Telemetry::builder(identity())
        .exporter(exporter.clone())
        .sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
        .start()
        .unwrap();
    assert!(trace(telemetry, &exporter, 5, 0).await.is_empty());
}

#[test]
fn an_endpoint_that_is_none_is_refused_with_what_is_expected() {
    let refused = Telemetry::builder(identity()).endpoint("nowhere at all").start().unwrap_err();
    let text = refused.to_string();
    let start = r#"invalid OTEL_EXPORTER_OTLP_ENDPOINT "nowhere at all": expected an OTLP/HTTP"#;
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn without_an_endpoint_nothing_is_made() {
    let telemetry = Telemetry::builder(identity()).start().unwrap();
    assert!(!telemetry.is_on() && telemetry.tracer_provider().is_none());
}
