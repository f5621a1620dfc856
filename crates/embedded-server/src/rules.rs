//! The rules for the data of each kind of request, beyond its form.
//!
//! Where data breaks several rules, the refusal names the first.

use wire::{
    envelope::Action,
    operation::{
        Get, PromiseCreate, PromiseSearch, PromiseSettle, RegisterCallback, RegisterListener,
        TaskAcquire, TaskCreate, TaskFence, TaskFulfill, TaskHeartbeat, TaskRef, TaskSearch,
        TaskSuspend,
    },
    tag,
};

use crate::reply::Reply;

/// Rules of a request's data. The error is the text of the refusal.
pub(crate) trait Rules {
    fn check(&self) -> Result<(), &'static str>;
}

/// The data, if it keeps its rules.
pub(crate) fn checked<T: Rules>(data: T) -> Result<T, Reply> {
    match data.check() {
        Ok(()) => Ok(data),
        Err(reason) => Err(Reply::refuse(400, reason)),
    }
}

const NO_TASK: &str = "Task ID is required";
const NO_PROMISE: &str = "Promise ID is required";
const NO_PROCESS: &str = "Process ID is required";
const NO_AWAITED: &str = "Awaited promise ID is required";
const BAD_VERSION: &str = "Version must be a non-negative integer";
const BAD_TTL: &str = "TTL must be a positive integer";

fn rule(kept: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if kept { Ok(()) } else { Err(otherwise) }
}

/// The official server requires the head of an action, whatever is in it; only fences need none.
fn has_head<D>(action: &Action<D>) -> Result<(), &'static str> {
    rule(action.head.is_some(), "Invalid request: missing field `head`")
}

fn task(id: &str, version: i64) -> Result<(), &'static str> {
    rule(!id.is_empty(), NO_TASK)?;
    rule(version >= 0, BAD_VERSION)
}

fn limit(limit: Option<i64>) -> Result<(), &'static str> {
    let high = "Invalid 'limit' — must be between 1 and 1000";
    rule(limit.is_none_or(|limit| limit >= 1), "Limit must be a positive integer")?;
    rule(limit.is_none_or(|limit| limit <= 1000), high)
}

impl Rules for Get<'_> {
    /// What an empty id is called depends on the kind of request.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

impl Rules for PromiseCreate<'_> {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.id.is_empty(), NO_PROMISE)?;
        rule(self.timeout_at >= 0, "TimeoutAt must be a non-negative integer")?;
        rule(!self.id.contains('\0'), "Promise ID must not contain null bytes")
    }
}

impl Rules for PromiseSettle<'_> {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.id.is_empty(), NO_PROMISE)
    }
}

impl Rules for RegisterCallback<'_> {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.awaited.is_empty(), NO_AWAITED)?;
        rule(!self.awaiter.is_empty(), "Awaiter promise ID is required")?;
        let itself = "Awaited and awaiter must be different promises";
        rule(self.awaited != self.awaiter, itself)
    }
}

impl Rules for RegisterListener<'_> {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.awaited.is_empty(), NO_AWAITED)?;
        rule(!self.address.is_empty(), "Address is required")
    }
}

impl Rules for PromiseSearch<'_> {
    fn check(&self) -> Result<(), &'static str> {
        limit(self.limit)
    }
}

impl Rules for TaskSearch<'_> {
    fn check(&self) -> Result<(), &'static str> {
        limit(self.limit)
    }
}

impl Rules for TaskCreate<'_> {
    fn check(&self) -> Result<(), &'static str> {
        has_head(&self.action)?;
        rule(!self.pid.is_empty(), NO_PROCESS)?;
        rule(self.ttl >= 1, BAD_TTL)?;
        self.action.data.check()?;
        let no_target = "Action must have a resonate:target tag";
        rule(self.action.data.tags.get(tag::TARGET).is_some(), no_target)
    }
}

impl Rules for TaskAcquire<'_> {
    fn check(&self) -> Result<(), &'static str> {
        task(&self.id, self.version)?;
        rule(!self.pid.is_empty(), NO_PROCESS)?;
        rule(self.ttl >= 1, BAD_TTL)
    }
}

impl Rules for TaskRef<'_> {
    fn check(&self) -> Result<(), &'static str> {
        task(&self.id, self.version)
    }
}

impl Rules for TaskFulfill<'_> {
    fn check(&self) -> Result<(), &'static str> {
        has_head(&self.action)?;
        task(&self.id, self.version)?;
        self.action.data.check()?;
        rule(self.action.data.id == self.id, "Action ID must match the task ID")
    }
}

impl Rules for TaskSuspend<'_> {
    fn check(&self) -> Result<(), &'static str> {
        self.actions.iter().try_for_each(has_head)?;
        task(&self.id, self.version)?;
        rule(!self.actions.is_empty(), "Actions array cannot be empty")?;
        self.actions.iter().try_for_each(|action| action.data.check())?;
        let mut actions = self.actions.iter();
        let mismatch = "All action awaiter IDs must match the task ID";
        rule(actions.all(|action| action.data.awaiter == self.id), mismatch)
    }
}

impl<A> Rules for TaskFence<'_, A> {
    fn check(&self) -> Result<(), &'static str> {
        task(&self.id, self.version)
    }
}

impl Rules for TaskHeartbeat<'_> {
    /// Tasks that do not exist are skipped, so their ids and versions have no rules.
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.pid.is_empty(), NO_PROCESS)
    }
}
