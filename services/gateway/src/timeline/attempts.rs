//! Who ran a step or function when, and where nobody did.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    outage::Outage,
    record::{Crash, Record, Run, Seen},
};

/// What went on for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    pub kind: Kind,
    /// The instance that ran it, or lost it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    pub from: i64,
    /// None: it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<i64>,
}

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A process runs it.
    Run,
    /// A process runs a step again whose attempts fail.
    Retry,
    /// Nobody runs it: the lease of a process that the crash button killed runs out.
    Lost,
    /// Not known whether it is still run: the lease of a process runs out after its last sign of life.
    Silent,
    /// It waits for other functions.
    Wait,
    /// It waits for a durable timer.
    Sleep,
    /// It waits for a process.
    Queue,
    /// Runs that nobody saw, and waits between them.
    Unknown,
    /// Nobody knows: the gateway could not reach the server.
    Away,
}

/// How long after the end of a lease another run usually begins, at most. If nobody saw how a run ended,
/// this is also how long it can have lived after its last sign: a step of work takes a second.
pub const SOON: i64 = 1_500;

/// A shorter wait is not drawn: the next look of a watcher can be this late.
pub const SHORT: i64 = 250;

/// Who looks less often than this does not see when a lease expires.
const WATCHED: i64 = 2_500;

/// A run that ended in the middle of its work, and the one that went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub dead: Run,
    /// Its last sign of life.
    pub from: i64,
    pub why: Why,
    /// How long its lease was.
    pub lease: i64,
    /// When its lease was seen to be over, if that was seen.
    pub expired: Option<i64>,
    /// Whether somebody watched, and so knows when it expired.
    pub watched: bool,
    /// When the next run began. None: there is none yet.
    pub until: Option<(i64, Run)>,
    /// How many runs there were before the next one of which nothing else is known.
    pub unseen: i64,
    /// Whether the next run is of a process whose name had died in this function before.
    pub again: Option<Again>,
}

/// A process that took over, and has the name of one that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It is another process: the dead one was restarted.
    Restarted,
    /// It is the process that lost the lease: it had only been slow.
    Slow,
    /// One of the two.
    Unknown,
}

impl Gap {
    /// When the lease of the dead run was over, if that is known or there was a wait after it; and whether
    /// the time is exact.
    pub fn over(&self) -> Option<(i64, bool)> {
        if self.why == Why::Released {
            return None;
        }
        let until = self.until.as_ref().map_or(i64::MAX, |(at, _)| *at);
        if let Some(expired) = self.expired {
            return Some((expired.min(until), self.watched));
        }
        let waited = self.until.is_some() && until - self.from > self.lease + SOON;
        waited.then_some((self.from + self.lease, false))
    }

    /// The time in which the lease ran out, and the time after it in which no process had the work.
    fn split(&self, lost: Segment) -> Vec<Segment> {
        match self.over() {
            Some((at, _)) if lost.to.is_none_or(|to| to - at >= SHORT) => {
                let kind = if self.unseen > 0 { Kind::Unknown } else { Kind::Queue };
                let waits = Segment { kind, who: None, from: at, to: lost.to };
                vec![Segment { to: Some(at), ..lost }, waits]
            }
            _ => vec![lost],
        }
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The crash button killed its process.
    Button,
    /// Its process was told to stop, and gave the task back.
    Released,
    /// Its lease expired.
    Expired,
    /// The same, but the gateway could not reach the server meanwhile: perhaps the process could not either.
    Away,
}

/// What is known about the runs of one task.
pub struct Evidence<'a> {
    /// The states of the task, oldest first.
    pub seen: &'a [Seen],
    /// For each run: whether it was released.
    pub released: &'a BTreeMap<i64, bool>,
    /// The processes that the crash button killed.
    pub crashes: &'a [Crash],
    /// When the gateway could not reach the server.
    pub outages: &'a [Outage],
    /// How long a lease is that was not seen, in milliseconds.
    pub lease: i64,
}

/// The moment `at`, or the nearest one between the two. The end is before the begin if the server was started
/// again with a clock that is behind.
fn between(at: i64, from: i64, to: i64) -> i64 {
    at.min(to).max(from)
}

/// A step in its making.
struct Attempts<'a> {
    evidence: &'a Evidence<'a>,
    kind: Kind,
    run: Run,
    from: i64,
    segments: Vec<Segment>,
    gaps: Vec<Gap>,
}

