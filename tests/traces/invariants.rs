//! Rules that hold for all spans that reach the collector, whatever has happened.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, SystemTime},
};

use testkit::{Line, Log, Span};

use crate::shop;

/// The kill of a process.
#[derive(Debug, Clone)]
pub struct Kill {
    pub instance: String,
    pub at: SystemTime,
}

/// A span is due at the collector within this time of its end. A busy machine gets the allowance.
const EXPORT: Duration = Duration::from_secs(1);
const ALLOWANCE: Duration = Duration::from_millis(1_500);

/// A run has its first lease span after this time.
const FIRST_LEASE: Duration = Duration::from_millis(200);

/// The shortest lease that a test sets.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// A description of each broken rule.
pub fn broken(spans: &[Span], log: &Log, kills: &[Kill]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut check = |holds: bool, rule: &str, span: &Span| {
        if !holds {
            broken.push(format!("{rule}: {span:#?}"));
        }
    };
    let ids: HashSet<_> = spans.iter().map(|span| (&span.trace, &span.id)).collect();
    // After kills, some spans may be missing: `rest.rs` checks which.
    let killed = !kills.is_empty();
    let mut once = HashSet::new();
    let mut steps = HashSet::new();
    let mut rpcs: HashMap<&str, usize> = HashMap::new();
    let mut flows: HashMap<(&str, &str), &Span> = HashMap::new();
    let mut invocations: HashMap<&str, usize> = HashMap::new();
    let mut traces: BTreeMap<&str, &str> = BTreeMap::new();
    for span in spans {
        let timed_out = span.get("resonate.promise.state") == "rejected_timedout";
        // Nobody settles a promise that times out. Two processes may observe it: they emit the same
        // span.
        let new = once.insert((&span.trace, &span.id));
        check(new || timed_out, "a span was emitted twice", span);
        if let Some(parent) = &span.parent {
            let exists = ids.contains(&(&span.trace, parent));
            check(exists || killed || is_continued(span), "its parent is missing", span);
        }
        // A flow that may have started or not names the promise that it asked for.
        let perhaps = shape(span) == Shape::Flow && span.error.is_some();
        if !span.promise().is_empty() && !perhaps {
            let flow = span.promise().split('.').next().unwrap_or_default();
            // A request may have a trace of its own, and names no promise.
            let trace = traces.entry(flow).or_insert(&span.trace);
            check(*trace == span.trace, "a flow has more than one trace", span);
        }
        match shape(span) {
            Shape::Flow => {
                let another = flows.insert((&span.trace, span.promise()), span);
                check(another.is_none(), "a flow has two spans", span);
            }
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
            let delay = span.delay();
            // A settlement whose answer is lost is known after a repeat, within the lease.
            let due = EXPORT + SHORTEST_LEASE + ALLOWANCE;
            check(delay < due, &format!("it arrived {delay:?} after its end"), span);
        } else {
            check(span.name.starts_with("sleep "), "it ends after its arrival", span);
        }
        if shape(span) == Shape::Run {
            lease(span, spans, &mut check);
        }
    }
    for call in spans.iter().filter(|span| is_first_call(span)) {
        let flow = flows.get(&(&*call.trace, call.promise()));
        let below = flow.is_some_and(|flow| call.parent.as_ref() == Some(&flow.id));
        check(below || killed, "the call of a flow is not below the flow's span", call);
    }
    for (what, counts) in [("rpc", &rpcs), ("invocation", &invocations)] {
        for (promise, count) in counts.iter().filter(|(_, count)| **count > 1) {
            broken.push(format!("{count} {what} spans of {promise}"));
        }
    }
    // Steps have no rpc spans: every promise counted here must have one.
    for promise in invocations.keys().filter(|promise| !rpcs.contains_key(*promise)) {
        let without = promise.starts_with(BY_HAND) && !promise.contains('.');
        if !without && !killed {
            broken.push(format!("{promise} has an invocation span and no rpc span"));
        }
    }
    lines(log, &traces, &mut broken);
    broken
}

/// Whether this is the call of a flow's first function. Its parent is the span of the flow.
pub fn is_first_call(span: &Span) -> bool {
    span.service() == "gateway" && shape(span) == Shape::Rpc
}

/// The prefix of the ids of promises that tests create without a context.
pub const BY_HAND: &str = "by-hand";

/// The prefix of the trace ids that tests send.
pub const OURS: &str = "7e57";

fn is_continued(span: &Span) -> bool {
    span.trace.starts_with(OURS)
}

/// What a span is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Flow,
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
    /// What the code of a step has made.
    UserCode,
}

/// What a span is about, from its name and kind.
pub fn shape(span: &Span) -> Shape {
    let begins = |beginning: &str| span.name.starts_with(beginning);
    match span.kind {
        _ if span.attributes.contains_key(shop::SHOP) => Shape::UserCode,
        "server" => Shape::Request,
        "client" => Shape::Single,
        "producer" => Shape::Rpc,
        "consumer" if begins("received ") => Shape::Received,
        _ if !span.get("resonate.run.outcome").is_empty() => Shape::Run,
        _ if !span.get("resonate.flow").is_empty() => Shape::Flow,
        _ if begins("lease on ") => Shape::Lease,
        _ if begins("lease ") => Shape::LostLease,
        _ if begins("sleep ") => Shape::Timer,
        _ if !span.get("resonate.promise.state").is_empty() && is_function(span) => {
            Shape::Invocation
        }
        _ => Shape::Step,
    }
}

