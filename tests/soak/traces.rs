//! Traces at rest: what arrived at the collector, against the promises and the log.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use testkit::{Http, Resonate, Span, System, flows};

use crate::report::Report;

/// A killed process loses what it had not exported: of flows and calls, what is younger than this.
const PARENTS: Duration = Duration::from_millis(200);

/// Other spans wait for the next batch for half a second. The rest allows for a busy machine.
const OTHERS: Duration = Duration::from_millis(1_000);

/// How far the server's clock, in whole milliseconds, may be from the process's.
const SKEW: Duration = Duration::from_millis(20);

/// How many flows are asked for at once.
const AT_ONCE: usize = 16;

/// At most one span in this many may be without its parent.
const ORPHANS: usize = 2_000;

/// A process that ends while it is cut off from the server cannot look up the answers that it lost since
/// the cut. They are younger than this when its drain is over.
const CUT_OFF: Duration = Duration::from_secs(15);

/// When it wakes up, a server that was frozen takes the requests that have come meanwhile, also those of processes
/// that are dead by then.
const WAKES: Duration = Duration::from_secs(1);

/// A process that was killed, or that ended while it was cut off.
pub struct Death {
    pub instance: String,
    pub at: SystemTime,
    pub cut_off: bool,
}

/// Judges the traces of all flows that have ended.
pub async fn judge(system: &System, spans: &[Span], report: &Mutex<Report>) {
    let ended = std::mem::take(&mut report.lock().unwrap().ids);
    // Making a client reads the certificates of the machine: one is enough.
    let (http, resonate) = (system.http(), system.resonate());
    let mut promises = Vec::new();
    for ids in ended.chunks(AT_ONCE) {
        let found = join_all(ids.iter().map(|id| invocations(&http, &resonate, id))).await;
        promises.extend(found.into_iter().flatten());
    }
    let mut report = report.lock().unwrap();
    let (violations, rows) = Verdict::new(spans, &report).judge(&promises);
    rows.into_iter().for_each(|(what, value)| report.row(what, value));
    violations.into_iter().for_each(|text| report.violation(text));
}

/// An invocation, as the server has it.
struct Invocation {
    id: String,
    function: flows::Function,
    created: SystemTime,
    settled: SystemTime,
}

async fn invocations(http: &Http, resonate: &Resonate, flow: &str) -> Vec<Invocation> {
    let end = http.get(&format!("/flows/{flow}")).await.body;
    let mut found = Vec::new();
    for invocation in end["invocations"].as_array().into_iter().flatten() {
        let id = invocation["id"].as_str().unwrap().to_owned();
        let promise = resonate.promise(&id).await;
        let time =
            |key: &str| promise[key].as_u64().map(|time| UNIX_EPOCH + Duration::from_millis(time));
        // A function that nobody awaits any more may still run.
        if let (Some(created), Some(settled)) = (time("createdAt"), time("settledAt")) {
            let function = flows::find(invocation["function"].as_str().unwrap());
            found.push(Invocation { id, function, created, settled });
        }
    }
    found
}

struct Verdict<'a> {
    spans: &'a [Span],
    /// By the id of their promise.
    of: HashMap<&'a str, Vec<&'a Span>>,
    report: &'a Report,
    violations: Vec<String>,
    /// How long after the loss of a span its process died.
    lost: Vec<Duration>,
}

fn is_run(span: &Span, function: &str) -> bool {
    span.name.strip_prefix(function).is_some_and(|rest| rest.starts_with(" on "))
}

fn is_unanswered(span: &&&Span) -> bool {
    span.get("error.type") == "unanswered"
}

impl<'a> Verdict<'a> {
    fn new(spans: &'a [Span], report: &'a Report) -> Self {
        let mut of: HashMap<&str, Vec<&Span>> = HashMap::new();
        spans.iter().for_each(|span| of.entry(span.promise()).or_default().push(span));
        Self { spans, of, report, violations: Vec::new(), lost: Vec::new() }
    }

