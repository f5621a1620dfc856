//! What a request asks for, ready for the state machine.

use std::{borrow::Cow, sync::Arc};

use serde_json::value::RawValue;
use wire::{
    Address, PromiseState,
    address::AddressError,
    operation::{
        Get, PromiseCreate, PromiseSearch, PromiseSettle, RegisterCallback, RegisterListener,
        TaskAcquire, TaskCreate, TaskFence, TaskFulfill, TaskHeartbeat, TaskRef, TaskSearch,
        TaskSuspend,
    },
    tag,
};

use crate::{
    data::{Data, Fence, Unread},
    json,
    reply::Reply,
};

/// A request whose data keeps all rules. Times are Unix milliseconds, `ttl` is in milliseconds.
#[derive(Debug)]
pub(crate) enum Operation<'a> {
    PromiseGet(Get<'a>),
    PromiseCreate(NewPromise),
    PromiseSettle(Settlement<'a>),
    RegisterCallback(RegisterCallback<'a>),
    RegisterListener { awaited: Cow<'a, str>, address: Address },
    PromiseSearch(PromiseSearch<'a>),
    TaskGet(Get<'a>),
    TaskCreate { pid: Cow<'a, str>, ttl: i64, promise: NewPromise },
    TaskAcquire(TaskAcquire<'a>),
    TaskRelease(TaskRef<'a>),
    TaskFulfill { version: i64, settlement: Settlement<'a> },
    TaskSuspend(TaskSuspend<'a>),
    TaskFence { fence: TaskFence<'a, Guarded<'a>>, corr_id: Cow<'a, str> },
    TaskHeartbeat(TaskHeartbeat<'a>),
    TaskSearch(TaskSearch<'a>),
}

/// A promise to create. What the server only stores and repeats is JSON text already.
#[derive(Debug)]
pub(crate) struct NewPromise {
    pub(crate) id: Arc<str>,
    pub(crate) timeout_at: i64,
    pub(crate) param: Box<RawValue>,
    pub(crate) tags: Box<RawValue>,
    /// Whose task it becomes.
    pub(crate) target: Option<Arc<Address>>,
    pub(crate) branch: Option<Box<str>>,
    /// Resolves at its time-out.
    pub(crate) timer: bool,
}

/// A promise to settle.
#[derive(Debug)]
pub(crate) struct Settlement<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) state: PromiseState,
    pub(crate) value: Box<RawValue>,
}

/// The operation inside a fence.
#[derive(Debug)]
pub(crate) enum Guarded<'a> {
    Create(NewPromise),
    Settle(Settlement<'a>),
}

impl<'a> Operation<'a> {
    /// Reads the operation of a `kind` of request.
    ///
    /// # Errors
    /// The kind is not supported, or its data is not readable or breaks a rule.
    pub(crate) fn read(kind: &str, corr_id: &Cow<'a, str>, data: Data<'a>) -> Result<Self, Unread> {
        Ok(match kind {
            "promise.get" => Self::PromiseGet(get(kind, data, "Promise ID is required")?),
            "promise.create" => Self::PromiseCreate(new_promise(data.read(kind)?)?),
            "promise.settle" => Self::PromiseSettle(settlement(data.read(kind)?)),
            "promise.register_callback" => Self::RegisterCallback(data.read(kind)?),
            "promise.register_listener" => {
                let RegisterListener { awaited, address } = data.read(kind)?;
                let address = poll_address(&address, "Invalid listener address")?;
                Self::RegisterListener { awaited, address }
            }
            "promise.search" => Self::PromiseSearch(data.read(kind)?),
            "task.get" => Self::TaskGet(get(kind, data, "Task ID is required")?),
            "task.create" => {
                let TaskCreate { pid, ttl, action } = data.read(kind)?;
                Self::TaskCreate { pid, ttl, promise: new_promise(action.data)? }
            }
            "task.acquire" => Self::TaskAcquire(data.read(kind)?),
            "task.release" => Self::TaskRelease(data.read(kind)?),
            "task.fulfill" => {
                let TaskFulfill { version, action, .. } = data.read(kind)?;
                Self::TaskFulfill { version, settlement: settlement(action.data) }
            }
            "task.suspend" => Self::TaskSuspend(data.read(kind)?),
            "task.fence" => {
                let Fence { task: id, version, kind, data } = data.read_fence()?;
                let action = match &*kind {
                    "promise.create" => {
                        let create = data.read_fenced(&id, |create: &PromiseCreate| &create.id)?;
                        Guarded::Create(new_promise(create)?)
                    }
                    "promise.settle" => {
                        let settle = data.read_fenced(&id, |settle: &PromiseSettle| &settle.id)?;
                        Guarded::Settle(settlement(settle))
                    }
                    _ => {
                        data.refuse_own(&id)?;
                        return Err(Reply::refuse(400, "Invalid fence action kind").into());
                    }
                };
                let corr_id = corr_id.clone();
                Self::TaskFence { fence: TaskFence { id, version, action }, corr_id }
            }
            "task.heartbeat" => Self::TaskHeartbeat(data.read(kind)?),
            "task.search" => Self::TaskSearch(data.read(kind)?),
            "task.halt" | "task.continue" | "schedule.get" | "schedule.create"
            | "schedule.delete" | "schedule.search" => {
                let reason = format!("Not supported by the embedded server: {kind}");
                return Err(Reply::refuse(400, &reason).into());
            }
            "debug.start" | "debug.stop" | "debug.reset" | "debug.snap" | "debug.tick" => {
                return Err(Reply::refuse(403, "Debug operations are disabled").into());
            }
            _ => return Err(Reply::refuse(400, &format!("Unknown operation: {kind}")).into()),
        })
    }
}

fn get<'a>(kind: &str, data: Data<'a>, no_id: &str) -> Result<Get<'a>, Unread> {
    let get: Get = data.read(kind)?;
    if get.id.is_empty() {
        return Err(Reply::refuse(400, no_id).into());
    }
    Ok(get)
}

fn new_promise(create: PromiseCreate) -> Result<NewPromise, Reply> {
    let target = match create.tags.get(tag::TARGET) {
        Some(target) => Some(poll_address(target, "Invalid resonate:target address")?),
        None => None,
    };
    Ok(NewPromise {
        timeout_at: create.timeout_at,
        param: json::raw(&create.param),
        tags: json::raw(&create.tags),
        target: target.map(Arc::new),
        branch: create.tags.get(tag::BRANCH).map(Box::from),
        timer: create.tags.get(tag::TIMER) == Some("true"),
        id: create.id.into(),
    })
}

fn settlement(settle: PromiseSettle) -> Settlement {
    let PromiseSettle { id, state, value } = settle;
    Settlement { id, state: state.into(), value: json::raw(&value) }
}

/// An address that messages can be sent to. Another one would leave a flow waiting for ever, without
/// an error anywhere.
fn poll_address(text: &str, invalid: &str) -> Result<Address, Reply> {
    text.parse().map_err(|error| match error {
        AddressError::Invalid => Reply::refuse(400, invalid),
        AddressError::Unsupported => {
            let reason = "Not supported by the embedded server: addresses other than poll://";
            Reply::refuse(400, reason)
        }
    })
}
