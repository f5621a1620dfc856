//! Promises: create, get, settle, callbacks and listeners.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::task::Task;
use super::{Core, Due, Id, Message};
use crate::address::Address;
use crate::protocol::{Create, PromiseState, Reply, Settle, TaskState, push_string};

/// A promise. Its JSON is put together from texts that were made once.
pub(super) struct Promise {
    pub(super) state: PromiseState,
    param: Box<str>,
    pub(super) tags: Box<str>,
    value: Option<Box<str>>,
    pub(super) timeout_at: i64,
    created_at: i64,
    settled_at: Option<i64>,
    timer: bool,
    pub(super) branch: Option<Arc<str>>,
    /// Tasks that wait for this promise; empty once it is settled.
    pub(super) awaiters: BTreeSet<Id>,
    /// Who is told when it is settled; empty after that.
    listeners: Vec<Address>,
    /// Exists if and only if the promise has a target.
    pub(super) task: Option<Box<Task>>,
}

impl Promise {
    pub(super) fn is_pending(&self) -> bool {
        self.state == PromiseState::Pending
    }

    /// Appends the promise's record.
    pub(super) fn render(&self, id: &str, json: &mut String) {
        json.push_str("{\"id\":");
        push_string(json, id);
        json.push_str(",\"state\":\"");
        json.push_str(self.state.name());
        json.push_str("\",\"param\":");
        json.push_str(&self.param);
        json.push_str(",\"value\":");
        json.push_str(self.value.as_deref().unwrap_or("{}"));
        json.push_str(",\"tags\":");
        json.push_str(&self.tags);
        json.push_str(",\"timeoutAt\":");
        json.push_str(&self.timeout_at.to_string());
        json.push_str(",\"createdAt\":");
        json.push_str(&self.created_at.to_string());
        if let Some(settled_at) = self.settled_at {
            json.push_str(",\"settledAt\":");
            json.push_str(&settled_at.to_string());
        }
        json.push('}');
    }

    fn reply(&self, id: &str) -> Reply {
        let mut data = String::with_capacity(256 + self.param.len() + self.tags.len());
        data.push_str("{\"promise\":");
        self.render(id, &mut data);
        data.push('}');
        Reply::ok(data)
    }
}

impl Core {
    pub(super) fn promise_get(&self, id: &str) -> Reply {
        match self.promises.get(id) {
            Some(promise) => promise.reply(id),
            None => Reply::refuse(404, "Promise not found"),
        }
    }

    pub(super) fn promise_create(&mut self, now: i64, create: Create) -> Reply {
        let id = create.id.clone();
        if !self.promises.contains_key(&id) {
            let task = create.target.clone().map(Task::new);
            let announce = self.insert(now, create, task);
            if announce {
                self.announce(now, &id);
            }
        }
        self.promise_get(&id)
    }

    /// Adds a promise that is not known yet. Returns whether it has a task and is pending.
    ///
    /// One that is past its time-out is settled from the start, as of its time-out.
    pub(super) fn insert(&mut self, now: i64, create: Create, task: Option<Task>) -> bool {
        let Create { id, timeout_at, param, tags, branch, timer, .. } = create;
        let expired = now >= timeout_at;
        let branch = branch.map(|branch| self.join_branch(branch, &id));
        let mut promise = Promise {
            state: PromiseState::Pending,
            param,
            tags,
            value: None,
            timeout_at,
            created_at: now,
            settled_at: None,
            timer,
            branch,
            awaiters: BTreeSet::new(),
            listeners: Vec::new(),
            task: task.map(Box::new),
        };
        if expired {
            promise.state = timed_out(timer);
            promise.created_at = timeout_at;
            promise.settled_at = Some(timeout_at);
            if let Some(task) = &mut promise.task {
                task.state = TaskState::Fulfilled;
                task.version = 0;
            }
        } else {
            self.timers.insert((timeout_at, Due::Promise, id.clone()));
        }
        let announce = !expired && promise.task.is_some();
        self.promises.insert(id.clone(), promise);
        self.joined_flow(now, &id, !expired);
        announce
    }

    fn join_branch(&mut self, branch: String, id: &Id) -> Arc<str> {
        // A root's branch is its own id: one text serves both.
        let key = match self.branches.get_key_value(branch.as_str()) {
            Some((known, _)) => known.clone(),
            None if branch == **id => id.clone(),
            None => branch.into(),
        };
        self.branches.entry(key.clone()).or_default().insert(id.clone());
        key
    }

    pub(super) fn promise_settle(&mut self, now: i64, settle: Settle) -> Reply {
        let Settle { id, state, value } = settle;
        self.settle(now, &id, state, value);
        self.promise_get(&id)
    }

    /// Settles a promise that is pending, and lets everything follow that waits for it.
    pub(super) fn settle(&mut self, now: i64, id: &str, state: PromiseState, value: Box<str>) {
        if let Some(id) = self.close(now, id, state, Some(value), now) {
            self.wake(now, &id);
        }
    }

    /// First half of a settlement: the promise and its own task are over.
    pub(super) fn close(
        &mut self,
        now: i64,
        id: &str,
        state: PromiseState,
        value: Option<Box<str>>,
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

    /// Second half: who waits for it goes on, who listens is told.
    pub(super) fn wake(&mut self, now: i64, id: &Id) {
        let Some(promise) = self.promises.get_mut(id) else { return };
        let awaiters = std::mem::take(&mut promise.awaiters);
        let listeners = std::mem::take(&mut promise.listeners);
        if !listeners.is_empty() {
            let mut json = String::new();
            promise.render(id, &mut json);
            let json: Arc<str> = json.into();
            self.out.extend(
                listeners
                    .into_iter()
                    .map(|address| Message::Unblock { promise: json.clone(), address }),
            );
        }
        for awaiter in awaiters {
            if let Some(task) = self.task_mut(&awaiter) {
                task.waiting.remove(id);
                task.ready.insert(id.clone());
                self.resume(now, &awaiter);
            }
        }
    }

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

    /// Notes that the task of `awaiter` waits for `awaited`, which is pending.
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
                promise.reply(awaited)
            }
            None => Reply::refuse(404, "Awaited promise not found"),
        }
    }

    /// The records of all promises of the same branch but `id` itself, as a JSON array.
    pub(super) fn push_preload(&self, id: &str, json: &mut String) {
        json.push('[');
        let branch = self.promises.get(id).and_then(|promise| promise.branch.as_ref());
        let ids = branch.and_then(|branch| self.branches.get(branch));
        let mut first = true;
        for other in ids.into_iter().flatten().filter(|other| ***other != *id) {
            let Some(promise) = self.promises.get(other) else { continue };
            if !std::mem::take(&mut first) {
                json.push(',');
            }
            promise.render(other, json);
        }
        json.push(']');
    }

    /// Times out a promise as of its time-out; `None` if it is settled already.
    pub(super) fn expire(&mut self, now: i64, id: &str) -> Option<Id> {
        let promise = self.promises.get(id)?;
        let state = timed_out(promise.timer);
        self.close(now, id, state, None, promise.timeout_at)
    }
}

/// A timer that runs out has done what it was for.
fn timed_out(timer: bool) -> PromiseState {
    if timer { PromiseState::Resolved } else { PromiseState::RejectedTimedout }
}
