//! A collector that is absent, slow or refuses spans: flows do not notice, spans wait for the end of
//! the outage, and those that are lost are counted.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::join;
use testkit::{Http, Line, Log, Mode, Server, Span, Stopped, process, until};

use crate::observed::Observed;

testkit::on_each_server!(
    flows_do_not_notice_that_the_collector_is_out_of_reach,
    what_does_not_fit_in_the_queue_is_counted,
    a_second_signal_exports_what_is_left,
);

/// How many flows are measured, at least.
const FLOWS: usize = 30;

/// The delay of a slow collector.
const LATE: Duration = Duration::from_secs(3);

const DOWN: &str = "span export is failing; flows are not affected";
const BACK: &str = "span export recovered";

/// Runs await chains, long enough for several batches of spans. Returns the median
/// duration of a flow and the number of flows.
async fn flows(http: &Http, name: &str) -> (Duration, usize) {
    let start = Instant::now();
    let mut took = Vec::new();
    while took.len() < FLOWS || start.elapsed() < Duration::from_secs(2) {
        let flow = Instant::now();
        let answer = http.post(&format!("/await-chain?id={name}-{}", took.len())).await;
        answer.expect_message(3);
        took.push(flow.elapsed());
    }
    took.sort();
    (took[took.len() / 2], took.len())
}

/// How often each process has logged `message`.
fn said(log: &Log, message: &str) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for line in log.all(|line| line.says(message)) {
        *times.entry(line.instance().to_owned()).or_default() += 1;
    }
    times
}

/// The spans of an instance that belong to flows whose ids start with `flow`.
fn of<'a>(spans: &'a [Span], instance: &str, flow: &str) -> Vec<&'a Span> {
    let (promise, query) = (format!("{flow}-"), format!("id={flow}-"));
    let matches = |span: &&Span| {
        span.instance() == instance
            && (span.promise().starts_with(&promise) || span.get("url.query").starts_with(&query))
    };
    spans.iter().filter(matches).collect()
}

async fn flows_do_not_notice_that_the_collector_is_out_of_reach(server: Server) -> Stopped {
    let system = Observed::start_in(server, &[], Mode::Accept).await.incomplete();
    let http = system.http();
    let (usual, _) = flows(&http, "usual").await;
    let mut rejected_in_all = 0;
    // A flow never waits for the exporter: neither for an answer nor for a time-out.
    let bound = 4 * usual + Duration::from_millis(300);
    assert!(bound < LATE, "this machine is too slow for this test: {usual:?}");
    for (outage, mode) in [
        ("absent", Mode::Absent),
        ("refusing", Mode::Refuse(500)),
        ("picky", Mode::Refuse(400)),
        ("slow", Mode::Slow(LATE)),
    ] {
        // All spans of earlier flows have been handled.
        let downs = said(&system.log, DOWN);
        let backs = said(&system.log, BACK);
        system.collector.set(mode).await;
        let (took, count) = flows(&http, outage).await;
        eprintln!("{server:?}, collector {outage}: {took:?} for a flow, usually {usual:?}");
        assert!(took < bound, "{took:?} for a flow, collector {outage}; usually {usual:?}");
        // The gateway emits three spans for each flow: the flow itself, its call and the request.
        let sent = 3 * count;
        if let Mode::Slow(_) = mode {
            system.collector.set(Mode::Accept).await;
            let look = |spans: &[Span]| (of(spans, "gateway", outage).len() == sent).then_some(());
            let explain =
                |spans: &[Span]| format!("{} of {sent}", of(spans, "gateway", outage).len());
            system.collector.until(&system.log, "all spans", look, explain).await;
            assert_eq!(said(&system.log, DOWN), downs, "a slow collector is not reported");
            continue;
        }
        let down = |line: &Line| line.says(DOWN) && line.instance() == "gateway";
        let before = downs.get("gateway").copied().unwrap_or_default();
        system.log.lines("the gateway to report the outage", before + 1, down).await;
        // What is rejected for good is not sent again, and everything else is.
        let picky = mode == Mode::Refuse(400);
        if picky {
            let refused = || of(&system.collector.refused(), "gateway", outage).len();
            let look = |_: &[Span]| (refused() == sent).then_some(());
            let explain = |_: &[Span]| format!("{} of {sent} were refused", refused());
            system.collector.until(&system.log, "all spans to be refused", look, explain).await;
            rejected_in_all += sent;
        }
        system.collector.set(Mode::Accept).await;
        let again = format!("after-{outage}");
        let (_, count) = flows(&http, &again).await;
        let expected = (if picky { 0 } else { sent }, 3 * count);
        let arrived = |spans: &[Span]| {
            (of(spans, "gateway", outage).len(), of(spans, "gateway", &again).len())
        };
        let look = |spans: &[Span]| (arrived(spans) == expected).then_some(());
        let explain = |spans: &[Span]| format!("{:?} of {expected:?}", arrived(spans));
        system.collector.until(&system.log, "all spans", look, explain).await;
        let back = |line: &Line| line.says(BACK) && line.instance() == "gateway";
        let before = backs.get("gateway").copied().unwrap_or_default();
        let lines = system.log.lines("the gateway to report the recovery", before + 1, back).await;
        let (dropped, rejected) = counts(lines.last().unwrap());
        assert_eq!((dropped, rejected), (0, rejected_in_all), "{}", lines.last().unwrap().text);
        for (instance, times) in said(&system.log, DOWN) {
            let before = downs.get(&instance).copied().unwrap_or_default();
            assert!(times <= before + 1, "{instance} reported one outage more than once");
        }
    }
    system.stop().await
}

