//! Metrics: they count what the spans show, also of flows that are not sampled and without spans.

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    Resource,
    metrics::{
        InMemoryMetricExporter,
        data::{AggregatedMetrics, Metric, MetricData},
    },
};

use super::*;
use crate::{
    Metrics,
    metrics::{Attempt, Export},
};

pub(super) struct Measured {
    pub rig: Rig,
    metrics: Metrics,
    export: Export,
    exporter: InMemoryMetricExporter,
}

/// What is exported beside metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Spans {
    All,
    NotSampled,
    None,
}

impl Measured {
    pub fn new(spans: Spans, script: impl FnMut(&str, &Value) -> Reply + Send + 'static) -> Self {
        let mut telemetry = match spans {
            Spans::None => Telemetry::off(identity()),
            _ => Telemetry::with_exporter(identity(), InMemorySpanExporter::default()),
        };
        let exporter = InMemoryMetricExporter::default();
        let never = Duration::from_secs(86_400);
        let export = Export::new(exporter.clone(), never, Resource::builder_empty().build());
        telemetry.measure(export.clone());
        let metrics = telemetry.metrics();
        let rig = Rig::on(telemetry, InMemorySpanExporter::default(), script, |server| server);
        Self { rig, metrics, export, exporter }
    }

    /// All values but those of span export, as `name{attributes} value`. Of a histogram it is the
    /// count.
    fn values(&self) -> Vec<String> {
        let values = self.read(points).into_iter();
        values.filter(|value| !value.starts_with("otel.sdk.")).collect()
    }

    /// The same of one metric, without its name.
    fn of(&self, name: &str) -> Vec<String> {
        let start = format!("{name}{{");
        let values = self.read(points).into_iter().filter(|value| value.starts_with(&start));
        values.map(|value| value[name.len()..].to_owned()).collect()
    }

    fn read(&self, read: impl Fn(&Metric) -> Vec<String>) -> Vec<String> {
        self.exporter.reset();
        self.export.provider().force_flush().unwrap();
        let exported = self.exporter.get_finished_metrics().unwrap().pop();
        let exported = exported.expect("something was measured");
        let metrics = exported.scope_metrics().flat_map(|scope| scope.metrics());
        let mut all: Vec<_> = metrics.flat_map(read).collect();
        all.sort();
        all
    }
}

fn points(metric: &Metric) -> Vec<String> {
    let name = metric.name();
    let point = |attributes: Vec<&KeyValue>, value: String| {
        let short = |pair: &&KeyValue| {
            let name = pair.key.as_str();
            format!("{}={}", name.strip_prefix("resonate.").unwrap_or(name), pair.value)
        };
        let mut attributes: Vec<_> = attributes.iter().map(short).collect();
        attributes.sort();
        format!("{name}{{{}}} {value}", attributes.join(","))
    };
    match metric.data() {
        AggregatedMetrics::F64(MetricData::Histogram(histogram)) => histogram
            .data_points()
            .map(|it| point(it.attributes().collect(), it.count().to_string()))
            .collect(),
        AggregatedMetrics::U64(MetricData::Sum(sum)) => sum
            .data_points()
            .map(|it| point(it.attributes().collect(), it.value().to_string()))
            .collect(),
        AggregatedMetrics::I64(MetricData::Sum(sum)) => sum
            .data_points()
            .map(|it| point(it.attributes().collect(), it.value().to_string()))
            .collect(),
        AggregatedMetrics::U64(MetricData::Gauge(gauge)) => gauge
            .data_points()
            .map(|it| point(it.attributes().collect(), it.value().to_string()))
            .collect(),
        other => panic!("{name}: {other:?}"),
    }
}

/// The sums of histograms, as `name sum`.
fn sums(metric: &Metric) -> Vec<String> {
    match metric.data() {
        AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
            histogram.data_points().map(|it| format!("{} {}", metric.name(), it.sum())).collect()
        }
        _ => Vec::new(),
    }
}

