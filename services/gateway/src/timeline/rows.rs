//! The rows of the drawing, and the segments in them.

use flows::{Caller, Checkpoint};
use serde::Serialize;
use wire::{PromiseState, TaskState};

use super::{
    attempts::{Evidence, Gap, Kind, Segment, Why},
    known::{Call, Known, Point},
    record::{Record, Seen},
};
use crate::stats::Takeover;

/// A function with more steps than this shows those that are done, and those to come, in one row each.
const FEW_STEPS: usize = 12;

/// A line of the drawing.
#[derive(Debug, Serialize)]
pub struct Row {
    pub id: String,
    pub kind: &'static str,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<&'static str>,
    pub depth: usize,
    /// Its state in a word or two, and whether that is good.
    pub note: String,
    pub tone: &'static str,
    pub segments: Vec<Segment>,
    /// When a timer is over that still runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<i64>,
}

/// A run that ended in the middle of its work.
pub struct Interruption<'a> {
    pub call: &'a Call,
    /// Its place among the function's checkpoints.
    pub step: usize,
    pub gap: Gap,
}

impl Interruption<'_> {
    /// The takeover after it, if there was one.
    pub fn takeover(&self) -> Option<Takeover> {
        let (at, _) = self.gap.until.as_ref().filter(|_| self.gap.why != Why::Released)?;
        let lost = (self.call.id.clone(), self.gap.dead.version);
        Some(Takeover { lost, at: *at })
    }
}

/// What is drawn of one call.
pub struct Drawn<'a> {
    steps: Vec<(Vec<Segment>, bool)>,
    pub interruptions: Vec<Interruption<'a>>,
}

pub fn draw<'a>(call: &'a Call, evidence: &Evidence) -> Drawn<'a> {
    let (mut steps, mut interruptions) = (Vec::new(), Vec::new());
    for (step, Point { checkpoint, record }) in call.checkpoints.iter().enumerate() {
        let Some(record) = record else {
            steps.push((Vec::new(), false));
            continue;
        };
        let kind = match checkpoint {
            Checkpoint::Sleep(_) => {
                let (from, to) = (record.created, record.settled);
                let who = record.creator.as_ref().map(|run| run.instance.clone());
                steps.push((vec![Segment { kind: Kind::Sleep, who, from, to }], false));
                continue;
            }
            // While it runs, nothing but the request tells that it fails.
            Checkpoint::Fail(failures) if *failures > 0 => Kind::Retry,
            Checkpoint::Fail(_) | Checkpoint::Work { .. } => Kind::Run,
        };
        let (segments, gaps) = evidence.of_step(record, kind).unwrap_or_else(|| {
            let segment = Segment { kind, who: None, from: record.created, to: record.settled };
            (vec![segment], Vec::new())
        });
        steps.push((segments, !gaps.is_empty()));
        interruptions.extend(gaps.into_iter().map(|gap| Interruption { call, step, gap }));
    }
    for n in 0..interruptions.len() {
        let (before, rest) = interruptions.split_at_mut(n);
        let before: Vec<_> = before.iter().map(|it: &Interruption| &it.gap).collect();
        rest[0].gap.again = evidence.again(&rest[0].gap, &before);
    }
    Drawn { steps, interruptions }
}

pub fn depth(known: &Known, n: usize) -> usize {
    match known.calls[n].function.caller {
        Caller::Gateway => 0,
        Caller::Awaits(caller) | Caller::Detaches(caller) => depth(known, caller) + 1,
    }
}

pub fn call_row(known: &Known, n: usize, drawn: &Drawn, evidence: &Evidence) -> Row {
    let call = &known.calls[n];
    let segments =
        call.record.as_ref().map(|record| call_segments(record, known, n, drawn, evidence));
    let segments = segments.unwrap_or_default();
    let (note, tone) = match &call.record {
        None if known.outcome().is_some() => ("not called".to_owned(), "later"),
        None => ("not called yet".to_owned(), "later"),
        Some(record) => match record.state {
            PromiseState::Pending => {
                let kind = segments.last().map(|segment| segment.kind);
                // A call that waits for another process after such a segment has lost one.
                let lost = |it: &Segment| matches!(it.kind, Kind::Lost | Kind::Silent);
                let lost = segments.iter().rev().take(2).any(lost)
                    && matches!(kind, Some(Kind::Lost | Kind::Silent | Kind::Queue));
                (waiting(known, n, kind), if lost { "bad" } else { "now" })
            }
            PromiseState::Resolved if record.result.is_number() => {
                (format!("✓ returned {}", record.result), "ok")
            }
            PromiseState::Resolved => ("✓ done".to_owned(), "ok"),
            PromiseState::Rejected => ("✗ failed".to_owned(), "bad"),
            PromiseState::RejectedCanceled => ("✗ canceled".to_owned(), "bad"),
            PromiseState::RejectedTimedout => ("✗ timed out".to_owned(), "bad"),
        },
    };
    Row {
        id: call.id.clone(),
        kind: if matches!(call.function.caller, Caller::Detaches(_)) { "detached" } else { "call" },
        name: call.function.name.to_owned(),
        group: Some(call.function.group),
        depth: depth(known, n),
        note,
        tone,
        segments,
        due: None,
    }
}

