//! Tasks: who may work on a promise, fenced by the version that only an acquisition raises.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Core, Due, Id, Message};
use crate::address::Address;
use crate::protocol::{Action, Create, Reply, Settle, TaskState, push_envelope, push_string};

/// The task of a promise.
pub(super) struct Task {
    pub(super) state: TaskState,
    pub(super) version: i64,
    pub(super) target: Arc<Address>,
    /// While it is acquired: who holds it, and for how long after each heartbeat.
    pub(super) lease: Option<Lease>,
    /// Its one armed timer: of the retry or of the lease.
    pub(super) timer: Option<(i64, Due)>,
    /// Promises it waits for that are pending.
    pub(super) waiting: BTreeSet<Id>,
    /// Promises it waited for that were settled since it was acquired last.
    pub(super) ready: BTreeSet<Id>,
    /// The connection it was announced to last.
    pub(super) announced_to: Option<u64>,
}

/// Who holds a task.
pub(super) struct Lease {
    pub(super) pid: String,
    pub(super) ttl: i64,
}

impl Task {
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

    pub(super) fn execute(&self, id: &Id) -> Message {
        Message::Execute { id: id.clone(), version: self.version, address: self.target.clone() }
    }

    fn is_held_at(&self, version: i64) -> bool {
        self.state == TaskState::Acquired && self.version == version
    }

    /// Appends the task's record.
    pub(super) fn render(&self, id: &str, json: &mut String) {
        json.push_str("{\"id\":");
        push_string(json, id);
        json.push_str(",\"state\":\"");
        json.push_str(self.state.name());
        json.push_str("\",\"version\":");
        json.push_str(&self.version.to_string());
        json.push_str(",\"resumes\":");
        json.push_str(&self.ready.len().to_string());
        if let Some(lease) = &self.lease {
            json.push_str(",\"ttl\":");
            json.push_str(&lease.ttl.to_string());
            json.push_str(",\"pid\":");
            push_string(json, &lease.pid);
        }
        json.push('}');
    }
}

const NOT_FOUND: &str = "Task not found";
const STALE: &str = "Task version mismatch or invalid state";