/// Whether a span is named like its function, or like one that cannot be read.
fn is_function(span: &Span) -> bool {
    match span.get("resonate.function") {
        "" => span.name == "invocation",
        function => span.name == function,
    }
}

/// Checks that name, kind, attributes and resource agree.
fn identity(span: &Span, check: &mut impl FnMut(bool, &str, &Span)) {
    let (service, instance) = (span.service(), span.instance());
    let rest = instance.strip_prefix(service);
    let known = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    check(known, "the instance does not belong to the service", span);
    check(span.resource["service.namespace"] == "async-rpc", "wrong namespace", span);
    check(!span.resource["service.version"].is_empty(), "no version", span);
    let (function, group) = (span.get("resonate.function"), span.get("resonate.group"));
    // What stands for the name of a function that cannot be read.
    let name = if function.is_empty() { "invocation" } else { function };
    let holds = match shape(span) {
        Shape::Flow => span.name == span.get("resonate.flow") && service == "gateway",
        Shape::Request => {
            let required = ["url.scheme", "url.path", "server.address", "client.address"];
            span.name == format!("POST {}", span.get("http.route"))
                && required.iter().all(|name| !span.get(name).is_empty())
                && span.error.is_some() != span.get("error.type").is_empty()
        }
        Shape::Rpc => span.name == format!("rpc {function}") && !group.is_empty(),
        Shape::Received => span.name == format!("received {function}") && group == service,
        // If the promise timed out, its awaiter or its holder emits the span. If it was canceled, the
        // gateway does.
        Shape::Invocation => {
            let state = span.get("resonate.promise.state");
            let elsewhere = state == "rejected_timedout"
                || (state == "rejected_canceled" && service == "gateway");
            span.name == name && (group == service || elsewhere)
        }
        Shape::Run => {
            let kind = if span.version() == 1 { "consumer" } else { "internal" };
            span.name == format!("{name} on {instance}") && group == service && span.kind == kind
        }
        Shape::Lease => span.name == format!("lease on {instance}") && group == service,
        Shape::LostLease => {
            let lost = span.get("resonate.lease.instance");
            group == service
                && lost.starts_with(service)
                && (span.name == format!("lease of {lost} expired") || span.name == "lease expired")
                && span.error.is_some()
        }
        Shape::Step => group == service && !function.is_empty() && span.version() > 0,
        Shape::Timer | Shape::Single | Shape::UserCode => function.is_empty(),
    };
    check(holds, "name, attributes and resource disagree", span);
    let without = matches!(shape(span), Shape::Request | Shape::Single | Shape::UserCode);
    check(without || !span.promise().is_empty(), "it names no promise", span);
    let sends = ["rpc", "received"].iter().any(|word| span.name.starts_with(word));
    let runs = shape(span) == Shape::Run && span.version() == 1;
    let message = (span.get("messaging.message.id"), span.get("messaging.destination.name"));
    let expected = if sends || runs { (span.promise(), group) } else { ("", "") };
    check(message == expected, "wrong messaging attributes", span);
    // The semantic conventions of HTTP set it on the request.
    let typed = span.error.is_some() != span.get("error.type").is_empty();
    check(typed || shape(span) == Shape::Request, "a status without its error.type", span);
}

/// Checks that long runs, and only those, have lease spans, and that these follow one another.
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
    if run.duration() < FIRST_LEASE {
        check(!held, "a short run has a lease span", run);
    } else if run.duration() > FIRST_LEASE + ALLOWANCE {
        check(held, "a long run has no lease span", run);
    }
    if let Some(first) = leases.first() {
        check(first.start == run.start, "the first lease span does not start with the run", run);
        check(first.duration() >= FIRST_LEASE, "the first lease span is too short", run);
    }
    // On a very busy machine a heartbeat may be late by about a lease, which leaves a gap.
    let joined = leases.windows(2).all(|pair| {
        let gap = pair[1].start.duration_since(pair[0].end);
        gap.is_ok_and(|gap| gap.is_zero() || gap > SHORTEST_LEASE / 2)
    });
    check(joined, &format!("lease spans have gaps or overlap: {leases:#?}"), run);
    let within = leases.iter().all(|lease| lease.end <= run.end);
    check(within, "a lease span outlives its run", run);
}

/// Checks that each event of a function or step names its promise and the trace of its flow.
fn lines(log: &Log, traces: &BTreeMap<&str, &str>, broken: &mut Vec<String>) {
    for line in log.all(Line::is_of_a_run) {
        let flow = line.field("promise").and_then(|promise| promise.split('.').next());
        let trace = line.field("trace_id");
        let known = flow.and_then(|flow| traces.get(flow));
        // A flow that is not sampled has a trace of which no span arrives.
        if flow.is_none() || trace.is_none() || known.is_some_and(|known| Some(*known) != trace) {
            broken.push(format!("an event without its promise or trace: {}", line.text));
        }
    }
}