/// A server that shows `preload` to the run `version`. Each step takes a second, and the invocation,
/// whose run settles it, four.
fn server(
    version: i64,
    preload: Value,
    sampled: bool,
) -> impl FnMut(&str, &Value) -> Reply + Send + 'static {
    move |kind, data| {
        let reply = match (kind, data["action"]["kind"].as_str()) {
            ("task.acquire", _) => acquired(version, preload.clone()),
            ("task.fence", Some("promise.create")) => echo(data, "pending"),
            ("task.fence", _) => {
                let state = data["action"]["data"]["state"].as_str().unwrap().to_owned();
                let mut promise = step("f.0.0", &state, "me", version);
                promise["settledAt"] = 3_000.into();
                let action = json!({"kind": "x", "head": {}, "data": {"promise": promise}});
                Reply::Answer(200, json!({"action": action, "preload": []}))
            }
            ("task.fulfill", _) => {
                let value = data["action"]["data"]["value"].clone();
                Reply::Answer(200, json!({"promise": invocation("resolved", value)}))
            }
            _ => Reply::Answer(200, json!({})),
        };
        if sampled { reply } else { unsampled(reply) }
    }
}

/// The same answer, about a flow that is not sampled.
fn unsampled(reply: Reply) -> Reply {
    match reply {
        Reply::Answer(status, data) => {
            let data = data.to_string().replace(CONTEXT, &CONTEXT.replace("-01", "-00"));
            Reply::Answer(status, serde_json::from_str(&data).unwrap())
        }
        other => other,
    }
}

const ALL: [Spans; 3] = [Spans::All, Spans::NotSampled, Spans::None];

#[tokio::test(start_paused = true)]
async fn a_run_with_a_step_is_measured_whatever_becomes_of_its_spans() {
    for spans in ALL {
        let measured = Measured::new(spans, server(1, json!([]), spans == Spans::All));
        let rig = &measured.rig;
        rig.acquire(1).await;
        assert_eq!(measured.of("resonate.run.active"), ["{function=bar,group=g} 1"], "{spans:?}");
        let tags = json!({"resonate:scope": "local"});
        let create = json!({"id": "f.0.0", "timeoutAt": 9_000, "param": {}, "tags": tags});
        rig.fence(1, "promise.create", create).await.unwrap();
        rig.traced.step_retried("f.0.0");
        let settle = json!({"id": "f.0.0", "state": "resolved", "value": {}});
        rig.fence(1, "promise.settle", settle).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        rig.fulfill(1).await.unwrap();
        let expected = [
            "resonate.invocation.duration{function=bar,group=g,promise.state=resolved,root=false} 1",
            "resonate.queue.duration{function=bar,group=g} 1",
            "resonate.run.active{function=bar,group=g} 0",
            "resonate.run.duration{function=bar,group=g,run.outcome=fulfilled} 1",
            "resonate.step.duration{function=bar,group=g,promise.state=resolved} 1",
            "resonate.step.retries{function=bar,group=g} 1",
        ];
        assert_eq!(measured.values(), expected, "{spans:?}");
        let sums = measured.read(sums);
        for sum in ["invocation.duration 4", "run.duration 2", "step.duration 1"] {
            assert!(sums.contains(&format!("resonate.{sum}")), "{sum}: {sums:?}");
        }
    }
}

#[tokio::test]
async fn a_takeover_and_the_lease_that_was_lost_are_counted() {
    for spans in ALL {
        let preload = json!([step("f.0.0", "pending", "other", 1)]);
        let measured = Measured::new(spans, server(2, preload, spans == Spans::All));
        measured.rig.acquire(2).await;
        measured.rig.release(2).await.unwrap();
        let expected = [
            "resonate.lease.lost{function=bar,group=g,lease.instance=other} 1",
            "resonate.run.active{function=bar,group=g} 0",
            "resonate.run.duration{function=bar,group=g,run.outcome=released} 1",
            "resonate.run.takeovers{function=bar,group=g} 1",
        ];
        assert_eq!(measured.values(), expected, "{spans:?}");
    }
}

