//! Whether a step has run again after its result was stored.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;

use crate::{Line, Resonate};

/// How far the clocks may differ. A run starts a step only after the server has answered that it is
/// pending, and while that run holds the task nobody else can settle it: so each start precedes the
/// settlement, however slow the machine is. The times are those of the process's log and of the
/// server, which are on one machine; but servers count whole milliseconds, and the embedded one's
/// clock does not follow corrections of the wall clock.
const SKEW: Duration = Duration::from_millis(20);

/// How many promises are asked for at once.
const AT_ONCE: usize = 16;

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

    /// For each step of a promise, the versions of the runs that started it, in order.
    pub fn versions_below(&self, promise: &str) -> impl Iterator<Item = Vec<i64>> {
        let first = format!("{promise}.");
        let steps =
            self.0.range(first.clone()..).take_while(move |(step, _)| step.starts_with(&first));
        let own = promise.len() + 1;
        // Not those of its calls.
        let steps = steps.filter(move |(step, _)| !step[own..].contains('.'));
        steps.map(|(_, starts)| {
            let mut versions: Vec<_> = starts.iter().map(|start| start.version).collect();
            versions.sort_unstable();
            versions
        })
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
    for steps in starts.steps().collect::<Vec<_>>().chunks(AT_ONCE) {
        let settled = join_all(steps.iter().map(|step| settled_at(resonate, step))).await;
        for (step, settled) in steps.iter().zip(settled) {
            again.extend(settled.into_iter().flat_map(|settled| starts.after(step, settled)));
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Log;

    #[tokio::test]
    async fn a_start_after_the_settlement_is_found() {
        let event = |second| {
            let event = serde_json::json!({
                "timestamp": format!("2026-11-24T15:29:{second:02}.014167Z"),
                "message": "step started", "promise": "x.0.1",
                "span": {"name": "run", "promise": "x.0", "instance": "service-b", "version": 2},
            });
            format!("{event}\n")
        };
        let log = Log::new();
        log.collect(std::io::Cursor::new(event(23) + "3\n" + &event(26)));
        log.ended().await;
        let mut starts = Starts::default();
        assert_eq!(log.all(|line| starts.note(line)).len(), 2);
        assert_eq!((starts.steps().collect::<Vec<_>>(), starts.interrupted()), (vec!["x.0.1"], 1));
        let settled = |text| humantime::parse_rfc3339(text).unwrap();
        let again = starts.after("x.0.1", settled("2026-11-24T15:29:25Z"));
        let expected =
            "x.0.1 was stored, and started again 1.014167s later by service-b (version 2)";
        assert_eq!(again, [expected]);
        assert!(starts.after("x.0.1", settled("2026-11-24T15:29:26.001Z")).is_empty());
        assert!(starts.after("x.0.2", settled("2026-11-24T15:29:00Z")).is_empty());
    }
}
