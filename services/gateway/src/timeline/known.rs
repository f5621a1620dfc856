//! What is known of a flow, and the requests that find out more.
//!
//! A settled promise is never asked for again. The ids of all others follow from the table of flows, so
//! a look at a flow that works costs two requests, however many steps it has: its task, and the step that
//! runs now.

use std::collections::{BTreeMap, BTreeSet};

use flows::{Answer, Caller, Checkpoint, Flow, Function, Options};
use futures_util::future::try_join_all;
use wire::{Promise, PromiseState, TaskState};

use super::{
    outage::Outage,
    record::{Record, Seen},
};
use crate::{
    client::{self, Client},
    trace_link::TraceLink,
};

/// How many steps are asked for at the same time, when many are new.
const AT_ONCE: usize = 32;

/// How many states of a task are kept.
const MOST_SEEN: usize = 64;

/// How many outages are kept.
const MOST_OUTAGES: usize = 16;

/// A flow.
pub struct Known {
    pub id: String,
    pub flow: &'static Flow,
    pub options: Options,
    pub trace: TraceLink,
    /// In the order of the table: the first is the flow's first promise.
    pub calls: Vec<Call>,
    /// When the gateway could not reach the server, oldest first.
    pub outages: Vec<Outage>,
}

/// An invocation.
pub struct Call {
    pub function: &'static Function,
    pub id: String,
    /// None: it has not been called yet.
    pub record: Option<Record>,
    pub checkpoints: Vec<Point>,
    /// The states of its task that were seen, oldest first.
    pub seen: Vec<Seen>,
    /// When its task was looked at last.
    looked: Option<i64>,
    /// For each run that may have lost its lease: whether it was released.
    pub released: BTreeMap<i64, bool>,
    /// Nothing of it can change any more; without a record: it was never called.
    complete: bool,
}

/// A step or a timer.
pub struct Point {
    pub checkpoint: Checkpoint,
    /// None: it has not begun yet.
    pub record: Option<Record>,
}

impl Call {
    /// The run that holds it now.
    pub fn holder(&self) -> Option<&Seen> {
        let is_pending = self.record.as_ref().is_some_and(Record::is_pending);
        self.seen.last().filter(|seen| is_pending && seen.state == TaskState::Acquired)
    }

    /// Whether its own steps are over, so that it calls other functions.
    fn calls_others(&self) -> bool {
        let settled = |point: &Point| point.record.as_ref().is_some_and(|it| !it.is_pending());
        self.record.is_some() && self.checkpoints.last().is_none_or(settled)
    }

    /// Notes what its task is now.
    pub fn see(&mut self, mut seen: Seen) {
        seen.before = self.looked.replace(seen.at);
        if self.seen.last().is_some_and(|last| last.is_still(&seen)) {
            return;
        }
        if self.seen.len() == MOST_SEEN {
            self.seen.remove(0);
        }
        self.seen.push(seen);
    }
}

impl Known {
    /// The flow that starts with `promise`, before anything else of it is known. None: it starts no flow.
    pub fn new(promise: &Promise, jaeger: Option<&str>) -> Option<Self> {
        let (flow, options) = client::flow_of(promise)?;
        let calls = flow.invocations(&promise.id, &options).into_iter().map(|it| Call {
            function: it.function,
            id: it.id,
            record: None,
            checkpoints: it
                .function
                .checkpoints(&options)
                .into_iter()
                .map(|checkpoint| Point { checkpoint, record: None })
                .collect(),
            seen: Vec::new(),
            looked: None,
            released: BTreeMap::new(),
            complete: false,
        });
        let mut known = Self {
            id: promise.id.to_string(),
            flow,
            options,
            trace: TraceLink::of(promise, jaeger),
            calls: calls.collect(),
            outages: Vec::new(),
        };
        known.calls[0].record = Some(Record::of(promise));
        Some(known)
    }

    /// Whether this is its first promise. Another flow may have got its id, if the server has lost it.
    pub fn starts_with(&self, promise: &Promise) -> bool {
        let first = self.calls[0].record.as_ref();
        first.is_some_and(|first| first.created == promise.created_at)
    }

    /// Notes that the gateway could not reach the server.
    pub fn was_away(&mut self, outage: Outage) {
        if self.outages.len() == MOST_OUTAGES {
            self.outages.remove(0);
        }
        self.outages.push(outage);
    }

    /// Asks for what can have changed. `now` gives the time of the server's clock.
    ///
    /// # Errors
    /// The server is unreachable or refuses. What was found out before is kept.
    pub async fn refresh(
        &mut self,
        client: &Client,
        now: impl Fn() -> i64,
    ) -> Result<(), client::Error> {
        let mut waiting = Vec::new();
        for n in 0..self.calls.len() {
            match self.waits_for_a_call(n) {
                true => waiting.push(n),
                false => self.look_at(n, client, &now).await?,
            }
        }
        // Those whose wait has ended just now; callers come before those they call.
        for n in waiting.into_iter().rev() {
            if !self.waits_for_a_call(n) {
                self.look_at(n, client, &now).await?;
            }
        }
        Ok(())
    }

