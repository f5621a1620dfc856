//! Rules that hold for everything that reaches the collector, whatever happened.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, SystemTime},
};

use crate::{collector::Span, support::Log};

/// A process that was killed, and when.
#[derive(Debug, Clone)]
pub struct Kill {
    pub instance: String,
    pub at: SystemTime,
}

/// A span reaches the collector within a second of its end; this much more is for a busy machine.
const EXPORT: Duration = Duration::from_secs(1);
const ALLOWANCE: Duration = Duration::from_millis(1_500);

/// The run of a process shows that it holds its lease after this long.
const FIRST_LEASE: Duration = Duration::from_millis(200);

/// The shortest lease of a test.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// Every rule that is broken, in words.
pub fn broken(spans: &[Span], log: &Log, kills: &[Kill]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut check = |holds: bool, rule: &str, span: &Span| {
        if !holds {
            broken.push(format!("{rule}: {span:#?}"));
        }
    };
    let ids: HashSet<_> = spans.iter().map(|span| (&span.trace, &span.id)).collect();
    // Then it depends on who was killed when: that is another matter.
    let killed = !kills.is_empty();
    let mut once = HashSet::new();
    let mut steps = HashSet::new();
    let mut rpcs: HashMap<&str, usize> = HashMap::new();
    let mut invocations: HashMap<&str, usize> = HashMap::new();
    let mut traces: BTreeMap<&str, &str> = BTreeMap::new();
    for span in spans {
        let timed_out = span.get("resonate.promise.state") == "rejected_timedout";
        // Nobody settles a timed-out promise: two may notice, and give the span the same id.
        let new = once.insert((&span.trace, &span.id));
        check(new || timed_out, "a span was emitted twice", span);
        if let Some(parent) = &span.parent {
            let here = ids.contains(&(&span.trace, parent));
            check(here || killed || is_continued(span), "the parent is not here", span);
        }
        if !span.promise().is_empty() {
            let flow = span.promise().split('.').next().unwrap_or_default();
            // A request that finds its flow has a trace of its own, and names no promise.
            let trace = traces.entry(flow).or_insert(&span.trace);
            check(*trace == span.trace, "a flow has more than one trace", span);
        }
        match shape(span) {
            Shape::Rpc => *rpcs.entry(span.promise()).or_default() += 1,
            Shape::Invocation if new => *invocations.entry(span.promise()).or_default() += 1,
            Shape::Step => {
                check(steps.insert(span.promise()), "a step has two spans", span);
                let names = span.attributes.keys().all(|name| !name.ends_with("outcome"));
                check(names, "a step has no outcome", span);
            }
            _ => {}
        }
        identity(span, &mut check);
        if span.end <= span.arrived {
            let late = span.arrived.duration_since(span.end).unwrap_or_default();
            check(late < EXPORT + ALLOWANCE, &format!("it came {late:?} after its end"), span);
        } else {
            check(span.name.starts_with("sleep "), "it ends in the future", span);
        }
        if shape(span) == Shape::Run {
            lease(span, spans, &mut check);
        }
    }
    for (what, counts) in [("rpc", &rpcs), ("invocation", &invocations)] {
        for (promise, count) in counts.iter().filter(|(_, count)| **count > 1) {
            broken.push(format!("{count} {what} spans of {promise}"));
        }
    }
    // A step's rpc does not exist, so what is counted here has one each.
    for promise in invocations.keys().filter(|promise| !rpcs.contains_key(*promise)) {
        let without = promise.starts_with(BY_HAND) && !promise.contains('.');
        if !without && !killed {
            broken.push(format!("no rpc span of {promise}, which has an invocation span"));
        }
    }
    lines(log, &traces, &mut broken);
    broken
}

/// The call of a flow's first function: its parent is the request, which comes with the answer.
pub fn is_first_call(span: &Span) -> bool {
    span.service() == "gateway" && shape(span) == Shape::Rpc
}

/// Tests make promises without a context: these have ids that begin alike.
pub const BY_HAND: &str = "by-hand";

/// Tests send contexts whose spans are their own: these have ids that begin alike.
pub const OURS: &str = "7e57";

fn is_continued(span: &Span) -> bool {
    span.trace.starts_with(OURS)
}

/// What a span is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Request,
    Rpc,
    Invocation,
    Received,
    Run,
    Lease,
    LostLease,
    Timer,
    Step,
    /// A single request to the Resonate Server.
    Single,
}

