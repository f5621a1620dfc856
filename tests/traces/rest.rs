//! What must be true at rest, after processes were killed: by what is durable, by the logs, and by
//! what reached the collector.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::{RngExt, rngs::StdRng};
use serde_json::Value;

use crate::{
    collector::Span,
    invariants::{Kill, Shape, is_first_call, shape},
    observed::{ALL, Observed},
    support::{Http, http::Answer, until},
    tree::render,
};

/// A process that is killed takes along what it made just before: within the longest time that a
/// span took to arrive in the same run, and this much more.
const ALLOWANCE: Duration = Duration::from_millis(500);

/// A flow with random options.
pub struct Flow {
    kind: &'static str,
    id: String,
    options: String,
    fails: bool,
}

impl Flow {
    pub fn random(random: &mut StdRng, id: &str) -> Self {
        let kind = ["await-chain", "detached-chain", "fan-out-workflow"][random.random_range(0..3)];
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
        Self { kind, id: id.to_owned(), options, fails: fail == Some(5) }
    }

    pub fn path(&self) -> String {
        format!("/{}?id={}{}", self.kind, self.id, self.options)
    }

    /// Fails unless this is the right answer.
    pub fn expect(&self, answer: &Answer) {
        match self.kind {
            "detached-chain" => answer.expect_message("detached-chain started"),
            _ if self.fails => answer.expect_problem(502),
            _ => answer.expect_message(3),
        }
    }
}

/// A step, as the server and the logs have it.
#[derive(Debug)]
struct Step {
    id: String,
    /// The run that began it.
    begun: i64,
    /// The run that ended it, and the process of that.
    ended: i64,
    by: String,
    settled: SystemTime,
}

/// An invocation, as the server has it.
struct Invocation {
    id: String,
    function: String,
    trace: String,
    /// The id of its rpc span.
    call: String,
    created: SystemTime,
    settled: SystemTime,
    steps: Vec<Step>,
}