    async fn look_at(
        &mut self,
        n: usize,
        client: &Client,
        now: &impl Fn() -> i64,
    ) -> Result<(), client::Error> {
        if self.calls[n].complete {
            return Ok(());
        }
        if self.calls[n].record.is_none() {
            let Some(caller) = self.caller(n) else { return Ok(()) };
            let (calls_others, was_complete) = (caller.calls_others(), caller.complete);
            if calls_others {
                self.calls[n].record = record(client, &self.calls[n].id).await?;
            }
            if self.calls[n].record.is_none() {
                // It was asked for after its caller was over.
                self.calls[n].complete = was_complete;
                return Ok(());
            }
        }
        let call = &mut self.calls[n];
        look_at_task(call, client, now).await?;
        look_at_checkpoints(call, client).await?;
        look_for_releases(call, client).await?;
        // The checkpoints were asked for after the call was settled.
        call.complete = call.record.as_ref().is_some_and(|record| !record.is_pending());
        Ok(())
    }

    /// Who calls the call `n`, unless that is the gateway.
    fn caller(&self, n: usize) -> Option<&Call> {
        match self.calls[n].function.caller {
            Caller::Gateway => None,
            Caller::Awaits(caller) | Caller::Detaches(caller) => self.calls.get(caller),
        }
    }

    /// Whether the task of the call `n` is suspended, and what it awaits is pending: then it stays as it
    /// is.
    fn waits_for_a_call(&self, n: usize) -> bool {
        let suspended = |seen: &Seen| seen.state == TaskState::Suspended;
        self.calls[n].seen.last().is_some_and(suspended) && self.awaited(n).any(Record::is_pending)
    }

    /// The calls that the call `n` awaits, as far as they have been made.
    pub fn awaited(&self, n: usize) -> impl Iterator<Item = &Record> {
        self.awaited_calls(n).filter_map(|call| call.record.as_ref())
    }

    /// The same with their functions.
    pub fn awaited_calls(&self, n: usize) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.function.caller == Caller::Awaits(n))
    }

    /// The record whose state is the flow's, once the flow has ended: see `inspect`.
    pub fn outcome(&self) -> Option<&Record> {
        let records = || self.calls.iter().map(|call| call.record.as_ref());
        if let Answer::Result(_) = self.flow.answer {
            return records().next().flatten().filter(|record| !record.is_pending());
        }
        let failed = |record: &&Record| {
            !matches!(record.state, PromiseState::Pending | PromiseState::Resolved)
        };
        let done = records().all(|record| record.is_some_and(Record::is_resolved));
        records()
            .flatten()
            .find(failed)
            .or_else(|| records().next_back().flatten().filter(|_| done))
    }

    /// Whether nothing can change any more.
    pub fn is_complete(&self) -> bool {
        self.calls.iter().all(|call| call.complete)
    }

    /// The latest time that is known of the server's clock.
    pub fn latest(&self) -> i64 {
        let points = |call: &'_ Call| {
            let running = call.checkpoints.iter().filter_map(|point| point.record.as_ref()).rev();
            let times =
                running.take(2).chain(&call.record).map(|it| it.settled.unwrap_or(it.created));
            times.max().unwrap_or_default()
        };
        self.calls.iter().map(points).max().unwrap_or_default()
    }
}

async fn record(client: &Client, id: &str) -> Result<Option<Record>, client::Error> {
    Ok(client.get(id).await?.map(|promise| Record::of(&promise)))
}

/// Looks at the task of a call, and at its promise once the task is over.
async fn look_at_task(
    call: &mut Call,
    client: &Client,
    now: &impl Fn() -> i64,
) -> Result<(), client::Error> {
    if !call.record.as_ref().is_some_and(Record::is_pending) {
        return Ok(());
    }
    let seen = client.task(&call.id, |task| Seen::of(task, now())).await?;
    match seen {
        Some(seen) if seen.state != TaskState::Fulfilled => call.see(seen),
        _ => call.record = record(client, &call.id).await?,
    }
    Ok(())
}

/// Looks at the checkpoint that is pending, or can come next, and at those after it if it is settled.
async fn look_at_checkpoints(call: &mut Call, client: &Client) -> Result<(), client::Error> {
    let settled = |point: &Point| point.record.as_ref().is_some_and(|it| !it.is_pending());
    let mut next = call.checkpoints.partition_point(settled);
    let mut size = 1;
    while next < call.checkpoints.len() {
        let end = call.checkpoints.len().min(next + size);
        let ids: Vec<_> = (next..end).map(|n| format!("{}.{n}", call.id)).collect();
        let found = try_join_all(ids.iter().map(|id| record(client, id))).await?;
        let mut is_last = false;
        for (point, found) in call.checkpoints[next..].iter_mut().zip(found) {
            // They begin one after the other.
            is_last |= found.as_ref().is_none_or(Record::is_pending);
            point.record = found;
        }
        if is_last {
            break;
        }
        (next, size) = (end, AT_ONCE.min(size * 2));
    }
    Ok(())
}

/// For each run that did not end its step: asks whether it was released, by the mark that it left.
async fn look_for_releases(call: &mut Call, client: &Client) -> Result<(), client::Error> {
    let lost = call.seen.iter().filter(|seen| seen.is_lost()).map(|seen| seen.version);
    let interrupted = call.checkpoints.iter().filter_map(|point| point.record.as_ref());
    let interrupted = interrupted.filter_map(|record| {
        let (creator, settler) = (record.creator.as_ref()?, record.settler.as_ref()?);
        Some(settler.version - 1).filter(|version| *version >= creator.version)
    });
    let mut versions: BTreeSet<_> = lost.chain(interrupted).collect();
    versions.retain(|version| !call.released.contains_key(version));
    for version in versions {
        let mark = client.get(&resonate_otel::released_mark(&call.id, version)).await?;
        call.released.insert(version, mark.is_some());
    }
    Ok(())
}
