//! What a run knows of the calls that it waits for.

use std::{collections::BTreeMap, time::SystemTime};

use futures_util::{FutureExt, future::select_all};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wire::{Promise, outcome::NotSuspended};

use super::Wait;

/// A longer history is not kept.
const LONGEST_HISTORY: usize = 64 << 10;

/// What a run knows of the calls that it waits for.
#[derive(Default)]
pub(crate) struct Calls {
    /// The promises of the run's branch, its steps, when it made its last call: a JSON array.
    history: String,
    history_is_too_long: bool,
    /// Those that a listener is registered for, by id.
    awaited: BTreeMap<String, Call>,
}

struct Call {
    promise: Promise<'static>,
    wait: Wait,
}

/// A record of a preload: as the server wrote it, or as this process read it.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Record<'a> {
    Text(&'a RawValue),
    Promise(&'a Promise<'static>),
}

impl Calls {
    /// Remembers the preload in the answer to a call.
    pub fn remember(&mut self, preload: &RawValue) {
        self.history.clear();
        self.history_is_too_long = preload.get().len() > LONGEST_HISTORY;
        if !self.history_is_too_long {
            self.history.push_str(preload.get());
        }
    }

    /// Whether enough is known to continue without the server's preload.
    pub fn are_known(&self) -> bool {
        !self.history_is_too_long
    }

    /// Whether a listener is registered for the promise `id`.
    pub fn has(&self, id: &str) -> bool {
        self.awaited.contains_key(id)
    }

    /// A listener is registered: the promise as it is now, and the wait for its settlement.
    pub fn add(&mut self, promise: Promise<'static>, wait: Wait) {
        self.awaited.insert(promise.id.to_string(), Call { promise, wait });
    }

    /// Whether one of the promises `ids` is settled, or can be before `end`: a timer cannot be
    /// settled before it is due.
    pub fn can_be_settled(&self, ids: &[String], end: SystemTime) -> bool {
        let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let mut promises = ids.iter().filter_map(|id| self.awaited.get(id));
        promises.any(|Call { promise, .. }| {
            !(promise.is_pending() && promise.is_timer() && promise.timeout_at > end)
        })
    }

    /// Waits until one of the promises `ids` is settled.
    pub async fn settled(&mut self, ids: &[String]) {
        let awaited = self.awaited.iter_mut().filter(|(id, _)| ids.contains(id));
        let waits = awaited.map(|(_, Call { promise, wait })| {
            async move {
                if promise.is_pending() {
                    *promise = wait.settled().await;
                }
            }
            .boxed()
        });
        select_all(waits).await;
    }

    /// Everything that is known, as the server tells it to a task that it does not suspend. A step
    /// that was pending may be settled by now, so it is left out: the SDK asks for what is missing.
    pub fn preload(&self) -> NotSuspended<Vec<Record<'_>>> {
        #[derive(Deserialize)]
        struct State<'a> {
            state: &'a str,
        }
        let history: Vec<&RawValue> = serde_json::from_str(&self.history).unwrap_or_default();
        let settled = history.into_iter().filter(|record| {
            serde_json::from_str(record.get()).is_ok_and(|State { state }| state != "pending")
        });
        let awaited = self.awaited.values().map(|call| Record::Promise(&call.promise));
        NotSuspended { preload: settled.map(Record::Text).chain(awaited).collect() }
    }
}
