use std::time::Duration;

use opentelemetry::{Context, SpanId, TraceId, trace::TraceContextExt};
use opentelemetry_otlp::Compression;
use opentelemetry_sdk::metrics::Temporality;

use super::*;

/// The settings that `variables` make, and the messages about what is ignored.
fn read(variables: &[(&str, &str)]) -> (Result<Settings, String>, Vec<String>) {
    let set = |name: &str| {
        let value = variables.iter().find(|(variable, _)| *variable == name)?.1;
        (!value.is_empty()).then(|| value.to_owned())
    };
    let mut reader = Variables::new(&set);
    let settings = reader.settings().map_err(|error| error.to_string());
    (settings, reader.ignored.iter().map(ToString::to_string).collect())
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/");

fn fields(settings: &Settings) -> Vec<&str> {
    let mut fields: Vec<_> = settings.propagator.fields().collect();
    fields.sort_unstable();
    fields
}

#[test]
fn unknown_names_are_ignored_with_a_message() {
    let (settings, ignored) = read(&[
        ENDPOINT,
        ("OTEL_PROPAGATORS", "tracecontext, b3"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sum"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_SDK_DISABLED", "yes"),
    ]);
    let settings = settings.unwrap();
    assert_eq!(fields(&settings), ["traceparent", "tracestate"]);
    assert!(format!("{:?}", settings.sampler).contains("ParentBased(AlwaysOn)"), "{settings:?}");
    assert_eq!(settings.export.unwrap().to.compression, None);
    let starts = [
        r#"invalid OTEL_PROPAGATORS "b3": expected tracecontext, baggage or none"#,
        r#"invalid OTEL_TRACES_SAMPLER "xray": expected always_on"#,
        r#"invalid OTEL_SDK_DISABLED "yes": expected true or false"#,
        r#"invalid OTEL_TRACES_EXPORTER "jaeger": expected otlp or none"#,
        r#"invalid OTEL_EXPORTER_OTLP_PROTOCOL "smoke": expected http/protobuf"#,
        r#"invalid OTEL_EXPORTER_OTLP_COMPRESSION "zip": expected gzip or none"#,
        r#"invalid OTEL_METRICS_EXPORTER "prometheus": expected otlp or none"#,
        r#"invalid OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE "sum": expected cumulative"#,
    ];
    assert_eq!(ignored.len(), starts.len(), "{ignored:#?}");
    for (message, start) in ignored.iter().zip(starts) {
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn only_unknown_propagators_leave_the_default_and_none_leaves_none() {
    let both = ["baggage", "traceparent", "tracestate"];
    for (value, expected) in [("b3", &both[..]), ("", &both), (",", &both), ("none", &[])] {
        let (settings, _) = read(&[("OTEL_PROPAGATORS", value)]);
        let settings = settings.unwrap();
        assert_eq!(fields(&settings), expected, "{value:?}");
        assert!(!settings.stores_baggage, "nobody asks for it: {value:?}");
    }
    assert!(read(&[("OTEL_PROPAGATORS", "tracecontext,baggage")]).0.unwrap().stores_baggage);
}

#[test]
fn bad_numbers_are_ignored_with_a_message() {
    let numbers = [
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_SPAN_EVENT_COUNT_LIMIT",
        "OTEL_SPAN_LINK_COUNT_LIMIT",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_TRACES_SAMPLER_ARG",
    ];
    let mut variables = vec![ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio")];
    variables.extend(numbers.map(|name| (name, "-1")));
    let (bad, ignored) = read(&variables);
    assert_eq!(ignored.len(), numbers.len(), "{ignored:#?}");
    let (default, none) = read(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio")]);
    assert_eq!(none, [""; 0]);
    let numbers = |settings: Result<Settings, String>| {
        let Settings { sampler, limits, export, metrics, .. } = settings.unwrap();
        format!("{sampler:?} {limits:?} {export:?} {metrics:?}")
    };
    assert_eq!(numbers(bad), numbers(default));
    let (_, ignored) = read(&[ENDPOINT, ("OTEL_BSP_MAX_QUEUE_SIZE", "0")]);
    let expected = r#"invalid OTEL_BSP_MAX_QUEUE_SIZE "0": expected an integer, 1 or more"#;
    assert_eq!(ignored, [expected]);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let names = [
        "OTEL_SDK_DISABLED",
        "OTEL_TRACES_EXPORTER",
        "OTEL_METRICS_EXPORTER",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_PROPAGATORS",
        "OTEL_TRACES_SAMPLER",
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    ];
    let general = [
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x = y"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1234"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    let (with, ignored) = read(&[&general[..], &names.map(|name| (name, ""))].concat());
    assert_eq!(ignored, [""; 0]);
    let Settings { export, metrics, .. } = with.unwrap();
    let (export, metrics) = (export.unwrap(), metrics.unwrap());
    assert_eq!(export.to.endpoint, "http://127.0.0.1:4318/v1/traces");
    assert_eq!((export.queue, export.batch), (2048, 512));
    assert_eq!(export.delay, Duration::from_millis(500));
    assert_eq!(metrics.to.endpoint, "http://127.0.0.1:4318/v1/metrics");
    assert_eq!(metrics.interval, Duration::from_secs(60));
    assert_eq!(metrics.temporality, Temporality::Cumulative);
    for to in [export.to, metrics.to] {
        assert_eq!(to.timeout, Duration::from_millis(1234));
        assert_eq!(to.compression, Some(Compression::Gzip));
        assert_eq!((&*to.headers["api-key"], &*to.headers["x"]), ("a b", "y"));
    }
}

#[test]
fn tracing_can_be_turned_off_in_three_ways() {
    assert!(read(&[ENDPOINT]).0.unwrap().export.is_some());
    assert!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp")]).0.unwrap().export.is_some());
    let off = [
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_SDK_DISABLED", "True"),
    ];
    for variable in off {
        // What is refused with tracing on is no error without.
        let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let metrics = ("OTEL_METRICS_EXPORTER", "none");
        let (settings, ignored) = read(&[ENDPOINT, variable, metrics, protocol]);
        assert!(settings.unwrap().export.is_none(), "{variable:?}");
        assert_eq!(ignored, [""; 0]);
    }
    assert!(read(&[]).0.unwrap().export.is_none());
}

#[test]
fn metrics_have_variables_of_their_own() {
    let of = |variables: &[(&str, &str)]| read(variables).0.unwrap();
    let endpoint = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://prometheus:9090/otlp");
    let interval = ("OTEL_METRIC_EXPORT_INTERVAL", "500");
    let only_metrics = of(&[endpoint, interval]);
    assert!(only_metrics.export.is_none());
    let metrics = only_metrics.metrics.unwrap();
    assert_eq!(metrics.to.endpoint, "http://prometheus:9090/otlp", "a complete URL");
    assert_eq!(metrics.interval, Duration::from_millis(500));

    let only_traces = of(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://jaeger:4318/v1/traces")]);
    assert!(only_traces.export.is_some() && only_traces.metrics.is_none());
    let without = of(&[ENDPOINT, ("OTEL_METRICS_EXPORTER", "none")]);
    assert!(without.export.is_some() && without.metrics.is_none());
    let without = of(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]);
    assert!(without.export.is_none() && without.metrics.is_some());
    assert!(of(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]).metrics.is_none());

    let protocol = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc");
    let error = read(&[ENDPOINT, protocol]).0.unwrap_err();
    assert!(error.contains("4318"), "{error}");
}

#[test]
fn what_is_not_supported_is_refused_with_what_to_use() {
    let refused = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd", "gzip"),
    ];
    for (variable, value, expected) in refused {
        let error = read(&[ENDPOINT, (variable, value)]).0.unwrap_err();
        let start = format!("invalid {variable} {value:?}: it is not supported");
        assert!(error.starts_with(&start) && error.contains(expected), "{error}");
        assert!(!error.contains('\n'));
    }
}

#[test]
fn samplers_and_their_ratio_are_those_of_the_specification() {
    let sampled = |sampler: &str, ratio: &str, parent: &Context| {
        let (settings, ignored) =
            read(&[("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", ratio)]);
        assert_eq!(ignored, [""; 0]);
        let kind = opentelemetry::trace::SpanKind::Internal;
        let trace = TraceId::from(u128::MAX);
        let sampler = settings.unwrap().sampler;
        let result = sampler.should_sample(Some(parent), trace, "", &kind, &[], &[]);
        result.decision == opentelemetry_sdk::trace::SamplingDecision::RecordAndSample
    };
    let root = Context::new();
    let of = opentelemetry::trace::SpanContext::new(
        TraceId::from(1),
        SpanId::from(1),
        opentelemetry::TraceFlags::SAMPLED,
        true,
        opentelemetry::trace::TraceState::NONE,
    );
    let child = root.with_remote_span_context(of);
    for (sampler, ratio, of_root, of_child) in [
        ("", "", true, true),
        ("always_on", "", true, true),
        ("always_off", "", false, false),
        ("traceidratio", "0.5", false, false),
        ("traceidratio", "", true, true),
        ("parentbased_always_on", "", true, true),
        ("parentbased_always_off", "", false, true),
        ("parentbased_traceidratio", "0.5", false, true),
    ] {
        let found = (sampled(sampler, ratio, &root), sampled(sampler, ratio, &child));
        assert_eq!(found, (of_root, of_child), "{sampler} {ratio}");
    }
}
