//! What follows when a promise is settled.

use std::sync::Arc;

use serde_json::value::RawValue;
use wire::PromiseState;

use super::{
    promises::timed_out,
    state::{Core, Due, Id, Message},
};
use crate::json;

impl Core {
    /// Settles a promise, unless it is settled already.
    pub(super) fn settle(&mut self, now: i64, id: &str, state: PromiseState, value: Box<RawValue>) {
        if let Some(id) = self.close(now, id, state, Some(value), now) {
            self.wake(now, &id);
        }
    }

    /// Settles a promise as of its time-out. None: it was settled already.
    pub(super) fn expire(&mut self, now: i64, id: &str) -> Option<Id> {
        let promise = self.promises.get(id)?;
        let state = timed_out(promise.timer);
        self.close(now, id, state, None, promise.timeout_at)
    }

    /// The first half: the promise and its own task end.
    fn close(
        &mut self,
        now: i64,
        id: &str,
        state: PromiseState,
        value: Option<Box<RawValue>>,
        settled_at: i64,
    ) -> Option<Id> {
        let (id, _) = self.promises.get_key_value(id)?;
        let id = id.clone();
        let promise = self.promises.get_mut(&id)?;
        if !promise.is_pending() {
            return None;
        }
        promise.state = state;
        promise.value = value;
        promise.settled_at = Some(settled_at);
        self.timers.remove(&(promise.timeout_at, Due::Promise, id.clone()));
        self.end_task(&id);
        self.left_flow(now, &id);
        Some(id)
    }

    /// The second half: tasks that wait for the promise resume, and listeners are told.
    pub(super) fn wake(&mut self, now: i64, id: &Id) {
        let Some(promise) = self.promises.get_mut(id) else { return };
        let awaiters = std::mem::take(&mut promise.awaiters);
        let listeners = std::mem::take(&mut promise.listeners);
        if !listeners.is_empty() {
            let record: Arc<RawValue> = json::raw(&promise.record(id)).into();
            for address in listeners {
                self.out.push(Message::Unblock { promise: record.clone(), address });
            }
        }
        for awaiter in awaiters {
            if let Some(task) = self.task_mut(&awaiter) {
                task.waiting.remove(id);
                task.ready.insert(id.clone());
                self.resume(now, &awaiter);
            }
        }
    }
}
