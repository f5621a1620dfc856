//! The processes that died, and how to start them again.

use serde::Serialize;

use super::{
    attempts::{Kind, Why},
    known::Known,
    record::{Crash, Run},
    rows::{Interruption, Row},
};
use crate::{Settings, held::Held};

/// A process that died, and that this flow has not seen alive since. Whether it is alive now is not known.
#[derive(Debug, Serialize)]
pub struct Gone {
    group: String,
    instance: String,
    /// Its last sign of life, in milliseconds since the flow's start. Negative: it died before.
    at: i64,
    /// The crash button killed it.
    crashed: bool,
    /// What to type to start it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
}

/// Those that died in this flow; and those that the crash button killed in other flows, if this one waits
/// for a process of their group.
pub fn gone(
    known: &Known,
    rows: &[Row],
    interruptions: &[Interruption],
    crashes: &[Crash],
    settings: &Settings,
    started: i64,
) -> Vec<Gone> {
    let mut all = Vec::new();
    let is_open =
        |row: &Row| row.segments.last().is_some_and(|it| it.kind == Kind::Queue && it.to.is_none());
    let waits = |group: &str| rows.iter().any(|row| row.group == Some(group) && is_open(row));
    for Crash { group, instance, start, at } in crashes.iter().filter(|it| waits(&it.group)) {
        if !was_alive(known, group, instance, *at) {
            let (group, instance, start) = (group.clone(), instance.clone(), start.clone());
            all.push(Gone { group, instance, at: at - started, crashed: true, start });
        }
    }
    for Interruption { call, gap, .. } in
        interruptions.iter().filter(|it| matches!(it.gap.why, Why::Button | Why::Expired))
    {
        let (group, Run { instance, version }) = (call.function.group, &gap.dead);
        let until = gap.until.as_ref().map(|(at, _)| *at);
        // It was dead by then, or had been too slow.
        let by = gap.over().map(|(at, _)| at).or(until).unwrap_or(gap.from);
        if was_alive(known, group, instance, by) {
            continue;
        }
        let pid = call.seen.iter().filter(|seen| seen.version == *version);
        let pid = pid.filter_map(|seen| seen.pid.as_deref()).next().unwrap_or(instance);
        all.push(Gone {
            group: group.to_owned(),
            instance: instance.clone(),
            at: gap.from - started,
            crashed: gap.why == Why::Button,
            start: Held::new(settings, group, node::server::Holder::of(pid)).start,
        });
    }
    all.sort_by_key(|it| it.at);
    // The same death may be known twice, and a process may die twice.
    let later: Vec<_> = all.iter().map(|it| it.instance.clone()).collect();
    let mut place = 0;
    all.retain(|it| {
        place += 1;
        !later[place..].contains(&it.instance)
    });
    all
}

/// Whether a process of this name has done something in this flow at that time or later.
fn was_alive(known: &Known, group: &str, instance: &str, at: i64) -> bool {
    let did = |run: &Option<Run>, when: Option<i64>| {
        run.as_ref().is_some_and(|run| run.instance == instance) && when >= Some(at)
    };
    known.calls.iter().filter(|call| call.function.group == group).any(|call| {
        let steps = call.checkpoints.iter().filter_map(|point| point.record.as_ref());
        call.seen.iter().any(|seen| did(&seen.run(), Some(seen.at)))
            || call.record.as_ref().is_some_and(|it| did(&it.settler, it.settled))
            || steps
                .into_iter()
                .any(|it| did(&it.creator, Some(it.created)) || did(&it.settler, it.settled))
    })
}
