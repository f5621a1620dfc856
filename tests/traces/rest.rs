//! What must hold at rest, after processes were killed: compares what is durable, what was logged and
//! what reached the collector.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::{RngExt, rngs::StdRng};
use serde_json::Value;
use testkit::{Answer, FLOWS, Http, Span, Stopped, flows, until};

use crate::{
    invariants::{Kill, Shape, shape},
    observed::{self, Observed},
    tree::render,
};

/// A killed process loses the spans that it had not exported. How old they can be: the longest time
/// that a span took to arrive in the same run, plus this.
const ALLOWANCE: Duration = Duration::from_millis(500);

/// A flow with random options.
pub struct Flow {
    flow: flows::Flow,
    id: String,
    options: String,
    fails: bool,
}

impl Flow {
    /// Any flow, with any options.
    pub fn random(random: &mut StdRng, id: &str) -> Self {
        let flow = FLOWS[random.random_range(0..3)];
        let mut options = String::new();
        if random.random_bool(0.7) {
            options += &format!("&work={}ms", random.random_range(1..30) * 100);
        }
        if random.random_bool(0.3) {
            options += &format!("&sleep={}ms", random.random_range(1..10) * 100);
        }
        let fail = [None, None, None, Some(1), Some(2), Some(5)][random.random_range(0..6)];
        if let Some(fail) = fail {
            options += &format!("&fail={fail}");
        }
        Self { flow, id: id.to_owned(), options, fails: fail == Some(5) }
    }

    /// The path of its request.
    pub fn path(&self) -> String {
        format!("/{}?id={}{}", self.flow.name, self.id, self.options)
    }

    /// Asserts that this is the right answer.
    pub fn expect(&self, answer: &Answer) {
        match self.fails && !self.flow.is_detached() {
            true => answer.expect_problem(502),
            false => answer.expect_message(self.flow.message()),
        }
    }
}

/// A step, according to the server and the log.
#[derive(Debug)]
struct Step {
    id: String,
    /// The version of the run that started it.
    started: i64,
    /// The version of the run that ended it, and the instance that ran it.
    ended: i64,
    by: String,
    settled: SystemTime,
}

/// An invocation, according to the server.
struct Invocation {
    id: String,
    function: String,
    trace: String,
    /// The id of its rpc span, from its context.
    call: String,
    /// The id of the flow's span, if it is the first one of its flow.
    flow: Option<String>,
    created: SystemTime,
    settled: SystemTime,
    steps: Vec<Step>,
}

/// Waits until all flows have ended, stops the system, and checks everything.
pub async fn judge(system: Observed, http: &Http, flows: Vec<Flow>) -> Stopped {
    let mut all = Vec::new();
    for flow in &flows {
        all.extend(durable(&system, http, flow).await);
    }
    let kills = system.kills();
    let log = system.log.clone();
    let (collector, stopped) = system.stop_and_keep().await;
    let spans = collector.spans();
    let window = spans.iter().map(Span::delay).max().unwrap_or_default() + ALLOWANCE;
    let mut verdict =
        Verdict { kills: &kills, window, spans: &spans, broken: Vec::new(), missing: vec![] };
    for invocation in &all {
        verdict.judge(invocation);
    }
    let orphans = verdict.orphans(&all);
    let took_over = spans.iter().filter(|span| shape(span) == Shape::Run && span.takeover());
    eprintln!(
        "{} kills, {} flows, {} spans, {} takeovers; killed processes lost {} spans: {:?}; \
         {} spans without their parents: {orphans:?}",
        kills.len(),
        flows.len(),
        spans.len(),
        took_over.count(),
        verdict.missing.len(),
        verdict.missing,
        orphans.len(),
    );
    let broken = verdict.broken;
    assert!(broken.is_empty(), "{}\n{log}", broken.join("\n"));
    stopped
}