/// Spans that were dropped and rejected, in an event.
fn counts(line: &Line) -> (usize, usize) {
    (line.number("dropped").unwrap(), line.number("rejected").unwrap())
}

async fn what_does_not_fit_in_the_queue_is_counted(server: Server) -> Stopped {
    let system = Observed::start_in(server, &[], Mode::Absent).await.incomplete();
    let settings = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        // Nobody listens there: no span would arrive through it.
        ("http_proxy", "http://127.0.0.1:1"),
    ];
    let http = system.another_gateway("gateway-full", &settings).await;
    http.post("/await-chain?id=full-absent").await.expect_message(3);
    let down = |line: &Line| line.says(DOWN) && line.instance() == "gateway-full";
    system.log.line("the gateway to report the outage", down).await;
    system.collector.set(Mode::Slow(LATE)).await;
    let (_, count) = flows(&http, "full").await;
    system.collector.set(Mode::Accept).await;
    // When a span arrives, the collector no longer blocks the exporter.
    let mut later = 0;
    until(&system.log, "a later span", async || {
        http.post(&format!("/await-chain?id=full-later-{later}")).await.expect_message(3);
        later += 1;
        (!of(&system.collector.spans(), "gateway-full", "full-later").is_empty()).then_some(())
    })
    .await;
    let sent = 3 * (1 + count + later);
    process::signal(system.pid("gateway-full"), "TERM");
    assert!(system.exit_of("gateway-full").await.success());
    let arrived = of(&system.collector.spans(), "gateway-full", "full").len();
    assert!(arrived < sent, "a queue of 8 cannot hold {sent}");
    // An earlier line has the counts of its time.
    let lost = |line: &Line| {
        line.says("spans were lost")
            && line.instance() == "gateway-full"
            && (arrived + counts(line).0, counts(line).1) == (sent, 0)
    };
    let what = format!("all but {arrived} of {sent} spans to be counted as dropped");
    system.log.line(&what, lost).await;
    system.stop().await
}

async fn a_second_signal_exports_what_is_left(server: Server) -> Stopped {
    // Only calls and roots are exported by themselves.
    let settings = [("OTEL_BSP_SCHEDULE_DELAY", "600000"), ("NODE_LEASE", "1s")];
    let system = Observed::start(server, &settings).await.incomplete();
    let http = system.http();
    let flow = http.post("/await-chain?id=twice&work=3s");
    let stop = async {
        let second = |line: &Line| {
            line.in_run("step started", "twice.0") && line.field("step") == Some("work 2/3")
        };
        let line = system.log.line("the second step", second).await;
        let instance = line.instance().to_owned();
        let steps = |spans: &[Span]| {
            let step = |span: &&Span| span.instance() == instance && span.name == "work 1/3";
            spans.iter().filter(step).count()
        };
        assert_eq!(steps(&system.collector.spans()), 0, "the step's span waits");
        let pid = system.pid(&instance);
        process::signal(pid, "TERM");
        let stopping = |line: &Line| line.says("stopping") && line.instance() == instance;
        system.log.line("the process to stop", stopping).await;
        process::signal(pid, "TERM");
        let look = |spans: &[Span]| (steps(spans) == 1).then_some(());
        let explain = |spans: &[Span]| format!("{}", steps(spans));
        system.collector.until(&system.log, "the first step's span", look, explain).await;
    };
    let (answer, ()) = join!(flow, stop);
    answer.expect_message(3);
    system.stop().await
}
