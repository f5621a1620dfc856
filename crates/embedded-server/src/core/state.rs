//! What is stored.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use serde_json::value::RawValue;
use wire::{Address, PromiseState, TaskState};

/// A promise's id; its task, if it has one, has the same.
pub(crate) type Id = Arc<str>;

/// What bounds the state. Times are in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// How long a pending task waits for a process before it is announced again.
    pub(crate) retry: i64,
    /// How long a settled flow is kept.
    pub(crate) retention: i64,
    /// How many settled flows are kept.
    pub(crate) settled_flows: usize,
}

/// A message to send.
#[derive(Debug)]
pub(crate) enum Message {
    /// A task waits for a process.
    Execute { id: Id, version: i64, address: Arc<Address> },
    /// A promise was settled; this is its record.
    Unblock { promise: Arc<RawValue>, address: Address },
}

/// What a timer is for. Timers that are due at the same time run in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A promise times out.
    Promise,
    /// A pending task is announced again.
    Retry,
    /// The lease of an acquired task expires.
    Lease,
}

/// The state of the server.
pub(crate) struct Core {
    pub(super) limits: Limits,
    pub(super) promises: HashMap<Id, StoredPromise>,
    /// Promises by branch tag, in the order in which a preload has them.
    pub(super) branches: HashMap<Id, BTreeSet<Id>>,
    /// Exactly the timers that are armed.
    pub(super) timers: BTreeSet<(i64, Due, Id)>,
    /// The pending tasks: those to announce again when connections come and go.
    pub(super) pending: HashSet<Id>,
    /// Flows by origin.
    pub(super) flows: HashMap<Id, Flow>,
    /// When settled flows are forgotten, by origin.
    pub(super) forget: BTreeSet<(i64, Id)>,
    /// Messages that the current operation has caused.
    pub(super) out: Vec<Message>,
}

pub(super) struct StoredPromise {
    pub(super) state: PromiseState,
    pub(super) param: Box<RawValue>,
    pub(super) tags: Box<RawValue>,
    pub(super) value: Option<Box<RawValue>>,
    pub(super) timeout_at: i64,
    pub(super) created_at: i64,
    pub(super) settled_at: Option<i64>,
    /// Resolves at its time-out.
    pub(super) timer: bool,
    pub(super) branch: Option<Id>,
    /// Tasks that wait for this promise; empty once it is settled.
    pub(super) awaiters: BTreeSet<Id>,
    /// Who is told when it is settled; empty after that.
    pub(super) listeners: Vec<Address>,
    /// Exists if and only if the promise has a target.
    pub(super) task: Option<Box<StoredTask>>,
}

pub(super) struct StoredTask {
    pub(super) state: TaskState,
    pub(super) version: i64,
    pub(super) target: Arc<Address>,
    /// While it is acquired.
    pub(super) lease: Option<Lease>,
    /// Its only timer: that of the retry or of the lease.
    pub(super) timer: Option<(i64, Due)>,
    /// The pending promises that it waits for.
    pub(super) waiting: BTreeSet<Id>,
    /// The promises it waited for that were settled since it was last acquired.
    pub(super) ready: BTreeSet<Id>,
    /// The connection that it was last announced to.
    pub(super) announced_to: Option<u64>,
}

/// Who holds a task.
pub(super) struct Lease {
    pub(super) pid: String,
    /// How long the lease lasts after each heartbeat, in milliseconds.
    pub(super) ttl: i64,
}

/// The promises of one origin.
pub(super) struct Flow {
    pub(super) origin: Id,
    pub(super) ids: Vec<Id>,
    /// How many of them are pending.
    pub(super) pending: usize,
    /// When the flow is forgotten, if none of them is pending.
    pub(super) forget_at: Option<i64>,
}

impl Flow {
    pub(super) fn new(origin: Id) -> Self {
        Self { origin, ids: Vec::new(), pending: 0, forget_at: None }
    }
}

impl StoredPromise {
    pub(super) fn is_pending(&self) -> bool {
        self.state == PromiseState::Pending
    }
}

impl StoredTask {
    pub(super) fn new(target: Arc<Address>) -> Self {
        Self {
            state: TaskState::Pending,
            version: 0,
            target,
            lease: None,
            timer: None,
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            announced_to: None,
        }
    }

    pub(super) fn is_held_at(&self, version: i64) -> bool {
        self.state == TaskState::Acquired && self.version == version
    }

    pub(super) fn execute(&self, id: &Id) -> Message {
        Message::Execute { id: id.clone(), version: self.version, address: self.target.clone() }
    }
}

impl Core {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            promises: HashMap::new(),
            branches: HashMap::new(),
            timers: BTreeSet::new(),
            pending: HashSet::new(),
            flows: HashMap::new(),
            forget: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    pub(super) fn task(&self, id: &str) -> Option<&StoredTask> {
        self.promises.get(id)?.task.as_deref()
    }

    pub(super) fn task_mut(&mut self, id: &str) -> Option<&mut StoredTask> {
        self.promises.get_mut(id)?.task.as_deref_mut()
    }

    /// A task, and its id as it is stored.
    pub(super) fn known_task(&self, id: &str) -> Option<(Id, &StoredTask)> {
        let (id, promise) = self.promises.get_key_value(id)?;
        Some((id.clone(), promise.task.as_deref()?))
    }
}
