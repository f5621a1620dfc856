//! The operations on tasks. A task's version fences out processes that no longer hold it; only an
//! acquisition raises it.

use wire::{
    TaskState,
    envelope::{AnswerHead, Envelope},
    operation::{TaskAcquire, TaskFence, TaskHeartbeat, TaskRef, TaskSuspend},
    outcome::{Acquired, Fenced, NotSuspended, OneTask},
};

use super::state::{Core, Due, Id, Lease};
use crate::{
    operation::{Guarded, NewPromise, Settlement},
    reply::Reply,
};

const NOT_FOUND: &str = "Task not found";
const STALE: &str = "Task version mismatch or invalid state";

impl Core {
    pub(super) fn task_get(&self, id: &str) -> Reply {
        match self.task(id) {
            Some(task) => Reply::ok(&OneTask { task: task.record(id) }),
            None => Reply::refuse(404, NOT_FOUND),
        }
    }

    pub(super) fn task_create(
        &mut self,
        now: i64,
        pid: String,
        ttl: i64,
        promise: NewPromise,
    ) -> Reply {
        let id = promise.id.clone();
        let acquire = match self.promises.get(&id) {
            None => self.insert(now, promise),
            Some(known) => match &known.task {
                None => return Reply::refuse(422, "Promise exists without a target task"),
                Some(task) => match task.state {
                    TaskState::Pending => true,
                    TaskState::Fulfilled => false,
                    _ => return Reply::refuse(409, "Already exists"),
                },
            },
        };
        if acquire {
            self.acquire(now, &id, Lease { pid, ttl });
        }
        self.acquired(&id)
    }

    pub(super) fn task_acquire(&mut self, now: i64, acquire: TaskAcquire) -> Reply {
        let TaskAcquire { id, version, pid, ttl } = acquire;
        let Some((id, task)) = self.known_task(&id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        if task.state != TaskState::Pending {
            return Reply::refuse(409, "Task is not pending");
        }
        if task.version != version {
            return Reply::refuse(409, "Version mismatch");
        }
        self.acquire(now, &id, Lease { pid: pid.into_owned(), ttl });
        self.acquired(&id)
    }

    /// What a process needs to run a task. One that is over needs no preload.
    fn acquired(&self, id: &str) -> Reply {
        let Some(promise) = self.promises.get(id) else { return Reply::refuse(404, NOT_FOUND) };
        let Some(task) = &promise.task else { return Reply::refuse(404, NOT_FOUND) };
        let held = task.state == TaskState::Acquired;
        Reply::ok(&Acquired {
            task: task.record(id),
            promise: promise.record(id),
            preload: if held { self.preload(id) } else { Vec::new() },
        })
    }

    pub(super) fn task_release(&mut self, now: i64, task: &TaskRef) -> Reply {
        let Some((id, known)) = self.known_task(&task.id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        if !known.is_held_at(task.version) {
            return Reply::refuse(409, STALE);
        }
        self.announce(now, &id);
        Reply::empty()
    }

    pub(super) fn task_fulfill(&mut self, now: i64, version: i64, settlement: Settlement) -> Reply {
        let Some(task) = self.task(&settlement.id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        if !task.is_held_at(version) {
            return Reply::refuse(409, STALE);
        }
        self.promise_settle(now, settlement)
    }

    pub(super) fn task_suspend(&mut self, suspend: &TaskSuspend) -> Reply {
        let Some((id, task)) = self.known_task(&suspend.id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        if !task.is_held_at(suspend.version) {
            return Reply::refuse(409, "Task is not acquired or version mismatch");
        }
        let awaited = suspend.actions.iter().map(|action| &*action.data.awaited);
        let known = awaited.map(|id| self.promises.get_key_value(id));
        let Some(known) = known.collect::<Option<Vec<_>>>() else {
            return Reply::refuse(422, "Awaited promise not found");
        };
        let all_pending = known.iter().all(|(_, promise)| promise.is_pending());
        let awaited: Vec<Id> = known.into_iter().map(|(id, _)| id.clone()).collect();
        if let Some(task) = self.task_mut(&id) {
            task.ready.clear();
        }
        if !all_pending {
            return Reply::new(300, &NotSuspended { preload: self.preload(&id) });
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
        fence: TaskFence<Guarded>,
        corr_id: &str,
    ) -> Reply {
        let TaskFence { id, version, action } = fence;
        let Some(task) = self.task(&id) else {
            return Reply::refuse(404, NOT_FOUND);
        };
        if !task.is_held_at(version) {
            return Reply::refuse(409, "Version mismatch");
        }
        let (kind, reply) = match action {
            Guarded::Create(promise) => ("promise.create", self.promise_create(now, promise)),
            Guarded::Settle(settlement) => ("promise.settle", self.promise_settle(now, settlement)),
        };
        let head = AnswerHead::new(corr_id, reply.status);
        let action = Envelope { kind: kind.into(), head, data: reply.data };
        Reply::ok(&Fenced { action, preload: self.preload(&id) })
    }

    /// Renews the leases that the process still holds. The answer does not tell which.
    pub(super) fn task_heartbeat(&mut self, now: i64, heartbeat: &TaskHeartbeat) -> Reply {
        for TaskRef { id, version } in &heartbeat.tasks {
            let Some((id, task)) = self.known_task(id) else { continue };
            let lease = task.lease.as_ref().filter(|lease| lease.pid == heartbeat.pid);
            if let Some(lease) = lease.filter(|_| task.is_held_at(*version)) {
                let due = now.saturating_add(lease.ttl);
                self.arm(&id, Some((due, Due::Lease)));
            }
        }
        Reply::empty()
    }
}
