//! Promises: create, get, settle.

use std::collections::BTreeSet;

use wire::{PromiseState, TaskState, outcome::OnePromise};

use super::state::{Core, Due, Id, StoredPromise, StoredTask};
use crate::{
    operation::{NewPromise, Settlement},
    reply::Reply,
};

impl Core {
    pub(super) fn promise_get(&self, id: &str) -> Reply {
        match self.promises.get(id) {
            Some(promise) => Reply::ok(&OnePromise { promise: promise.record(id) }),
            None => Reply::refuse(404, "Promise not found"),
        }
    }

    pub(super) fn promise_create(&mut self, now: i64, promise: NewPromise) -> Reply {
        let id = promise.id.clone();
        if !self.promises.contains_key(&id) && self.insert(now, promise) {
            self.announce(now, &id);
        }
        self.promise_get(&id)
    }

    pub(super) fn promise_settle(&mut self, now: i64, settlement: Settlement) -> Reply {
        let Settlement { id, state, value } = settlement;
        self.settle(now, &id, state, value);
        self.promise_get(&id)
    }

    /// Stores a promise whose id is new. Returns whether it has a task for somebody to acquire.
    ///
    /// A promise whose time-out has passed is settled from the start, as of that time.
    pub(super) fn insert(&mut self, now: i64, promise: NewPromise) -> bool {
        let NewPromise { id, timeout_at, param, tags, target, branch, timer } = promise;
        let expired = now >= timeout_at;
        let mut task = target.map(StoredTask::new);
        if expired && let Some(task) = &mut task {
            task.state = TaskState::Fulfilled;
        }
        if !expired {
            self.timers.insert((timeout_at, Due::Promise, id.clone()));
        }
        let announce = !expired && task.is_some();
        let promise = StoredPromise {
            state: if expired { timed_out(timer) } else { PromiseState::Pending },
            param,
            tags,
            value: None,
            timeout_at,
            created_at: if expired { timeout_at } else { now },
            settled_at: expired.then_some(timeout_at),
            timer,
            branch: branch.map(|branch| self.join_branch(&branch, &id)),
            awaiters: BTreeSet::new(),
            listeners: Vec::new(),
            task: task.map(Box::new),
        };
        self.promises.insert(id.clone(), promise);
        self.joined_flow(now, &id, !expired);
        announce
    }

    fn join_branch(&mut self, branch: &str, id: &Id) -> Id {
        // A root's branch is its own id; both share one text.
        let key = match self.branches.get_key_value(branch) {
            Some((known, _)) => known.clone(),
            None if *branch == **id => id.clone(),
            None => branch.into(),
        };
        self.branches.entry(key.clone()).or_default().insert(id.clone());
        key
    }
}

/// The state of a promise after its time-out. For a timer, that is what it was waiting for.
pub(super) fn timed_out(timer: bool) -> PromiseState {
    if timer { PromiseState::Resolved } else { PromiseState::RejectedTimedout }
}