/// What a pending call does.
fn waiting(known: &Known, n: usize, kind: Option<Kind>) -> String {
    match kind {
        Some(Kind::Wait) => {
            let pending = known
                .awaited_calls(n)
                .filter(|call| call.record.as_ref().is_some_and(Record::is_pending));
            let names: Vec<_> = pending.map(|call| call.function.name).collect();
            if names.is_empty() {
                "waits".to_owned()
            } else {
                format!("waits for {}", names.join(", "))
            }
        }
        Some(Kind::Sleep) => "sleeps".to_owned(),
        Some(Kind::Lost) => "nobody runs it".to_owned(),
        Some(Kind::Silent | Kind::Away) => "not known whether it runs".to_owned(),
        Some(Kind::Queue) => "waits for a process".to_owned(),
        Some(Kind::Run | Kind::Retry | Kind::Unknown) | None => "runs".to_owned(),
    }
}

/// Everything that went on in a call: its steps, what it waited for, and the time between, which
/// belongs to the process that ran what is next to it.
fn call_segments(
    record: &Record,
    known: &Known,
    n: usize,
    drawn: &Drawn,
    evidence: &Evidence,
) -> Vec<Segment> {
    let mut pieces: Vec<Segment> =
        drawn.steps.iter().flat_map(|(segments, _)| segments.clone()).collect();
    pieces.extend(known.awaited(n).map(|it| Segment {
        kind: Kind::Wait,
        who: it.creator.as_ref().map(|run| run.instance.clone()),
        from: it.created,
        to: it.settled,
    }));
    pieces.sort_by_key(|piece| piece.from);
    let mut all: Vec<Segment> = Vec::new();
    let mut end = Some(record.created);
    for mut piece in pieces {
        // None: something before it goes on, so it adds nothing.
        let Some(at) = end else { break };
        if piece.from > at {
            let from = taken(record, at, piece.from, evidence, &mut all);
            let who = piece.who.clone().or_else(|| last_runner(&all));
            push(&mut all, Segment { kind: Kind::Run, who, from, to: Some(piece.from) });
        }
        piece.from = piece.from.max(at);
        if piece.to.is_some_and(|to| to <= piece.from) {
            continue;
        }
        end = piece.to;
        if matches!(piece.kind, Kind::Wait | Kind::Sleep) {
            piece.who = None;
        }
        push(&mut all, piece);
    }
    if let Some(at) = end {
        tail(record, at, evidence, &mut all);
    }
    all
}

/// The wait for a process after `from`: before the first sign of one, or after a wait for something else.
/// Returns its end.
fn taken(
    record: &Record,
    from: i64,
    sign: i64,
    evidence: &Evidence,
    all: &mut Vec<Segment>,
) -> i64 {
    let at = match all.last().map(|last| last.kind) {
        None => evidence.taken(record.created, sign),
        Some(Kind::Wait | Kind::Sleep) => evidence.resumed(from, sign),
        Some(_) => from,
    };
    if at > from {
        all.push(Segment { kind: Kind::Queue, who: None, from, to: Some(at) });
    }
    at
}

/// What went on after the last step or call, from `at` on.
fn tail(record: &Record, mut at: i64, evidence: &Evidence, all: &mut Vec<Segment>) {
    if let Some(settled) = record.settled {
        // It was canceled, and what it waited for a moment later.
        if let Some(last) = all.last_mut().filter(|_| settled < at) {
            last.to = Some(settled.max(last.from));
            return;
        }
        at = taken(record, at, settled, evidence, all);
        let who = record.settler.as_ref().map(|run| run.instance.clone());
        let who = who.or_else(|| last_runner(all));
        push(all, Segment { kind: Kind::Run, who, from: at, to: Some(settled) });
        return;
    }
    let kind = |seen: Option<&Seen>| match seen {
        Some(seen) => match seen.state {
            TaskState::Suspended | TaskState::Halted => Kind::Wait,
            TaskState::Pending if seen.is_lost() => Kind::Silent,
            TaskState::Pending => Kind::Queue,
            TaskState::Acquired | TaskState::Fulfilled => Kind::Run,
        },
        None => Kind::Queue,
    };
    let seen = evidence.seen.last();
    let who = seen.and_then(Seen::run).map(|run| run.instance);
    let kind = kind(seen);
    // A task whose wait has ended looks unchanged until the next look.
    let (kind, who) = match kind {
        Kind::Wait => (Kind::Queue, None),
        Kind::Run => (Kind::Run, who.or_else(|| last_runner(all))),
        _ => (kind, None),
    };
    if let Some(seen) = seen.filter(|_| kind == Kind::Silent) {
        // Its lease is over since then, and it waits.
        let released = evidence.released.get(&seen.version) == Some(&true);
        let lost = if released { Kind::Queue } else { Kind::Silent };
        let over = seen.at.max(at);
        push(all, Segment { kind: lost, who: last_runner(all), from: at, to: Some(over) });
        push(all, Segment { kind: Kind::Queue, who: None, from: over, to: None });
        return;
    }
    // It waited for a process if it was seen to.
    let mut before = evidence.seen.iter().rev().skip(1);
    let queued = before.next().is_some_and(|seen| seen.state == TaskState::Pending);
    let since = seen.filter(|_| queued).map_or(at, |seen| seen.at).max(at);
    if since > at && kind == Kind::Run {
        push(all, Segment { kind: Kind::Queue, who: None, from: at, to: Some(since) });
    }
    push(all, Segment { kind, who, from: if kind == Kind::Run { since } else { at }, to: None });
}