/// Waits until all flows have ended and all processes are gone, and checks everything.
pub async fn judge(system: Observed, http: &Http, flows: Vec<Flow>) {
    let mut all = Vec::new();
    for flow in &flows {
        all.extend(durable(&system, http, flow).await);
    }
    let kills = system.kills();
    let log = system.log.clone();
    let spans = system.ended_spans();
    let late = |span: &Span| span.arrived.duration_since(span.end).unwrap_or_default();
    let last_spans = spans.iter().map(late).max().unwrap_or_default() + ALLOWANCE;
    let mut verdict =
        Verdict { kills: &kills, last_spans, spans: &spans, broken: Vec::new(), missing: vec![] };
    for invocation in &all {
        verdict.judge(invocation);
    }
    let orphans = verdict.orphans(&all);
    let took_over = spans.iter().filter(|span| shape(span) == Shape::Run && span.takeover());
    eprintln!(
        "{} kills, {} flows, {} spans, {} takeovers; killed processes took along {} spans: {:?}; \
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
    assert!(broken.is_empty(), "{}\nthe logs:\n{log}", broken.join("\n"));
}

/// Everything durable of a flow, once it has ended.
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
        // A function that is no longer waited for may still run.
        let what = format!("the end of {id}");
        let promise = until(&system.log, &what, async || {
            let promise = system.resonate().promise(&id).await;
            (promise["state"] != "pending").then_some(promise)
        });
        let promise = promise.await;
        let (trace, call) = context(&promise);
        invocations.push(Invocation {
            trace,
            call,
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
        let begun = header.as_str().and_then(|version| version.parse().ok()).expect("its run");
        // Who settles a step has said before that its body is done; the last run to say so did.
        let done = |message: &str| {
            system.log.all(|line| {
                line.text.contains(&format!("\"{message}\"")) && line.field("promise") == Some(&id)
            })
        };
        let done = [done("step done"), done("step failed for good")].concat();
        let last = done.iter().max_by_key(|line| line.version()).expect("it is settled");
        steps.push(Step {
            begun,
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
    /// How long before its end a process may make spans that do not arrive.
    last_spans: Duration,
    spans: &'a [Span],
    broken: Vec<String>,
    /// Spans that a killed process took along.
    missing: Vec<String>,
}

impl Verdict<'_> {
    /// A span is missing: it must be that a process of `group` was killed soon after it was made.
    fn miss(&mut self, what: String, group: &str, made: SystemTime) {
        let of_group = |kill: &&Kill| {
            kill.instance.strip_suffix("-replica").unwrap_or(&kill.instance) == group
        };
        // The server's clock and this one are the same, but for their last digit.
        let after = |kill: &Kill| (kill.at + Duration::from_millis(50)).duration_since(made).ok();
        let kills: Vec<_> = self.kills.iter().filter(of_group).filter_map(after).collect();
        match kills.iter().any(|after| *after < self.last_spans) {
            true => self.missing.push(what),
            false => self.broken.push(format!(
                "{what} is missing, and nobody of {group} was killed within {:?}, but after {kills:?}",
                self.last_spans
            )),
        }
    }

    /// The spans whose parents are not here. The parent must be a call whose span was taken along,
    /// or the request of a gateway that was killed.
    fn orphans(&mut self, all: &[Invocation]) -> Vec<String> {
        let ids: BTreeSet<_> = self.spans.iter().map(|span| (&span.trace, &span.id)).collect();
        let mut orphans = Vec::new();
        for span in self.spans {
            let Some(parent) = &span.parent else { continue };
            if ids.contains(&(&span.trace, parent)) {
                continue;
            }
            orphans.push(format!("{} of {}", span.name, span.promise()));
            let call = all.iter().any(|invocation| {
                let missing = format!("rpc {} of {}", invocation.function, invocation.id);
                invocation.call == *parent && self.missing.contains(&missing)
            });
            let killed = |invocation: &Invocation| {
                let gateways = self.kills.iter().filter(|kill| kill.instance == "gateway");
                let until = invocation.settled + self.last_spans;
                gateways.into_iter().any(|kill| (invocation.created..until).contains(&kill.at))
            };
            let mut flows = all.iter().filter(|invocation| invocation.call == span.id);
            let request = is_first_call(span) && flows.any(killed);
            if !call && !request {
                self.broken.push(format!("the parent was lost without a kill: {span:#?}"));
            }
        }
        orphans
    }

    fn complain(&mut self, what: &str, invocation: &Invocation) {
        let tree = render(self.spans, &invocation.trace, ALL);
        self.broken.push(format!("{what} ({})\n{tree}", invocation.id));
    }

    fn judge(&mut self, invocation: &Invocation) {
        let Invocation { id, function, trace, created, settled, steps, .. } = invocation;
        let spans = self.spans;
        let mine: Vec<_> = spans.iter().filter(|span| span.promise() == id).collect();
        if mine.iter().any(|span| span.trace != *trace) {
            self.complain("spans of another trace", invocation);
        }
        let of = |wanted: Shape| mine.iter().filter(move |span| shape(span) == wanted);
        match of(Shape::Rpc).count() {
            0 => self.miss(format!("rpc {function} of {id}"), caller(function), *created),
            1 => {}
            _ => self.complain("more than one rpc span", invocation),
        }
        match of(Shape::Invocation).count() {
            0 => self.miss(format!("{function} of {id}"), runner(function), *settled),
            1 => {}
            _ => self.complain("more than one invocation span", invocation),
        }
        for step in steps {
            let taken_over = step.begun < step.ended;
            let of_step: Vec<_> = spans.iter().filter(|span| span.promise() == step.id).collect();
            match of_step.as_slice() {
                [] => self.miss(format!("step {}", step.id), runner(function), step.settled),
                [span] => {
                    if span.takeover() != taken_over || span.instance() != step.by {
                        self.complain(&format!("{step:?}, but {span:#?}"), invocation);
                    }
                }
                _ => self.complain("more than one span of a step", invocation),
            }
        }
        // A run took over if, and only if, it found a step that an earlier one had begun.
        let took_over =
            |version: i64| steps.iter().any(|step| step.begun < version && version <= step.ended);
        for run in of(Shape::Run) {
            if run.takeover() != took_over(run.version()) {
                self.complain(&format!("takeover? {run:#?}, {steps:#?}"), invocation);
            }
        }
        let lost: BTreeMap<_, _> =
            of(Shape::LostLease).map(|span| (span.version(), *span)).collect();
        for version in lost.keys().filter(|version| !took_over(**version)) {
            self.complain(&format!("run {version} took nothing over"), invocation);
        }
        for step in steps.iter().filter(|step| step.begun < step.ended) {
            // The run that ended it is there with all it emitted, unless it was killed too.
            let survived = of(Shape::Run).any(|run| run.version() == step.ended);
            if survived && !lost.contains_key(&step.ended) {
                self.complain(&format!("no lost lease for {step:?}"), invocation);
            }
        }
    }
}

fn caller(function: &str) -> &'static str {
    match function {
        "foo" | "qux" | "zim" => "gateway",
        "bar" => "service-a",
        "baz" => "service-b",
        "quz" => "service-d",
        "cog" => "service-e",
        "rax" | "dop" => "service-g",
        other => panic!("no function is called {other}"),
    }
}

fn runner(function: &str) -> &'static str {
    match function {
        "foo" => "service-a",
        "bar" => "service-b",
        "baz" => "service-c",
        "qux" => "service-d",
        "quz" => "service-e",
        "cog" => "service-f",
        "zim" => "service-g",
        "rax" => "service-h",
        "dop" => "service-i",
        other => panic!("no function is called {other}"),
    }
}

/// Trace and span of the context that a promise carries.
fn context(promise: &Value) -> (String, String) {
    let context = promise["param"]["headers"]["traceparent"].as_str().expect("a context");
    let mut parts = context.split('-').skip(1).map(str::to_owned);
    (parts.next().unwrap(), parts.next().unwrap())
}

fn time(milliseconds: &Value) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds.as_u64().expect("a time"))
}