    fn judge(mut self, promises: &[Invocation]) -> (Vec<String>, Vec<(&'static str, String)>) {
        let mut takeovers = 0;
        for invocation in promises {
            self.once(invocation);
            self.flow(invocation);
            takeovers += self.takeovers(invocation);
        }
        let orphans = self.orphans();
        self.lost.sort();
        let late = self.lost.iter().filter(|lost| **lost > PARENTS).count();
        let rows = vec![
            ("spans", self.spans.len().to_string()),
            ("invocations of ended flows", promises.len().to_string()),
            ("spans without their parents", orphans.to_string()),
            ("rpc and invocation spans that killed processes lost", self.lost.len().to_string()),
            ("of these, more than 200 ms before the kill", late.to_string()),
            ("takeovers in the middle of a step that a trace shows", takeovers.to_string()),
        ];
        (self.violations, rows)
    }

    fn of(&self, promise: &str) -> &[&'a Span] {
        self.of.get(promise).map_or(&[], Vec::as_slice)
    }

    /// One rpc span and one invocation span, unless a process died with them.
    fn once(&mut self, invocation: &Invocation) {
        let Invocation { id, function, created, settled } = invocation;
        let rpc = format!("rpc {}", function.name);
        for (name, group, emitted, window) in [
            (&*rpc, function.caller, *created, PARENTS),
            (function.name, function.group, *settled, OTHERS),
        ] {
            let named = self.of(id).iter().filter(|span| span.name == name);
            // A process that ended did not know whether its call had been taken: another one may have been.
            let (unanswered, count) = (named.clone().filter(is_unanswered).count(), named.count());
            let count = if unanswered == count { count.min(1) } else { count - unanswered };
            match (count, self.death_after(group, emitted, window)) {
                (1, _) => {}
                (0, Some(lost)) => self.lost.push(lost),
                (0, None) => {
                    let text = format!("{id} has no span {name}, and no process died with it");
                    self.violations.push(text);
                }
                (count, _) => self.violations.push(format!("{id} has {count} spans {name}")),
            }
        }
    }

    /// The call of a flow is below the flow's only span, which was exported before it.
    fn flow(&mut self, Invocation { id, function, .. }: &Invocation) {
        let rpc = format!("rpc {}", function.name);
        let of = self.of(id);
        let Some(call) = of.iter().find(|span| function.caller == "gateway" && span.name == rpc)
        else {
            return;
        };
        let is_flow = |span: &&&Span| !span.get("resonate.flow").is_empty();
        // A request whose creation was not answered may have another one, in its own trace.
        let flows: Vec<_> =
            of.iter().filter(is_flow).filter(|span| span.trace == call.trace).collect();
        if flows.len() != 1 || call.parent.as_ref() != Some(&flows[0].id) {
            let text =
                format!("{id} has {} spans of its flow, and its call {call:#?}", flows.len());
            self.violations.push(text);
        }
    }

    /// How long after this moment a process of `group` died that can have taken a span along: within
    /// `window`, or cut off, or before that while the server was frozen.
    fn death_after(&self, group: &str, moment: SystemTime, window: Duration) -> Option<Duration> {
        let deaths = self.report.deaths.iter();
        let of_group = deaths.filter(|it| it.instance.trim_end_matches("-replica") == group);
        let after = of_group.filter_map(|it| {
            let Ok(after) = (it.at + SKEW).duration_since(moment) else {
                let taken = |frozen: &Range<SystemTime>| {
                    frozen.contains(&it.at) && moment < frozen.end + WAKES
                };
                return self.report.frozen.iter().any(taken).then_some(Duration::ZERO);
            };
            (after < if it.cut_off { CUT_OFF } else { window }).then_some(after)
        });
        after.min()
    }

    /// Compares the takeovers in the trace with the starts of steps in the log. Returns how many runs
    /// took over a step.
    fn takeovers(&mut self, invocation: &Invocation) -> usize {
        let Invocation { id, function, .. } = invocation;
        let runs: BTreeMap<i64, &Span> = (self.of(id).iter())
            .filter(|span| is_run(span, function.name))
            .map(|span| (span.version(), *span))
            .collect();
        let outcome =
            |version: i64| runs.get(&version).map_or("", |run| run.get("resonate.run.outcome"));
        // What each run found of the steps that a run before it had begun.
        let interrupted = |version: i64| {
            self.report.starts.versions_below(id).any(|versions| {
                versions.first().is_some_and(|first| *first < version)
                    && versions.last().is_some_and(|last| *last >= version)
            })
        };
        // A run that lost the server for a whole lease could not record its release, even if the release
        // itself arrived in time.
        let unclear = |version: i64| {
            outcome(version) == "released" && self.report.gave_up.contains(&(id.clone(), version))
        };
        // A step is created before its body begins. If the run before lost its lease in between, no log
        // has the step.
        let lost_a_step =
            |version: i64| interrupted(version) || matches!(outcome(version - 1), "" | "fenced");
        let mut broken = Vec::new();
        for (version, run) in runs.iter().filter(|(version, _)| !unclear(**version - 1)) {
            let expected = interrupted(*version) && outcome(version - 1) != "released";
            if run.takeover() != expected && !(run.takeover() && lost_a_step(*version)) {
                broken
                    .push(format!("takeover={} in {run:#?}, expected {expected}", run.takeover()));
            }
        }
        let mut named = BTreeSet::new();
        // A run that left neither a step nor a mark is not named.
        for lost in self.of(id).iter().filter(|span| span.get("error.type") == "lease_expired") {
            let version = lost.version();
            named.insert(version);
            if unclear(version - 1) {
                continue;
            }
            if !lost_a_step(version) || outcome(version - 1) == "released" {
                broken.push(format!("nothing was taken over: {lost:#?}"));
            }
            let holder = self.report.holders.get(&(id.clone(), version - 1));
            let instance = lost.get("resonate.lease.instance");
            if holder.is_some_and(|holder| !instance.is_empty() && holder != instance) {
                broken.push(format!("{holder:?} lost the lease, but {lost:#?}"));
            }
        }
        let took_over = runs.values().filter(|run| run.takeover());
        for run in took_over.clone().filter(|run| !named.contains(&run.version())) {
            broken.push(format!("no lost lease for {run:#?}"));
        }
        let count = took_over.count();
        self.violations.extend(broken);
        count
    }

    /// The number of spans without their parents.
    fn orphans(&mut self) -> usize {
        let ids: BTreeSet<_> = self.spans.iter().map(|span| (&*span.trace, &*span.id)).collect();
        let mut orphans: BTreeMap<String, usize> = BTreeMap::new();
        for span in self.spans {
            if let Some(parent) = &span.parent
                && !ids.contains(&(&*span.trace, &**parent))
            {
                *orphans.entry(format!("{} of {}", span.name, span.promise())).or_default() += 1;
            }
        }
        let count = orphans.values().sum();
        if count * ORPHANS > self.spans.len() || (count > 0 && self.report.deaths.is_empty()) {
            self.violations.push(format!("{count} spans have no parent: {orphans:?}"));
        }
        count
    }
}
