//! What happened in a flow, in sentences.

use flows::{Caller, Checkpoint};
use serde::Serialize;
use wire::PromiseState;

use super::{
    attempts::{Kind, Why},
    known::{Call, Known, Point},
    record::Record,
    rows::{Interruption, Row},
};

/// The story keeps the end: a flow can be taken over hundreds of times.
const MOST_LINES: usize = 40;

/// One thing that happened.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Milliseconds since the flow's start.
    pub at: i64,
    /// Whether that is good: `ok`, `bad`, or nothing.
    pub tone: &'static str,
    pub text: String,
}

/// Tells what happened, in order.
pub fn tell(
    known: &Known,
    rows: &[Row],
    interruptions: &[Interruption],
    started: i64,
) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut say = |at: i64, tone, text| lines.push(Line { at: at - started, tone, text });
    for (n, call) in known.calls.iter().enumerate() {
        let Some(record) = &call.record else { continue };
        let row = rows.iter().find(|row| row.id == call.id);
        let run = row.and_then(|row| row.segments.iter().find(|it| it.kind == Kind::Run));
        if let Some(who) = run.and_then(|run| run.who.as_ref()) {
            let name = call.function.name;
            let text = match call.function.caller {
                Caller::Detaches(caller) => {
                    let caller = known.calls[caller].function.name;
                    format!("{caller} started {name} and does not wait; it runs on {who}")
                }
                Caller::Awaits(_) | Caller::Gateway => {
                    let called: Vec<_> =
                        known.awaited_calls(n).map(|it| it.function.name).collect();
                    let waits = row.and_then(|row| row.segments.last());
                    let waits = waits.is_some_and(|it| it.kind == Kind::Wait);
                    match waits && call.checkpoints.is_empty() && !called.is_empty() {
                        true => format!(
                            "{name} started on {who}; it waits for {}",
                            called.join(" and ")
                        ),
                        false => format!("{name} started on {who}"),
                    }
                }
            };
            // Stable sorting keeps it before whatever else happened in that millisecond.
            say(record.created, "", text);
        }
        for Point { checkpoint, record } in &call.checkpoints {
            if let (Some(record), Checkpoint::Sleep(_)) = (record, checkpoint) {
                let name = call.function.name;
                say(record.created, "", format!("{name} sleeps; no process holds it meanwhile"));
            }
            if let Some(record) = record.as_ref().filter(|record| record.failures > 0)
                && let Some(settled) = record.settled
            {
                say(settled, "", retries(call, record));
            }
        }
    }
    for it in interruptions {
        interruption(it, &mut say);
    }
    if let Some(outcome) = known.outcome() {
        let end = outcome.settled.unwrap_or(started);
        match outcome.state {
            PromiseState::Resolved if outcome.result.is_null() => {
                say(end, "ok", "The flow is done".to_owned());
            }
            PromiseState::Resolved => say(end, "ok", format!("The answer is {}", outcome.result)),
            PromiseState::RejectedTimedout => say(end, "bad", "The flow timed out".to_owned()),
            PromiseState::RejectedCanceled => say(end, "bad", "The flow was canceled".to_owned()),
            PromiseState::Rejected | PromiseState::Pending => {
                say(end, "bad", "The flow failed".to_owned());
            }
        }
    }
    lines.sort_by_key(|line| line.at);
    lines.split_off(lines.len().saturating_sub(MOST_LINES))
}

fn retries(call: &Call, record: &Record) -> String {
    let (name, failures) = (call.function.name, record.failures);
    let attempts =
        if failures == 1 { "attempt".to_owned() } else { format!("{failures} attempts") };
    match record.is_resolved() {
        true if failures == 1 => format!("{name} failed once; attempt 2 worked"),
        true => format!("{name} failed {failures} times; attempt {} worked", failures + 1),
        false => format!("{name} failed: no attempt is left after {attempts}"),
    }
}

fn interruption(
    Interruption { call, step, gap }: &Interruption,
    say: &mut impl FnMut(i64, &'static str, String),
) {
    let name = step_name(call, *step);
    let dead = &gap.dead.instance;
    let end = match gap.why {
        Why::Button => format!("{dead} was crashed in {name}"),
        Why::Expired => format!("Last sign of life of {dead}, in {name}"),
        Why::Released => format!("{dead} was stopped in {name}, and gave its work back"),
    };
    say(gap.from, if gap.why == Why::Released { "" } else { "bad" }, end);
    let Some((at, next)) = &gap.until else {
        if let (Some(expired), true) = (gap.expired, gap.why != Why::Released) {
            say(
                expired,
                "bad",
                format!("The lease of {dead} ran out; the work waits for another process"),
            );
        }
        return;
    };
    let stored = match (step, call.checkpoints[*step].checkpoint) {
        (0, _) => String::new(),
        (1, Checkpoint::Work { .. }) => "; step 1 is stored and did not run again".to_owned(),
        (steps, Checkpoint::Work { .. }) => {
            format!("; steps 1 to {steps} are stored and did not run again")
        }
        _ => "; what came before it is stored and did not run again".to_owned(),
    };
    let lease = if gap.why == Why::Released { "" } else { "Its lease ran out. " };
    say(*at, "ok", format!("{lease}{} took over with {name}{stored}", next.instance));
}

/// `step 4 of 6`, or the name of a step that is not one of several.
fn step_name(call: &Call, step: usize) -> String {
    match call.checkpoints[step].checkpoint {
        Checkpoint::Work { number, total } => format!("step {number} of {total}"),
        other => format!("step {:?}", other.name()),
    }
}

/// What went wrong, and what to do.
pub fn advice(known: &Known, outcome: &Record) -> Option<String> {
    let route = known.flow.route();
    let again =
        format!("This result is final: start again with another id, for example POST {route}?id=…");
    match outcome.state {
        PromiseState::Pending | PromiseState::Resolved => None,
        PromiseState::Rejected => {
            let error = outcome.error.as_deref().unwrap_or("unknown error");
            Some(format!("{} failed: {error}. {again}", known.flow.name))
        }
        PromiseState::RejectedTimedout => Some(format!(
            "{} timed out: it may take so long and no longer. {again}",
            known.flow.name
        )),
        PromiseState::RejectedCanceled => {
            Some(format!("{} was canceled. {again}", known.flow.name))
        }
    }
}