/// What `span` is about, by its name and its kind.
pub fn shape(span: &Span) -> Shape {
    let begins = |beginning: &str| span.name.starts_with(beginning);
    match span.kind {
        "server" => Shape::Request,
        "client" => Shape::Single,
        "producer" => Shape::Rpc,
        "consumer" if begins("received ") => Shape::Received,
        "consumer" => Shape::Invocation,
        _ if begins("lease on ") => Shape::Lease,
        _ if begins("lease ") => Shape::LostLease,
        _ if begins("sleep ") => Shape::Timer,
        _ if span.name.contains(" on ") => Shape::Run,
        _ => Shape::Step,
    }
}

/// Name, kind, attributes and resource tell the same.
fn identity(span: &Span, check: &mut impl FnMut(bool, &str, &Span)) {
    let (service, instance) = (span.service(), span.instance());
    let rest = instance.strip_prefix(service);
    let known = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    check(known, "the instance is none of the service", span);
    check(span.resource["service.namespace"] == "async-rpc", "a wrong namespace", span);
    check(!span.resource["service.version"].is_empty(), "no version", span);
    let (function, group) = (span.get("resonate.function"), span.get("resonate.group"));
    let holds = match shape(span) {
        Shape::Request => {
            span.name == format!("POST {}", span.get("http.route"))
                || span.name == format!("GET {}", span.get("http.route"))
        }
        Shape::Rpc => span.name == format!("rpc {function}") && !group.is_empty(),
        Shape::Received => span.name == format!("received {function}") && group == service,
        // Of a promise that timed out it is the awaiter's, or the holder's.
        Shape::Invocation => {
            span.name == function
                && (group == service || span.get("resonate.promise.state") == "rejected_timedout")
        }
        Shape::Run => span.name == format!("{function} on {instance}") && group == service,
        Shape::Lease => span.name == format!("lease on {instance}") && group == service,
        Shape::LostLease => {
            let lost = span.get("resonate.lease.instance");
            group == service
                && lost.starts_with(service)
                && (span.name == format!("lease of {lost} expired") || span.name == "lease expired")
                && span.error.is_some()
        }
        Shape::Timer | Shape::Step | Shape::Single => function.is_empty(),
    };
    check(holds, "name, attributes and resource do not fit", span);
    let about = matches!(shape(span), Shape::Request | Shape::Single) || !span.promise().is_empty();
    check(about, "no promise is named", span);
}

/// A run has lease spans if it is long, and only then; they follow each other.
fn lease(run: &Span, spans: &[Span], check: &mut impl FnMut(bool, &str, &Span)) {
    let mut leases: Vec<_> = spans
        .iter()
        .filter(|span| {
            shape(span) == Shape::Lease
                && span.promise() == run.promise()
                && span.version() == run.version()
        })
        .collect();
    leases.sort_by_key(|lease| lease.start);
    let held = !leases.is_empty();
    if run.length() < FIRST_LEASE {
        check(!held, "a short run has a lease span", run);
    } else if run.length() > FIRST_LEASE + ALLOWANCE {
        check(held, "a long run has no lease span", run);
    }
    if let Some(first) = leases.first() {
        check(first.start == run.start, "the first lease span does not begin with the run", run);
        check(first.length() >= FIRST_LEASE, "the first lease span is too short", run);
    }
    // A gap is one without a heartbeat, about as long as a lease: on a very busy machine.
    let joined = leases.windows(2).all(|pair| {
        let gap = pair[1].start.duration_since(pair[0].end);
        gap.is_ok_and(|gap| gap.is_zero() || gap > SHORTEST_LEASE / 2)
    });
    check(joined, &format!("lease spans have gaps or overlap: {leases:#?}"), run);
    let within = leases.iter().all(|lease| lease.end <= run.end);
    check(within, "a lease span outlives its run", run);
}

/// Every log line inside a function or step names its promise and the trace of its flow.
fn lines(log: &Log, traces: &BTreeMap<&str, &str>, broken: &mut Vec<String>) {
    for line in log.all(|line| line.text.contains("\"name\":\"run\"")) {
        let flow = line.field("promise").and_then(|promise| promise.split('.').next());
        let trace = line.field("trace_id");
        let known = flow.and_then(|flow| traces.get(flow));
        // A flow that is not sampled has a trace that nothing is known of.
        if flow.is_none() || trace.is_none() || known.is_some_and(|known| Some(*known) != trace) {
            broken.push(format!("a line without its promise or trace: {}", line.text));
        }
    }
}