/// Waits until a flow has ended, and returns its invocations.
async fn durable(system: &Observed, http: &Http, flow: &Flow) -> Vec<Invocation> {
    let what = format!("the end of {}", flow.path());
    let ended = until(&system.log, &what, async || {
        let now = http.get(&format!("/flows/{}", flow.id)).await;
        (now.status == 200 && now.body["state"] != "pending").then_some(now.body)
    });
    let ended = ended.await;
    let state = if flow.fails { "rejected" } else { "resolved" };
    assert_eq!(ended["state"], state, "{ended:#}");
    let mut invocations = Vec::new();
    for invocation in ended["invocations"].as_array().unwrap() {
        let id = invocation["id"].as_str().unwrap().to_owned();
        // A function that nobody awaits any more may still run.
        let what = format!("the end of {id}");
        let promise = until(&system.log, &what, async || {
            let promise = system.resonate().promise(&id).await;
            (promise["state"] != "pending").then_some(promise)
        });
        let promise = promise.await;
        let (trace, call) = context(&promise);
        let flow = promise["param"]["headers"]["resonate-otel-flow"].as_str().map(str::to_owned);
        assert_eq!(flow.is_some(), !id.contains('.'), "{promise}");
        invocations.push(Invocation {
            trace,
            call,
            flow,
            created: time(&promise["createdAt"]),
            settled: time(&promise["settledAt"]),
            function: invocation["function"].as_str().unwrap().to_owned(),
            steps: steps(system, &id).await,
            id,
        });
    }
    let traces: BTreeSet<_> = invocations.iter().map(|invocation| &invocation.trace).collect();
    assert_eq!(traces.len(), 1, "one trace for {}", flow.path());
    invocations
}

async fn steps(system: &Observed, id: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for n in 0.. {
        let id = format!("{id}.{n}");
        let promise = system.resonate().promise(&id).await;
        if promise.is_null() {
            return steps;
        }
        if promise["tags"]["resonate:scope"] != "local"
            || promise["tags"]["resonate:timer"] == "true"
        {
            continue;
        }
        let header = &promise["param"]["headers"]["resonate-otel-version"];
        let started = header.as_str().and_then(|version| version.parse().ok()).expect("its run");
        // A stored step never starts again, so the last run that started it has settled it.
        let starts = system.log.all(|line| line.about("step started", &id));
        let last = starts.iter().max_by_key(|line| line.version()).expect("a step that started");
        steps.push(Step {
            started,
            ended: last.version(),
            by: last.instance().to_owned(),
            settled: time(&promise["settledAt"]),
            id,
        });
    }
    steps
}

struct Verdict<'a> {
    kills: &'a [Kill],
    /// How long before its death a killed process may emit spans that do not arrive.
    window: Duration,
    spans: &'a [Span],
    broken: Vec<String>,
    /// Spans that killed processes lost.
    missing: Vec<String>,
}

