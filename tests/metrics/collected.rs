//! What a collector receives.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{Collector, Line, Mode, Point, Server, Stopped, System, free_port, process, until};

use crate::documented;

testkit::on_each_server!(
    every_metric_is_as_documented,
    metrics_come_without_spans_and_the_last_values_at_the_end,
    a_collector_that_takes_no_metrics_is_reported_once,
);

/// Begins the ids of all flows here, and is in no attribute.
const ID: &str = "measured";

/// The sum of the values of a metric whose attributes include these.
fn sum(points: &[Point], name: &str, attributes: &[(&str, &str)]) -> f64 {
    let is_it = |point: &&Point| {
        point.name == name && attributes.iter().all(|(name, value)| point.get(name) == *value)
    };
    // Not minus zero, which the sum of nothing is.
    0.0 + points.iter().filter(is_it).map(|point| point.value).sum::<f64>()
}

async fn every_metric_is_as_documented(server: Server) -> Stopped {
    let collector = Collector::start(free_port(), Mode::Accept);
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ("NODE_LEASE", "2s"),
    ];
    let system = System::start(server, &settings).await;
    let http = system.http();
    let fan_out = http.post(&format!("/fan-out-workflow?id={ID}-fan&fail=2")).await;
    assert_eq!(fan_out.status, 200, "{}", fan_out.text);
    let call = json!({"data": wire::call::encode("nobody", &())});
    system.resonate().create(&format!("{ID}-poison"), "poll://any@service-c", call).await;
    http.get("/nowhere").await.expect_problem(404);
    let sleep = format!("/await-chain?id={ID}-hang-up&sleep=1s");
    let hang_up = tokio::time::timeout(Duration::from_millis(300), http.post(&sleep)).await;
    assert!(hang_up.is_err(), "{hang_up:?}");
    // Its caller, which may be the holder, waits in place for a moment.
    until(&system.log, "the end of the flow that nobody waits for", async || {
        system.resonate().settled(&format!("{ID}-hang-up")).await.then_some(())
    })
    .await;
    // The holder is frozen for longer than its lease, and finds itself fenced when it is woken.
    let frozen = async {
        let begun = |line: &Line| line.in_run("step started", &format!("{ID}-0.0"));
        system.log.line("the first step", begun).await;
        let pid = system.pid("service-b");
        process::signal(pid, "STOP");
        let takeover = |points: &[Point]| sum(points, "resonate.run.takeovers", &[]) == 1.0;
        collector.measured(&system.log, "a takeover", takeover).await;
        process::signal(pid, "CONT");
        let fenced = |points: &[Point]| sum(points, "resonate.run.fenced", &[]) == 1.0;
        collector.measured(&system.log, "a fenced run", fenced).await;
    };
    let chain = format!("/await-chain?id={ID}-0&work=3s");
    let (answer, ()) = tokio::join!(http.post(&chain), frozen);
    answer.expect_message(3);

    let documented = documented::all();
    let missing = |points: &[Point]| -> Vec<String> {
        let is_there = |name: &str, attribute: &str| {
            let of = points.iter().filter(|point| point.name == name);
            of.clone().any(|point| attribute.is_empty() || point.attributes.contains_key(attribute))
        };
        let all = documented.iter().flat_map(|metric| {
            let attributes = metric.attributes.iter().copied().chain([""]);
            attributes.map(|attribute| (metric.name, attribute))
        });
        let missing = all.filter(|(name, attribute)| !is_there(name, attribute));
        missing.map(|(name, attribute)| format!("{name} {attribute}")).collect()
    };
    let poison = [("resonate.group", "service-c"), ("error.type", "unknown_function")];
    let resolved = ("resonate.promise.state", "resolved");
    let flows = [resolved, ("resonate.root", "true")];
    let bar = ("resonate.function", "bar");
    let ok = [("http.route", "/await-chain"), ("http.response.status_code", "200")];
    let done = |points: &[Point]| {
        missing(points).is_empty()
            && sum(points, "resonate.poison.rejected", &poison) == 1.0
            && sum(points, "resonate.invocation.duration", &flows) == 3.0
            // Each process exports when its interval is over.
            && sum(points, "resonate.invocation.duration", &[bar, resolved]) == 2.0
            && sum(points, "http.server.request.duration", &ok) == 1.0
            && sum(points, "resonate.run.active", &[]) == 0.0
    };
    collector.measured(&system.log, "all metrics", done).await;
    let points = collector.points();
    for point in &points {
        let Some(metric) = documented.iter().find(|metric| metric.name == point.name) else {
            panic!("not in docs/metrics.md: {point:#?}");
        };
        assert_eq!((metric.kind, metric.unit), (point.kind, &*point.unit), "{}", point.name);
        assert_eq!(point.scope, "resonate-otel");
        assert!(point.description.ends_with('.'), "{point:#?}");
        for (name, value) in &point.attributes {
            assert!(metric.attributes.contains(&**name), "{name} is not documented: {point:#?}");
            assert!(!value.contains(ID), "an id: {point:#?}");
        }
    }
    let sum = |name, attributes: &[_]| sum(&points, name, attributes);
    assert_eq!(sum("resonate.run.takeovers", &[bar]), 1.0);
    let lost = [bar, ("resonate.lease.instance", "service-b")];
    assert_eq!(sum("resonate.lease.lost", &lost), 1.0);
    assert_eq!(sum("resonate.run.fenced", &[bar]), 1.0);
    assert_eq!(sum("resonate.step.retries", &[("resonate.function", "dop")]), 2.0);
    assert_eq!(sum("resonate.step.duration", &[bar]), 3.0);
    assert_eq!(sum("resonate.queue.duration", &[bar]), 2.0);
    assert_eq!(sum("resonate.message_stream.up", &[]), 19.0, "the gateway and 18 services");
    let hang_up = [("http.route", "/await-chain"), ("error.type", "client_disconnected")];
    assert_eq!(sum("http.server.request.duration", &hang_up), 1.0);
    let of_bar = |point: &&Point| {
        point.name == "resonate.invocation.duration" && point.get("resonate.function") == "bar"
    };
    // Three steps of a second, and a sleep of one.
    let bar: f64 = points.iter().filter(of_bar).map(|point| point.sum).sum();
    assert!((4.0..60.0).contains(&bar), "{bar}");
    let stopped = system.stop().await;
    let lost = [("error.type", "rejected"), ("error.type", "shutdown")];
    let points = collector.points();
    assert_eq!(
        lost.map(|it| self::sum(&points, "otel.sdk.exporter.span.exported", &[it])),
        [0.0; 2]
    );
    assert_eq!(self::sum(&points, "resonate.run.active", &[]), 0.0);
    stopped
}