/// The mark tells the next run that no lease expired.
#[tokio::test]
async fn a_run_that_is_released_in_a_step_leaves_a_mark_for_metrics_too() {
    for spans in ALL {
        let preload = json!([step("f.0.0", "pending", "other", 1)]);
        let measured = Measured::new(spans, server(2, preload, spans == Spans::All));
        measured.rig.acquire(2).await;
        measured.rig.release(2).await.unwrap();
        let seen = measured.rig.server.seen();
        let is_mark =
            |(_, data): &&(String, Value)| data["action"]["data"]["id"] == "f.0.released-2";
        assert!(seen.iter().any(|request| is_mark(&request)), "{spans:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_fenced_run_is_counted() {
    let measured = Measured::new(Spans::None, |kind, _| match kind {
        "task.acquire" => acquired(2, json!([])),
        "promise.get" => Reply::Answer(200, json!({"promise": invocation("pending", json!({}))})),
        _ => Reply::Answer(409, json!("stale")),
    });
    measured.rig.acquire(2).await;
    measured.rig.suspend(2).await.unwrap();
    let expected = [
        "resonate.run.active{function=bar,group=g} 0",
        "resonate.run.duration{function=bar,group=g,run.outcome=fenced} 1",
        "resonate.run.fenced{function=bar,group=g} 1",
    ];
    assert_eq!(measured.values(), expected);
}

/// The answers to the settlement of a step and to a fulfil are lost; both took effect.
#[tokio::test(start_paused = true)]
async fn what_lost_answers_hide_is_measured_once_it_is_known() {
    let (settled, mut settler, mut lost) =
        (std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64, None, 4);
    let measured = Measured::new(Spans::NotSampled, move |kind, data| {
        unsampled(match (kind, data["action"]["kind"].as_str()) {
            ("task.acquire", _) => acquired(1, json!([])),
            ("task.fence", Some("promise.create")) => echo(data, "pending"),
            ("promise.get", _) if data["id"] == "f.0.0" => {
                let mut promise = step("f.0.0", "resolved", "me", 1);
                promise["settledAt"] = settled.into();
                promise["createdAt"] = (settled - 1_000).into();
                promise["value"] = json!({"headers": {key::HEADER_SETTLER: "me 1"}});
                Reply::Answer(200, json!({"promise": promise}))
            }
            ("promise.get", _) if lost > 0 => {
                lost -= 1;
                Reply::Lost
            }
            ("promise.get", _) => {
                let value = settler.clone().expect("a fulfil before");
                Reply::Answer(200, json!({"promise": invocation("resolved", value)}))
            }
            ("task.fulfill", _) => {
                settler = Some(data["action"]["data"]["value"].clone());
                Reply::Lost
            }
            _ => Reply::Lost,
        })
    });
    measured.rig.acquire(1).await;
    let tags = json!({"resonate:scope": "local"});
    let create = json!({"id": "f.0.0", "timeoutAt": 9_000, "param": {}, "tags": tags});
    measured.rig.fence(1, "promise.create", create).await.unwrap();
    let settle = json!({"id": "f.0.0", "state": "resolved", "value": {}});
    assert!(measured.rig.fence(1, "promise.settle", settle).await.is_err());
    assert!(measured.rig.fulfill(1).await.is_err());
    tokio::time::sleep(Duration::from_secs(10)).await;
    for name in ["resonate.invocation.duration", "resonate.run.duration", "resonate.step.duration"]
    {
        let values = measured.of(name);
        assert!(values.len() == 1 && values[0].ends_with(" 1"), "{name}: {values:?}");
    }
    // It ended with the lost answer, not when that was known.
    let sums = measured.read(sums);
    let run = sums.iter().find_map(|sum| sum.strip_prefix("resonate.run.duration ")).unwrap();
    assert!(run.parse::<f64>().unwrap() < 1.0, "{run}");
}

#[tokio::test]
async fn a_time_out_is_counted_once_however_often_it_is_seen() {
    let measured = Measured::new(Spans::None, |_, _| Reply::Lost);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    for id in ["f.0", "f.0", "f", "f.0"] {
        let mut promise = invocation("rejected_timedout", json!({}));
        promise["id"] = id.into();
        promise["settledAt"] = now.into();
        let message = json!({"kind": "unblock", "head": {}, "data": {"promise": promise}});
        measured.rig.traced.observe(&Message::parse(message.to_string()).unwrap());
    }
    let expected = [
        "{function=bar,group=g,promise.state=rejected_timedout,root=false} 1",
        "{function=bar,group=g,promise.state=rejected_timedout,root=true} 1",
    ];
    assert_eq!(measured.of("resonate.invocation.duration"), expected);
}

/// Anybody can create a promise with any name.
#[tokio::test]
async fn names_of_functions_that_a_process_does_not_run_are_one_value() {
    let measured = Measured::new(Spans::None, server(1, json!([]), true));
    measured.metrics.runs_only("g", ["foo"]);
    let zero: Vec<_> = ["run.active", "run.fenced", "run.takeovers", "step.retries"]
        .map(|name| format!("resonate.{name}{{function=foo,group=g}} 0"))
        .into();
    assert_eq!(measured.values(), zero, "a rate needs a value before the first increment");
    measured.rig.acquire(1).await;
    let active = ["{function=_OTHER,group=g} 1", "{function=foo,group=g} 0"];
    assert_eq!(measured.of("resonate.run.active"), active);
}

#[tokio::test]
async fn requests_have_the_attributes_of_the_semantic_conventions() {
    let measured = Measured::new(Spans::None, |_, _| Reply::Lost);
    let requests = measured.metrics.client_requests("http://resonate:8001/base");
    let moment = Duration::from_millis(3);
    requests.ended("task.fence", false, Attempt::Answered(200), moment);
    requests.ended("task.fence", true, Attempt::Answered(409), moment);
    requests.ended("task.get", false, Attempt::TimedOut, moment);
    requests.ended("task.get", false, Attempt::Failed, moment);
    let server = "http.request.method=POST";
    let rest = "server.address=resonate,server.port=8001} 1";
    let answered = "http.response.status_code";
    let kind = |kind: &str, repeated: bool| {
        format!("request.kind={kind},request.repeated={repeated},{rest}")
    };
    let expected = [
        format!("{{error.type=409,{server},{answered}=409,{}", kind("task.fence", true)),
        format!("{{error.type=_OTHER,{server},{}", kind("task.get", false)),
        format!("{{error.type=timeout,{server},{}", kind("task.get", false)),
        format!("{{{server},{answered}=200,{}", kind("task.fence", false)),
    ];
    assert_eq!(measured.of("http.client.request.duration"), expected);

    let metrics = &measured.metrics;
    metrics.server_request("POST", Some("/await-chain"), Some(200), moment);
    metrics.server_request("POST", Some("/await-chain"), Some(504), moment);
    metrics.server_request("POST", Some("/await-chain"), None, moment);
    metrics.server_request("BREW", None, Some(404), moment);
    let expected = [
        "{error.type=504,http.request.method=POST,http.response.status_code=504,http.route=/await-chain,url.scheme=http} 1",
        "{error.type=client_disconnected,http.request.method=POST,http.route=/await-chain,url.scheme=http} 1",
        "{http.request.method=POST,http.response.status_code=200,http.route=/await-chain,url.scheme=http} 1",
        "{http.request.method=_OTHER,http.response.status_code=404,url.scheme=http} 1",
    ];
    assert_eq!(measured.of("http.server.request.duration"), expected);
}

#[tokio::test]
async fn the_rest_is_there() {
    let measured = Measured::new(Spans::All, server(1, json!([]), true));
    let up = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_up = up.clone();
    measured.metrics.message_stream(move || is_up.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(measured.of("resonate.message_stream.up"), ["{} 0"]);
    up.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(measured.of("resonate.message_stream.up"), ["{} 1"]);

    measured.metrics.poison_rejected("g", "unknown_function");
    let expected = ["{error.type=unknown_function,group=g} 1"];
    assert_eq!(measured.of("resonate.poison.rejected"), expected);

    measured.rig.acquire(1).await;
    measured.rig.fulfill(1).await.unwrap();
    let of = |component: &str, error: &str, count: u64| {
        let named = format!("otel.component.name={component}/0,otel.component.type={component}");
        format!("{{{error}{named}}} {count}")
    };
    let exporter = "otlp_http_span_exporter";
    let expected = [
        of(exporter, "error.type=rejected,", 0),
        of(exporter, "error.type=shutdown,", 0),
        of(exporter, "", 2),
    ];
    assert_eq!(measured.of("otel.sdk.exporter.span.exported"), expected);
    let processor = "batching_span_processor";
    let expected = [of(processor, "error.type=queue_full,", 0), of(processor, "", 2)];
    assert_eq!(measured.of("otel.sdk.processor.span.processed"), expected);
}

/// A client can make any number of values, for example as names of functions.
#[tokio::test]
async fn the_number_of_values_is_bounded() {
    let measured = Measured::new(Spans::None, |_, _| Reply::Lost);
    for n in 0..2_000 {
        let route = format!("/{n}");
        measured.metrics.server_request("GET", Some(&route), Some(200), Duration::ZERO);
    }
    let values = measured.of("http.server.request.duration");
    assert!((400..=502).contains(&values.len()), "{}", values.len());
    let overflow = values.iter().find(|value| value.contains("otel.metric.overflow=true"));
    assert!(overflow.is_some());
}
