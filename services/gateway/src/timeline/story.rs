//! What happened in a flow, in sentences.

use flows::{Caller, Checkpoint, Function};
use serde::Serialize;
use wire::PromiseState;

use super::{
    attempts::{Again, Kind, Why},
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
        if call.record.is_none() {
            continue;
        }
        if let Some(row) = rows.iter().find(|row| row.id == call.id) {
            beginning(known, n, row, started, &mut say);
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
    for outage in &known.outages {
        let gone = "From here on, the gateway could not reach the Resonate Server: \
            only what was stored is known";
        say(outage.from, "bad", gone.to_owned());
        say(outage.to, "ok", "The gateway reached the Resonate Server again".to_owned());
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

/// Who called a function, and which process took it.
fn beginning(
    known: &Known,
    n: usize,
    row: &Row,
    started: i64,
    say: &mut impl FnMut(i64, &'static str, String),
) {
    let Function { name, group, caller, .. } = *known.calls[n].function;
    let waited = row.segments.first().filter(|it| it.kind == Kind::Queue);
    let run = row.segments.iter().find(|it| it.kind == Kind::Run);
    let run = run.and_then(|run| Some((run.from + started, run.who.as_ref()?)));
    let detached = match caller {
        Caller::Detaches(caller) => Some(known.calls[caller].function.name),
        Caller::Awaits(_) | Caller::Gateway => None,
    };
    if let Some(waited) = waited {
        let by = match detached {
            Some(caller) => format!("{caller} started {name} and does not wait"),
            None => format!("{name} was called"),
        };
        let waits = format!("{by}; it waits for a process of group {group}");
        say(waited.from + started, "", waits);
    }
    let Some((at, who)) = run else { return };
    let text = match detached.filter(|_| waited.is_none()) {
        Some(caller) => format!("{caller} started {name} and does not wait; it runs on {who}"),
        None => format!("{name} started on {who}"),
    };
    // A function with steps makes its calls after them.
    let has_steps = !known.calls[n].checkpoints.is_empty();
    let called = known.awaited_calls(n).filter(|it| it.record.is_some() && !has_steps);
    let called: Vec<_> = called.map(|it| it.function.name).collect();
    let more = if called.is_empty() {
        String::new()
    } else {
        format!(" and called {}", called.join(" and "))
    };
    // Stable sorting keeps it before whatever else happened in that millisecond.
    say(at, "", text + &more);
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
    let (name, group) = (step_name(call, *step), call.function.group);
    let dead = &gap.dead.instance;
    match gap.why {
        Why::Button => say(gap.from, "bad", format!("{dead} was crashed in {name}")),
        Why::Expired => {
            let unknown = "not known whether it still worked";
            say(gap.from, "bad", format!("Last sign of life of {dead}, in {name}; {unknown}"));
        }
        Why::Released => {
            say(gap.from, "", format!("{dead} was stopped in {name}, and gave its work back"));
        }
        // The outage has its own lines.
        Why::Away => {}
    }
    let over = gap.over().filter(|(_, exact)| *exact || gap.why != Why::Away);
    let unrenewed = match gap.why {
        Why::Away => " was not renewed while the server was unreachable, and",
        _ => "",
    };
    if let Some((at, exact)) = over {
        let ran_out = match (exact, gap.expired) {
            (true, _) => "ran out",
            (false, Some(_)) => "had run out by then",
            (false, None) => "ran out at about this time",
        };
        let may = format!("a process of group {group} may take over");
        say(at, "bad", format!("The lease of {dead}{unrenewed} {ran_out}: {may}"));
    }
    let Some((at, next)) = &gap.until else { return };
    let stored = match (step, call.checkpoints[*step].checkpoint) {
        (0, _) => String::new(),
        (1, Checkpoint::Work { .. }) => "; step 1 is stored and did not run again".to_owned(),
        (steps, Checkpoint::Work { .. }) => {
            format!("; steps 1 to {steps} are stored and did not run again")
        }
        _ => "; what came before it is stored and did not run again".to_owned(),
    };
    // Nobody saw when it ran out, but it did before this.
    let lease = match gap.why {
        Why::Away if over.is_none() => format!("The lease of {dead}{unrenewed} ran out. "),
        Why::Button | Why::Expired if over.is_none() => "Its lease ran out. ".to_owned(),
        _ => String::new(),
    };
    let next = &next.instance;
    let took = match gap.again {
        None => format!("{next} took over"),
        Some(Again::Slow) if gap.why == Why::Away => {
            format!("{next}, still the same process, went on")
        }
        Some(Again::Unknown) if gap.why == Why::Away => {
            format!("{next}, restarted or still the same process, went on")
        }
        Some(Again::Restarted) => format!("{next} (restarted) took over"),
        Some(Again::Slow) => format!("{next} took over from itself, for it had only been slow,"),
        Some(Again::Unknown) => {
            format!("{next} took over from itself, restarted or after it had been slow,")
        }
    };
    let unseen = match gap.unseen {
        0 => String::new(),
        1 => ", after a run that nobody saw".to_owned(),
        runs => format!(", after {runs} runs that nobody saw"),
    };
    say(*at, "ok", format!("{lease}{took} with {name}{unseen}{stored}"));
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
            Some(format!("The flow failed: “{error}”. {again}"))
        }
        PromiseState::RejectedTimedout => {
            Some(format!("The flow timed out: it may take so long and no longer. {again}"))
        }
        PromiseState::RejectedCanceled => Some(format!("The flow was canceled. {again}")),
    }
}
