//! Everything that the page draws. Times are milliseconds since the flow's start.

use serde::Serialize;
use serde_json::Value;
use wire::PromiseState;

use super::{
    attempts::{Again, Evidence, Gap, Kind, Why},
    gone::{Gone, gone},
    known::{Call, Known},
    outage::Outage,
    record::{Crash, Record, Seen},
    rows::{self, Drawn, Interruption, Row},
    story::{self, Line},
};
use crate::{Settings, held::Held, stats::Takeover, trace_link::TraceLink};

/// A flow.
#[derive(Serialize)]
pub struct View<'a> {
    id: &'a str,
    flow: &'static str,
    about: &'static str,
    /// As a request has them: `work=6s`.
    options: String,
    state: PromiseState,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Value>,
    /// What went wrong, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    trace: &'a TraceLink,
    /// Unix milliseconds.
    started: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<i64>,
    /// Nothing can change any more.
    complete: bool,
    takeovers: usize,
    /// Each of them.
    #[serde(skip)]
    pub found: Vec<Takeover>,
    rows: Vec<Row>,
    marks: Vec<Mark>,
    holders: Vec<Holder>,
    gone: Vec<Gone>,
    story: Vec<Line>,
}

/// A moment that is marked in the whole drawing.
#[derive(Debug, Serialize)]
struct Mark {
    at: i64,
    kind: &'static str,
    text: String,
}

/// Who works on the flow now, or should.
#[derive(Debug, Serialize)]
pub struct Holder {
    function: &'static str,
    group: &'static str,
    #[serde(flatten)]
    held: Held,
    version: i64,
    /// In milliseconds.
    lease: i64,
    /// The step that it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    /// It has died: its last sign of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    died: Option<i64>,
    /// Its lease is over, and the task waits for a process: since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    expired: Option<i64>,
    /// It was told to stop, and gave the task back.
    stopped: bool,
}

/// The flow as it is drawn.
pub fn view<'a>(known: &'a Known, crashes: &[Crash], settings: &Settings) -> View<'a> {
    let first = known.calls[0].record.as_ref();
    let started = first.map_or(0, |record| record.created);
    let outcome = known.outcome();
    let state = outcome.map_or(PromiseState::Pending, |record| record.state);
    let (mut rows, mut interruptions, mut holders) = (Vec::new(), Vec::new(), Vec::new());
    for (n, call) in known.calls.iter().enumerate() {
        let lease = settings.node.lease.as_millis() as i64;
        let (seen, released) = (call.seen.as_slice(), &call.released);
        let evidence = Evidence { seen, released, crashes, outages: &known.outages, lease };
        let drawn = rows::draw(call, &evidence);
        rows.push(rows::call_row(known, n, &drawn, &evidence));
        rows.extend(rows::step_rows(call, rows::depth(known, n) + 1, &drawn));
        holders.extend(holder(call, &evidence, &drawn, settings));
        interruptions.extend(drawn.interruptions);
    }
    let dark: Vec<_> = known.outages.iter().filter_map(|it| Outage::dark(it, known)).collect();
    for row in &mut rows {
        for outage in &dark {
            row.segments = outage.hide(&row.segments);
        }
        row.due = row.due.map(|due| due - started);
        for segment in &mut row.segments {
            segment.from -= started;
            segment.to = segment.to.map(|to| to - started);
        }
        row.segments
            .retain(|segment| segment.to != Some(segment.from) || segment.kind == Kind::Run);
    }
    for holder in &mut holders {
        holder.died = holder.died.map(|died| died - started);
        holder.expired = holder.expired.map(|expired| expired - started);
    }
    let options = known.options.named().into_iter();
    let options = options.filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    let found: Vec<_> = interruptions.iter().filter_map(Interruption::takeover).collect();
    View {
        id: &known.id,
        flow: known.flow.name,
        about: known.flow.about,
        options: options.collect::<Vec<_>>().join(" "),
        state,
        result: outcome.filter(|it| it.is_resolved()).map(|it| &it.result),
        error: outcome.and_then(|record| story::advice(known, record)),
        trace: &known.trace,
        started,
        ended: outcome.and_then(|record| record.settled).map(|at| at - started),
        complete: known.is_complete(),
        takeovers: found.len(),
        found,
        story: story::tell(known, &rows, &interruptions, started),
        marks: interruptions.iter().flat_map(|it| marks(&it.gap, started)).collect(),
        gone: gone(known, &rows, &interruptions, crashes, settings, started),
        rows,
        holders,
    }
}

impl View<'_> {
    /// Whether a run of it ended in the middle of its work.
    pub fn is_interrupted(&self) -> bool {
        !self.marks.is_empty()
    }
}

fn marks(gap: &Gap, started: i64) -> impl Iterator<Item = Mark> {
    let dead = &gap.dead.instance;
    let end = match gap.why {
        Why::Button => Some(("death", format!("{dead} crashed"))),
        Why::Expired => Some(("death", format!("last sign of {dead}"))),
        Why::Released => Some(("stop", format!("{dead} stopped"))),
        // Perhaps it lives.
        Why::Away => None,
    };
    let end = end.map(|(kind, text)| Mark { at: gap.from - started, kind, text });
    let next = gap.until.as_ref().map(|(at, _)| {
        let again = match gap.again {
            Some(Again::Restarted) => " (restarted)",
            Some(Again::Slow | Again::Unknown) => " (same name)",
            None => "",
        };
        let text = format!("takeover{again}");
        Mark { at: at - started, kind: "takeover", text }
    });
    end.into_iter().chain(next)
}

/// Who works on a call now, or should.
fn holder(call: &Call, evidence: &Evidence, drawn: &Drawn, settings: &Settings) -> Option<Holder> {
    if !call.record.as_ref().is_some_and(Record::is_pending) {
        return None;
    }
    let dead = drawn.interruptions.last().filter(|it| it.gap.until.is_none());
    let held = |seen: &&Seen| dead.is_none_or(|dead| seen.version == dead.gap.dead.version);
    let seen = match dead {
        Some(_) => call.seen.iter().rev().filter(held).find(|seen| seen.pid.is_some()),
        None => call.holder(),
    };
    let run = dead.map(|dead| dead.gap.dead.clone()).or_else(|| seen?.run())?;
    let pid = seen.and_then(|seen| seen.pid.as_deref()).unwrap_or(&run.instance);
    let running =
        call.checkpoints.iter().find(|point| point.record.as_ref().is_some_and(Record::is_pending));
    Some(Holder {
        function: call.function.name,
        group: call.function.group,
        held: Held::new(settings, call.function.group, node::server::Holder::of(pid)),
        version: run.version,
        lease: evidence.lease_of(run.version),
        step: running.map(|point| point.checkpoint.name()),
        died: dead.map(|dead| dead.gap.from),
        expired: dead.and_then(|dead| dead.gap.expired),
        stopped: dead.is_some_and(|dead| dead.gap.why == Why::Released),
    })
}