async fn metrics_come_without_spans_and_the_last_values_at_the_end(server: Server) -> Stopped {
    let collector = Collector::start(free_port(), Mode::Accept);
    // Never before the end.
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ];
    let system = System::start(server, &settings).await;
    system.http().post(&format!("/await-chain?id={ID}")).await.expect_message(3);
    assert_eq!(collector.metric_requests(), 0);
    let stopped = system.stop().await;
    let points = collector.points();
    for (metric, instance, value) in [
        ("resonate.invocation.duration", "service-a", 1.0),
        ("resonate.invocation.duration", "service-b", 1.0),
        ("resonate.invocation.duration", "service-c", 1.0),
        ("http.server.request.duration", "gateway", 1.0),
        ("resonate.message_stream.up", "service-d", 0.0),
    ] {
        let of = |point: &&Point| point.name == metric && point.instance().starts_with(instance);
        let values: f64 = points.iter().filter(of).map(|point| point.value).sum();
        assert_eq!(values, value, "{metric} of {instance}: {points:#?}");
    }
    assert_eq!(collector.spans().len(), 0);
    assert!(!points.iter().any(|point| point.name.starts_with("otel.sdk.")));
    stopped
}

async fn a_collector_that_takes_no_metrics_is_reported_once(server: Server) -> Stopped {
    const DOWN: &str = "metric export is failing; flows are not affected; \
        OTEL_METRICS_EXPORTER=none turns metrics off";
    const UP: &str = "metric export recovered";
    let collector = Collector::start(free_port(), Mode::Refuse(404));
    let settings = [
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &*format!("{}/v1/metrics", collector.endpoint())),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
    ];
    let system = System::start(server, &settings).await;
    let said = |message: &str| {
        let is_it = |line: &Line| line.says(message) && line.instance() == "gateway";
        system.log.all(is_it)
    };
    for (turn, mode) in [Mode::Refuse(404), Mode::Absent, Mode::Slow(Duration::from_secs(60))]
        .into_iter()
        .enumerate()
    {
        collector.set(mode).await;
        let what = format!("outage {turn}");
        if !matches!(mode, Mode::Slow(_)) {
            until(&system.log, &what, async || (said(DOWN).len() > turn).then_some(())).await;
            // Several exports fail. There is no number of those that nobody answers.
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(said(DOWN).len(), turn + 1, "{}", system.log);
        }
        let answer = system.http().post(&format!("/await-chain?id={ID}-{turn}")).await;
        answer.expect_message(3);
        if !matches!(mode, Mode::Slow(_)) {
            collector.set(Mode::Accept).await;
            until(&system.log, "the recovery", async || (said(UP).len() > turn).then_some(()))
                .await;
        }
    }
    assert!(said(DOWN)[0].field("error").unwrap().contains("404"), "{:?}", said(DOWN));
    // A collector that hangs does not hold up the end.
    let requests = collector.metric_requests();
    until(&system.log, "an export that hangs", async || {
        (collector.metric_requests() > requests).then_some(())
    })
    .await;
    let start = Instant::now();
    let stopped = system.stop().await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    stopped
}