/// Appends a segment, or makes the last one longer if it is alike.
fn push(all: &mut Vec<Segment>, segment: Segment) {
    match all.last_mut() {
        Some(last) if last.kind == segment.kind && last.who == segment.who => last.to = segment.to,
        _ => all.push(segment),
    }
}

fn last_runner(all: &[Segment]) -> Option<String> {
    all.iter().rev().find(|segment| segment.kind == Kind::Run)?.who.clone()
}

pub fn step_rows(call: &Call, depth: usize, drawn: &Drawn) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let points = call.checkpoints.iter().zip(&drawn.steps).enumerate();
    let done = call
        .checkpoints
        .iter()
        .filter(|point| point.record.as_ref().is_some_and(|record| !record.is_pending()));
    let done = done.count();
    let folds = call.checkpoints.len() > FEW_STEPS;
    let ended = call.record.as_ref().is_some_and(|record| !record.is_pending());
    for (n, (point, (segments, interrupted))) in points {
        let work = matches!(point.checkpoint, Checkpoint::Work { .. });
        let (note, tone) = step_note(point, *interrupted, segments, ended);
        let row = Row {
            id: format!("{}.{n}", call.id),
            kind: if matches!(point.checkpoint, Checkpoint::Sleep(_)) { "timer" } else { "step" },
            name: point.checkpoint.name(),
            group: None,
            depth,
            note,
            tone,
            segments: segments.clone(),
            due: match (&point.record, point.checkpoint) {
                (Some(record), Checkpoint::Sleep(_)) if record.is_pending() => Some(record.due),
                _ => None,
            },
        };
        let fold = match tone {
            "ok" => n + 3 < done,
            "later" => n > done + 1,
            _ => false,
        };
        match rows.last_mut() {
            Some(last) if folds && fold && work && last.kind == "fold" && last.tone == tone => {
                last.id = row.id;
                let from = last.name.split(['–', '/']).next().unwrap_or_default().to_owned();
                let to = row.name.trim_start_matches("work ").split('/').next().unwrap_or_default();
                last.name = format!("{from}–{to}");
                row.segments.into_iter().for_each(|it| push(&mut last.segments, it));
            }
            _ if folds && fold && work => rows.push(Row { kind: "fold", ..row }),
            _ => rows.push(row),
        }
    }
    rows
}

fn step_note(
    point: &Point,
    interrupted: bool,
    segments: &[Segment],
    ended: bool,
) -> (String, &'static str) {
    let Some(record) = &point.record else {
        return (if ended { "not run" } else { "not yet" }.to_owned(), "later");
    };
    let kind = segments.last().map(|segment| segment.kind);
    match (record.state, &point.checkpoint) {
        (PromiseState::Pending, Checkpoint::Sleep(_)) => ("sleeps".to_owned(), "now"),
        (PromiseState::Resolved, Checkpoint::Sleep(_)) => ("✓ over".to_owned(), "ok"),
        (PromiseState::Pending, _)
            if matches!(kind, Some(Kind::Lost | Kind::Silent | Kind::Queue)) =>
        {
            ("interrupted".to_owned(), "bad")
        }
        (PromiseState::Pending, _) if interrupted => ("runs again".to_owned(), "again"),
        (PromiseState::Pending, Checkpoint::Fail(1..)) => ("fails, is retried".to_owned(), "now"),
        (PromiseState::Pending, _) => ("runs".to_owned(), "now"),
        (PromiseState::Resolved, _) if interrupted => ("✓ ran again".to_owned(), "again"),
        (PromiseState::Resolved, _) if record.failures > 0 => {
            (format!("✓ attempt {}", record.failures + 1), "ok")
        }
        (PromiseState::Resolved, _) => ("✓ stored".to_owned(), "ok"),
        (PromiseState::Rejected, _) if record.failures > 0 => {
            (format!("✗ {} attempts", record.failures), "bad")
        }
        (PromiseState::Rejected, _) => ("✗ failed".to_owned(), "bad"),
        (PromiseState::RejectedCanceled | PromiseState::RejectedTimedout, _) => {
            ("✗ ended".to_owned(), "bad")
        }
    }
}