impl Evidence<'_> {
    /// Who ran a step. None: nothing tells.
    pub fn of_step(&self, step: &Record, kind: Kind) -> Option<(Vec<Segment>, Vec<Gap>)> {
        let run = step.creator.clone()?;
        Some(self.of_work(run, step.created, step, kind))
    }

    /// Who ran a step or function that `run` began at `from`, until it was settled.
    pub fn of_work(
        &self,
        run: Run,
        from: i64,
        record: &Record,
        kind: Kind,
    ) -> (Vec<Segment>, Vec<Gap>) {
        let end = record.settled.unwrap_or(i64::MAX);
        let (segments, gaps) = (Vec::new(), Vec::new());
        let mut attempts = Attempts { evidence: self, kind, run, from, segments, gaps };
        for seen in self.seen.iter().filter(|seen| (from..=end).contains(&seen.at)) {
            attempts.crashed_before(seen.at);
            match seen.run() {
                Some(next) if next.version > attempts.run.version => {
                    attempts.taken_over(seen.at, next);
                }
                _ if seen.is_lost() && seen.version == attempts.run.version => {
                    attempts.lost(seen);
                }
                _ => {}
            }
        }
        attempts.crashed_before(end);
        if let Some(settler) = record.settler.clone().filter(|_| record.settled.is_some()) {
            let begun = between(record.begun.unwrap_or(end), from, end);
            if settler.version > attempts.run.version {
                attempts.taken_over(begun, settler);
            } else if let Some(Gap { until: Some((at, _)), .. }) = attempts.gaps.last_mut() {
                // The run itself knows better than the watcher when it began.
                *at = begun.max(attempts.segments.last().map_or(from, |lost| lost.from));
                attempts.from = *at;
                if let Some(lost) = attempts.segments.last_mut() {
                    lost.to = Some(attempts.from);
                }
            }
        }
        attempts.end(record.settled)
    }

    /// The lease of the run `version`, in milliseconds.
    pub fn lease_of(&self, version: i64) -> i64 {
        let of_run = self.seen.iter().filter(|seen| seen.version == version && seen.lease > 0);
        of_run.map(|seen| seen.lease).max().unwrap_or(self.lease)
    }

    /// Since when the gateway could not reach the server, if that was so between these moments.
    fn away(&self, from: i64, to: i64) -> Option<i64> {
        let outage = self.outages.iter().find(|it| it.touches(from, to));
        outage.map(|it| it.from.min(to))
    }

    /// The process of the run `version`, which is another one after a restart.
    fn process_of(&self, version: i64) -> Option<&str> {
        let mut of_run = self.seen.iter().filter(|seen| seen.version == version);
        of_run.find_map(|seen| seen.pid.as_deref())
    }

    /// Whether the run after `gap` is of a process whose name has died: in it, or in one of those before.
    pub fn again(&self, gap: &Gap, before: &[&Gap]) -> Option<Again> {
        let (_, next) = gap.until.as_ref()?;
        let of_name = |dead: &&Gap| dead.dead.instance == next.instance;
        let itself = of_name(&gap) && matches!(gap.why, Why::Expired | Why::Away);
        let dead = std::iter::once(gap).chain(before.iter().rev().copied()).find(of_name)?;
        match (self.process_of(dead.dead.version), self.process_of(next.version)) {
            _ if dead.why == Why::Button => Some(Again::Restarted),
            (Some(dead), Some(next)) if dead != next => Some(Again::Restarted),
            (Some(_), Some(_)) => itself.then_some(Again::Slow),
            _ => itself.then_some(Again::Unknown),
        }
    }

    /// When a process went on with a function whose wait had ended at `ended` and that showed its next sign
    /// at `sign`. It does nothing before that, too.
    pub fn resumed(&self, ended: i64, sign: i64) -> i64 {
        let run = self.seen.iter().find(|seen| seen.at > ended && seen.run().is_some());
        let at = run.map_or(sign, |run| between(run.at, ended, sign));
        if at - ended >= SHORT { at } else { ended }
    }

    /// When a process took the function that was called at `called` and showed its first sign at `sign`:
    /// its first step, call or result. A function does nothing before, so it has waited for its process;
    /// but a short wait is not told from the way of a message.
    pub fn taken(&self, called: i64, sign: i64) -> i64 {
        let is_taken = |seen: &&Seen| seen.version > 0;
        let at = match (self.seen.first(), self.seen.iter().find(is_taken)) {
            // Whoever watches from the start sees it sooner.
            (Some(first), Some(taken)) if first.version == 0 => between(taken.at, called, sign),
            (Some(first), Some(_)) if first.at <= sign => called,
            _ => sign,
        };
        if at - called >= SHORT { at } else { called }
    }
}