impl Core {
    pub(super) fn task_get(&self, id: &str) -> Reply {
        let Some(task) = self.task(id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        let mut data = String::from("{\"task\":");
        task.render(id, &mut data);
        data.push('}');
        Reply::ok(data)
    }

    pub(super) fn task_create(&mut self, now: i64, pid: String, ttl: i64, create: Create) -> Reply {
        let id = create.id.clone();
        let lease = Lease { pid, ttl };
        if let Some(promise) = self.promises.get(&id) {
            let Some(task) = &promise.task else {
                return Reply::refuse(422, "Promise exists without a target task");
            };
            match task.state {
                TaskState::Pending => self.acquire(now, &id, lease),
                TaskState::Fulfilled => {}
                _ => return Reply::refuse(409, "Already exists"),
            }
        } else if self.create_task(now, create) {
            self.acquire(now, &id, lease);
        }
        self.run_reply(&id)
    }

    fn create_task(&mut self, now: i64, create: Create) -> bool {
        let task = create.target.clone().map(Task::new);
        self.insert(now, create, task)
    }

    pub(super) fn task_acquire(
        &mut self,
        now: i64,
        id: &str,
        version: i64,
        pid: String,
        ttl: i64,
    ) -> Reply {
        let Some((id, task)) = self.known(id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        if task.state != TaskState::Pending {
            return Reply::refuse(409, "Task is not pending");
        }
        if task.version != version {
            return Reply::refuse(409, "Version mismatch");
        }
        self.acquire(now, &id, Lease { pid, ttl });
        self.run_reply(&id)
    }

    /// Hands a pending task out.
    fn acquire(&mut self, now: i64, id: &Id, lease: Lease) {
        let due = now.saturating_add(lease.ttl);
        if let Some(task) = self.task_mut(id) {
            task.state = TaskState::Acquired;
            task.version += 1;
            task.ready.clear();
            task.announced_to = None;
            task.lease = Some(lease);
        }
        self.pending.remove(id);
        self.arm(id, Some((due, Due::Lease)));
    }

    /// What a process needs to run a task; nothing to run (no preload) if it is over.
    fn run_reply(&self, id: &str) -> Reply {
        let mut data = String::with_capacity(1024);
        if let Some(promise) = self.promises.get(id)
            && let Some(task) = &promise.task
        {
            data.push_str("{\"task\":");
            task.render(id, &mut data);
            data.push_str(",\"promise\":");
            promise.render(id, &mut data);
            data.push_str(",\"preload\":");
            if task.state == TaskState::Acquired {
                self.push_preload(id, &mut data);
            } else {
                data.push_str("[]");
            }
            data.push('}');
        }
        Reply::ok(data)
    }

    pub(super) fn task_release(&mut self, now: i64, id: &str, version: i64) -> Reply {
        let Some((id, task)) = self.known(id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        if !task.is_held_at(version) {
            return Reply::refuse(409, STALE);
        }
        self.announce(now, &id);
        Reply::empty()
    }

    pub(super) fn task_fulfill(&mut self, now: i64, version: i64, settle: Settle) -> Reply {
        let Some((_, task)) = self.known(&settle.id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        if !task.is_held_at(version) {
            return Reply::refuse(409, STALE);
        }
        self.promise_settle(now, settle)
    }

    pub(super) fn task_suspend(&mut self, id: &str, version: i64, awaited: &[String]) -> Reply {
        let Some((id, task)) = self.known(id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        if !task.is_held_at(version) {
            return Reply::refuse(409, "Task is not acquired or version mismatch");
        }
        let known = awaited.iter().map(|id| self.promises.get_key_value(id.as_str()));
        let Some(known) = known.collect::<Option<Vec<_>>>() else {
            return Reply::refuse(422, "Awaited promise not found");
        };
        let all_pending = known.iter().all(|(_, promise)| promise.is_pending());
        let awaited: Vec<Id> = known.into_iter().map(|(id, _)| id.clone()).collect();
        if let Some(task) = self.task_mut(&id) {
            task.ready.clear();
        }
        if !all_pending {
            let mut data = String::from("{\"preload\":");
            self.push_preload(&id, &mut data);
            data.push('}');
            return Reply { status: 300, data };
        }
        for awaited in &awaited {
            self.wait(awaited, &id);
        }
        if let Some(task) = self.task_mut(&id) {
            task.state = TaskState::Suspended;
            task.lease = None;
        }
        self.arm(&id, None);
        Reply::empty()
    }

    pub(super) fn task_fence(
        &mut self,
        now: i64,
        id: &str,
        version: i64,
        corr_id: &str,
        action: Action,
    ) -> Reply {
        let Some((id, task)) = self.known(id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        if !task.is_held_at(version) {
            return Reply::refuse(409, "Version mismatch");
        }
        let (kind, reply) = match action {
            Action::Create(create) => ("promise.create", self.promise_create(now, create)),
            Action::Settle(settle) => ("promise.settle", self.promise_settle(now, settle)),
        };
        let mut data = String::with_capacity(1024 + reply.data.len());
        data.push_str("{\"action\":");
        push_envelope(&mut data, kind, corr_id, &reply);
        data.push_str(",\"preload\":");
        self.push_preload(&id, &mut data);
        data.push('}');
        Reply::ok(data)
    }

    /// Prolongs the leases that are still held; the others are passed over in silence.
    pub(super) fn task_heartbeat(&mut self, now: i64, pid: &str, tasks: &[(String, i64)]) -> Reply {
        for (id, version) in tasks {
            let Some((id, task)) = self.known(id) else { continue };
            let lease = task.lease.as_ref().filter(|lease| lease.pid == pid);
            if let Some(lease) = lease.filter(|_| task.is_held_at(*version)) {
                let due = now.saturating_add(lease.ttl);
                self.arm(&id, Some((due, Due::Lease)));
            }
        }
        Reply::empty()
    }

    /// Makes a task pending and tells its group: it is new, released, resumed, or its lease expired.
    pub(super) fn announce(&mut self, now: i64, id: &Id) {
        if let Some(task) = self.task_mut(id) {
            task.state = TaskState::Pending;
            task.lease = None;
            let message = task.execute(id);
            self.out.push(message);
            self.pending.insert(id.clone());
            let due = now.saturating_add(self.settings.retry);
            self.arm(id, Some((due, Due::Retry)));
        }
    }

    /// A suspended task goes on.
    pub(super) fn resume(&mut self, now: i64, id: &Id) {
        if self.task(id).is_some_and(|task| task.state == TaskState::Suspended) {
            self.announce(now, id);
        }
    }

    /// The promise is settled: nobody works on it any more.
    pub(super) fn end_task(&mut self, id: &Id) {
        self.arm(id, None);
        self.pending.remove(id);
        let Some(task) = self.task_mut(id) else { return };
        task.state = TaskState::Fulfilled;
        task.lease = None;
        task.announced_to = None;
        task.ready.clear();
        for awaited in std::mem::take(&mut task.waiting) {
            if let Some(promise) = self.promises.get_mut(&awaited) {
                promise.awaiters.remove(id);
            }
        }
    }

    /// Sets a task's one timer.
    pub(super) fn arm(&mut self, id: &Id, timer: Option<(i64, Due)>) {
        let Some(task) = self.task_mut(id) else { return };
        if let Some((at, due)) = std::mem::replace(&mut task.timer, timer) {
            self.timers.remove(&(at, due, id.clone()));
        }
        if let Some((at, due)) = timer {
            self.timers.insert((at, due, id.clone()));
        }
    }

    fn known(&self, id: &str) -> Option<(Id, &Task)> {
        let (id, promise) = self.promises.get_key_value(id)?;
        Some((id.clone(), promise.task.as_deref()?))
    }
}
