//! Whether a step has run again after its result was stored.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{Line, Resonate};

/// How far the clocks may differ. A run starts a step only after the server has answered that it is
/// pending, and while that run holds the task nobody else can settle it: so each start precedes the
/// settlement, however slow the machine is. The times are those of the process's log and of the
/// server, which are on one machine; but servers count whole milliseconds, and the embedded one's
/// clock does not follow corrections of the wall clock.
const SKEW: Duration = Duration::from_millis(20);

/// The starts of steps, from the log.
#[derive(Default)]
pub struct Starts(BTreeMap<String, Vec<Start>>);

/// A start of a step.
struct Start {
    time: SystemTime,
    instance: String,
    version: i64,
}

impl Starts {
    /// Notes a line of the log, if it is the start of a step. Returns whether it is.
    pub fn note(&mut self, line: &Line) -> bool {
        let (true, Some(promise), Some(time)) =
            (line.says("step started"), line.field("promise"), line.time())
        else {
            return false;
        };
        let start = Start { time, instance: line.instance().to_owned(), version: line.version() };
        self.0.entry(promise.to_owned()).or_default().push(start);
        true
    }

    /// The steps that have started.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How many steps were interrupted and started again.
    pub fn interrupted(&self) -> usize {
        self.0.values().filter(|starts| starts.len() > 1).count()
    }

    /// Those starts of `step` that came after `settled`, for a person.
    pub fn after(&self, step: &str, settled: SystemTime) -> Vec<String> {
        let starts = self.0.get(step).into_iter().flatten();
        let late = |start: &Start| start.time.duration_since(settled + SKEW).ok();
        starts
            .filter_map(|start| {
                let (Start { instance, version, .. }, late) = (start, late(start)? + SKEW);
                let text = "was stored, and started again";
                Some(format!("{step} {text} {late:?} later by {instance} (version {version})"))
            })
            .collect()
    }
}

/// When the server settled a promise; `None` if it is pending or unknown.
pub async fn settled_at(resonate: &Resonate, promise: &str) -> Option<SystemTime> {
    let settled = resonate.promise(promise).await["settledAt"].as_u64()?;
    Some(UNIX_EPOCH + Duration::from_millis(settled))
}

/// The starts of steps after their settlement, for a person.
pub async fn run_again(starts: &Starts, resonate: &Resonate) -> Vec<String> {
    let mut again = Vec::new();
    for step in starts.steps() {
        if let Some(settled) = settled_at(resonate, step).await {
            again.extend(starts.after(step, settled));
        }
    }
    again
}
