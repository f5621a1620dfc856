//! Callbacks, by which tasks wait for promises, and listeners, by which processes do.

use wire::{Address, outcome::OnePromise};

use super::state::{Core, Id};
use crate::reply::Reply;

impl Core {
    pub(super) fn register_callback(&mut self, now: i64, awaited: &str, awaiter: &str) -> Reply {
        let Some((awaited, promise)) = self.promises.get_key_value(awaited) else {
            return Reply::refuse(404, "Awaited promise not found");
        };
        let awaited = awaited.clone();
        let awaited_pending = promise.is_pending();
        let Some((awaiter, promise)) = self.promises.get_key_value(awaiter) else {
            return Reply::refuse(422, "Awaiter promise not found");
        };
        let awaiter = awaiter.clone();
        let awaiter_pending = promise.is_pending();
        if promise.task.is_none() {
            return Reply::refuse(422, "Awaiter promise has no resonate:target tag");
        }
        if awaited_pending && awaiter_pending {
            self.wait(&awaited, &awaiter);
        } else if awaiter_pending {
            self.resume(now, &awaiter);
            if let Some(task) = self.task_mut(&awaiter) {
                task.ready.insert(awaited.clone());
            }
        }
        self.promise_get(&awaited)
    }

    /// Records that the task of `awaiter` waits for `awaited`, which is pending.
    pub(super) fn wait(&mut self, awaited: &Id, awaiter: &Id) {
        if let Some(promise) = self.promises.get_mut(awaited) {
            promise.awaiters.insert(awaiter.clone());
        }
        if let Some(task) = self.task_mut(awaiter) {
            task.waiting.insert(awaited.clone());
        }
    }

    pub(super) fn register_listener(&mut self, awaited: &str, address: Address) -> Reply {
        match self.promises.get_mut(awaited) {
            Some(promise) => {
                if promise.is_pending() && !promise.listeners.contains(&address) {
                    promise.listeners.push(address);
                }
                Reply::ok(&OnePromise { promise: promise.record(awaited) })
            }
            None => Reply::refuse(404, "Awaited promise not found"),
        }
    }
}