impl Verdict<'_> {
    /// A span is missing: a process of `group` must have been killed soon after the span was emitted.
    fn miss(&mut self, what: String, group: &str, emitted: SystemTime) {
        let of_group = |kill: &&Kill| {
            kill.instance.strip_suffix("-replica").unwrap_or(&kill.instance) == group
        };
        // The server reads the same clock, but rounds it.
        let after =
            |kill: &Kill| (kill.at + Duration::from_millis(50)).duration_since(emitted).ok();
        let kills: Vec<_> = self.kills.iter().filter(of_group).filter_map(after).collect();
        match kills.iter().any(|after| *after < self.window) {
            true => self.missing.push(what),
            false => self.broken.push(format!(
                "{what} is missing, and {group} was killed after {kills:?}, not within {:?}",
                self.window
            )),
        }
    }

    /// The spans without their parents. Such a parent must be a span of a call or flow that is missing.
    fn orphans(&mut self, all: &[Invocation]) -> Vec<String> {
        let ids: BTreeSet<_> = self.spans.iter().map(|span| (&span.trace, &span.id)).collect();
        let mut orphans = Vec::new();
        for span in self.spans {
            let Some(parent) = &span.parent else { continue };
            if ids.contains(&(&span.trace, parent)) {
                continue;
            }
            orphans.push(format!("{} of {}", span.name, span.promise()));
            let known = all.iter().any(|Invocation { id, function, call, flow, .. }| {
                let missing = |what: String| self.missing.contains(&what);
                call == parent && missing(format!("rpc {function} of {id}"))
                    || flow.as_ref() == Some(parent) && missing(format!("flow {id}"))
            });
            if !known {
                self.broken.push(format!("the parent is missing without a kill: {span:#?}"));
            }
        }
        orphans
    }

    fn complain(&mut self, what: &str, invocation: &Invocation) {
        let tree = render(self.spans, &invocation.trace, &observed::all());
        self.broken.push(format!("{what} ({})\n{tree}", invocation.id));
    }

    fn judge(&mut self, invocation: &Invocation) {
        let Invocation { id, function, trace, created, settled, steps, .. } = invocation;
        let (spans, group) = (self.spans, flows::find(function).group);
        let mine: Vec<_> = spans.iter().filter(|span| span.promise() == id).collect();
        // A request whose creation was not answered has its own flow span.
        let strange = |span: &Span| {
            span.trace != *trace && (shape(span) != Shape::Flow || span.error.is_none())
        };
        if mine.iter().any(|span| strange(span)) {
            self.complain("spans of another trace", invocation);
        }
        if let Some(flow) = &invocation.flow {
            match mine.iter().filter(|span| span.id == *flow && span.trace == *trace).count() {
                0 => self.miss(format!("flow {id}"), "gateway", *created),
                1 => {}
                _ => self.complain("more than one span of the flow", invocation),
            }
        }
        let of = |wanted: Shape| mine.iter().filter(move |span| shape(span) == wanted);
        match of(Shape::Rpc).count() {
            0 => {
                self.miss(
                    format!("rpc {function} of {id}"),
                    flows::find(function).caller,
                    *created,
                );
            }
            1 => {}
            _ => self.complain("more than one rpc span", invocation),
        }
        match of(Shape::Invocation).count() {
            0 => self.miss(format!("{function} of {id}"), group, *settled),
            1 => {}
            _ => self.complain("more than one invocation span", invocation),
        }
        for step in steps {
            let taken_over = step.started < step.ended;
            let of_step: Vec<_> = spans.iter().filter(|span| span.promise() == step.id).collect();
            match of_step.as_slice() {
                [] => self.miss(format!("step {}", step.id), group, step.settled),
                [span] => {
                    if span.takeover() != taken_over || span.instance() != step.by {
                        self.complain(&format!("{step:?}, but {span:#?}"), invocation);
                    }
                }
                _ => self.complain("more than one span of a step", invocation),
            }
        }
        // A run is a takeover if and only if it found a step that an earlier run had started.
        let took_over =
            |version: i64| steps.iter().any(|step| step.started < version && version <= step.ended);
        for run in of(Shape::Run) {
            if run.takeover() != took_over(run.version()) {
                self.complain(&format!("takeover? {run:#?}, {steps:#?}"), invocation);
            }
        }
        let lost: BTreeMap<_, _> =
            of(Shape::LostLease).map(|span| (span.version(), *span)).collect();
        for version in lost.keys().filter(|version| !took_over(**version)) {
            self.complain(&format!("run {version} is not a takeover"), invocation);
        }
        for step in steps.iter().filter(|step| step.started < step.ended) {
            // The run that ended the step has its spans, unless it was killed too.
            let survived = of(Shape::Run).any(|run| run.version() == step.ended);
            if survived && !lost.contains_key(&step.ended) {
                self.complain(&format!("no lost lease for {step:?}"), invocation);
            }
        }
    }
}

/// Trace id and span id of the context that a promise carries.
fn context(promise: &Value) -> (String, String) {
    let context = promise["param"]["headers"]["traceparent"].as_str().expect("a context");
    let mut parts = context.split('-').skip(1).map(str::to_owned);
    (parts.next().unwrap(), parts.next().unwrap())
}

fn time(milliseconds: &Value) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds.as_u64().expect("a time"))
}
