//! The state machine: promises, tasks and timers, without I/O and without a clock of its own.
//!
//! [`Core::apply`] takes the time and a request, and gives the reply and the messages to send.
//! What is due by that time happens first, so no request ever sees a state that is out of date.

mod promise;
mod retention;
mod search;
mod task;
mod tick;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::address::Address;
use crate::protocol::{Reply, Request};
use promise::Promise;
use retention::Flow;
use task::Task;

/// A promise's id; its task, if it has one, has the same.
pub(crate) type Id = Arc<str>;

/// Settings of the state machine, in milliseconds where they are times.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How long a pending task waits for its acquisition until it is announced again.
    pub(crate) retry: i64,
    /// How long a settled flow is remembered.
    pub(crate) retention: i64,
    /// How many settled flows are remembered at most.
    pub(crate) settled_flows: usize,
}

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A task waits to be acquired.
    Execute { id: Id, version: i64, address: Arc<Address> },
    /// A promise was settled; it is JSON text.
    Unblock { promise: Arc<str>, address: Address },
}

/// What a timer is for, in the order in which timers of the same instant are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A promise times out.
    Promise,
    /// A pending task is announced again.
    Retry,
    /// An acquired task's lease expires.
    Lease,
}

/// All state. See the module's documentation.
pub(crate) struct Core {
    settings: Settings,
    promises: HashMap<Id, Promise>,
    /// By branch tag, in the order of a preload.
    branches: HashMap<Arc<str>, BTreeSet<Id>>,
    /// Exactly the timers that are armed.
    timers: BTreeSet<(i64, Due, Id)>,
    /// Ids of pending tasks: those that may have to be sent again when connections come and go.
    pending: HashSet<Id>,
    /// By origin: a promise's id up to its first dot.
    flows: HashMap<Id, Flow>,
    /// When settled flows are forgotten, by origin.
    forget: BTreeSet<(i64, Id)>,
    out: Vec<Message>,
}

impl Core {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            promises: HashMap::new(),
            branches: HashMap::new(),
            timers: BTreeSet::new(),
            pending: HashSet::new(),
            flows: HashMap::new(),
            forget: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    /// Applies a request at `now` (Unix milliseconds).
    pub(crate) fn apply(&mut self, now: i64, request: Request) -> (Reply, Vec<Message>) {
        self.run_due(now);
        let reply = match request {
            Request::PromiseGet(id) => self.promise_get(&id),
            Request::PromiseCreate(create) => self.promise_create(now, create),
            Request::PromiseSettle(settle) => self.promise_settle(now, settle),
            Request::RegisterCallback { awaited, awaiter } => {
                self.register_callback(now, &awaited, &awaiter)
            }
            Request::RegisterListener { awaited, address } => {
                self.register_listener(&awaited, address)
            }
            Request::PromiseSearch { state, tags, cursor, limit } => {
                self.promise_search(state, &tags, cursor.as_deref(), limit)
            }
            Request::TaskGet(id) => self.task_get(&id),
            Request::TaskCreate { pid, ttl, create } => self.task_create(now, pid, ttl, create),
            Request::TaskAcquire { id, version, pid, ttl } => {
                self.task_acquire(now, &id, version, pid, ttl)
            }
            Request::TaskRelease { id, version } => self.task_release(now, &id, version),
            Request::TaskFulfill { version, settle } => self.task_fulfill(now, version, settle),
            Request::TaskSuspend { id, version, awaited } => {
                self.task_suspend(&id, version, &awaited)
            }
            Request::TaskFence { id, version, corr_id, action } => {
                self.task_fence(now, &id, version, &corr_id, action)
            }
            Request::TaskHeartbeat { pid, tasks } => self.task_heartbeat(now, &pid, &tasks),
            Request::TaskSearch { state, cursor, limit } => {
                self.task_search(state, cursor.as_deref(), limit)
            }
        };
        (reply, std::mem::take(&mut self.out))
    }

    /// Lets happen what is due at `now`.
    pub(crate) fn tick(&mut self, now: i64) -> Vec<Message> {
        self.run_due(now);
        std::mem::take(&mut self.out)
    }

    /// When [`Core::tick`] has to be called next, in Unix milliseconds.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let timer = self.timers.first().map(|(at, ..)| *at);
        let forget = self.forget.first().map(|(at, _)| *at);
        timer.into_iter().chain(forget).min()
    }

    /// Notes which connection a task was announced to; `None` if there was none.
    pub(crate) fn announced(&mut self, id: &str, connection: Option<u64>) {
        if let Some(task) = self.task_mut(id) {
            task.announced_to = connection;
        }
    }

    /// The pending tasks that were announced to `connection` (`None`: to nobody).
    ///
    /// It looks at every pending task; connections come and go rarely.
    pub(crate) fn unanswered(&self, connection: Option<u64>) -> Vec<Message> {
        let tasks = self.pending.iter().filter_map(|id| Some((id, self.task(id)?)));
        tasks
            .filter(|(_, task)| task.announced_to == connection)
            .map(|(id, task)| task.execute(id))
            .collect()
    }

    fn task(&self, id: &str) -> Option<&Task> {
        self.promises.get(id)?.task.as_deref()
    }

    fn task_mut(&mut self, id: &str) -> Option<&mut Task> {
        self.promises.get_mut(id)?.task.as_deref_mut()
    }
}