impl Attempts<'_> {
    fn is_lost(&self) -> bool {
        self.gaps.last().is_some_and(|gap| gap.until.is_none())
    }

    /// The crash button has killed the process that runs it, before `end`.
    fn crashed_before(&mut self, end: i64) {
        let hit = |crash: &&Crash| {
            crash.instance == self.run.instance && (self.from..end).contains(&crash.at)
        };
        if let Some(at) = self.evidence.crashes.iter().find(hit).map(|crash| crash.at)
            && !self.is_lost()
        {
            self.lose(at, Why::Button, None);
        }
    }

    /// The task has lost its run.
    fn lost(&mut self, seen: &Seen) {
        let lease = self.evidence.lease_of(seen.version);
        let watched = seen.before.is_some_and(|before| seen.at - before <= WATCHED);
        if self.is_lost() {
            if let Some(gap) = self.gaps.last_mut() {
                let over = if watched { seen.at } else { seen.at.min(gap.from + lease) };
                gap.expired.get_or_insert(over);
            }
            return;
        }
        match self.evidence.released.get(&seen.version) {
            Some(true) => self.lose(seen.at, Why::Released, Some(seen.at)),
            // The last heartbeat was a lease before.
            _ => {
                let held = if watched { Some(seen.at) } else { seen.before };
                let last = held.map_or(self.from, |held| held - lease).max(self.from);
                let (at, why) = match self.evidence.away(last, seen.at) {
                    Some(since) => (since.max(self.from), Why::Away),
                    None => (last, Why::Expired),
                };
                self.lose(at, why, Some(seen.at));
                if let Some(gap) = self.gaps.last_mut() {
                    // During an outage, nobody can watch.
                    gap.watched = watched || why == Why::Away;
                }
            }
        }
    }

    fn lose(&mut self, at: i64, why: Why, expired: Option<i64>) {
        // If only the start of a run is known, nothing shows that it worked.
        if at > self.from || !matches!(why, Why::Expired | Why::Away) {
            self.segments.push(self.running(Some(at)));
        }
        let dead = self.run.clone();
        self.segments.push(Segment {
            kind: match why {
                Why::Button => Kind::Lost,
                Why::Released => Kind::Queue,
                Why::Expired | Why::Away => Kind::Silent,
            },
            who: Some(dead.instance.clone()),
            from: at,
            to: None,
        });
        let lease = self.evidence.lease_of(dead.version);
        let (watched, until, unseen, again) = (true, None, 0, None);
        self.gaps.push(Gap { dead, from: at, why, lease, expired, watched, until, unseen, again });
    }

    /// Another run goes on.
    fn taken_over(&mut self, at: i64, next: Run) {
        if !self.is_lost() {
            let released = self.evidence.released.get(&self.run.version) == Some(&true);
            let lease = self.evidence.lease_of(self.run.version);
            let last = (at - lease - SOON).max(self.from);
            // Nothing tells of the run before but that it began.
            let (from, why) = match self.evidence.away(last, at) {
                _ if released => (self.from, Why::Released),
                Some(since) => (since.max(self.from), Why::Away),
                None => (self.from, Why::Expired),
            };
            self.lose(from, why, None);
        }
        if let Some(lost) = self.segments.last_mut() {
            lost.to = Some(at);
        }
        if let Some(gap) = self.gaps.last_mut() {
            gap.unseen = next.version - gap.dead.version - 1;
            gap.until = Some((at, next.clone()));
        }
        (self.run, self.from) = (next, at);
    }

    fn running(&self, to: Option<i64>) -> Segment {
        Segment { kind: self.kind, who: Some(self.run.instance.clone()), from: self.from, to }
    }

    fn end(mut self, settled: Option<i64>) -> (Vec<Segment>, Vec<Gap>) {
        if !self.is_lost() {
            self.segments.push(self.running(settled));
        } else if let Some(lost) = self.segments.last_mut() {
            lost.to = settled;
        }
        // Each gap has one segment.
        let mut gaps = self.gaps.iter();
        let split = |segment: Segment| match segment.kind {
            Kind::Lost | Kind::Silent | Kind::Queue => match gaps.next() {
                Some(gap) => gap.split(segment),
                None => vec![segment],
            },
            _ => vec![segment],
        };
        (self.segments.into_iter().flat_map(split).collect(), self.gaps)
    }
}
