//! The `data` of each kind of request.
//!
//! `V` is what is made of a promise's contents: a client writes [`PromiseValue`]s, a server reads
//! them, and a process between the two leaves them as the JSON text that they are.
//! `expecting` is how the official server names a type when it refuses data.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Pairs, PromiseState, PromiseValue, TaskState, envelope::Action};

/// `promise.get` and `task.get`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Get<'a> {
    /// The promise or task.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
}

/// `promise.create`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    expecting = "struct PromiseCreateData",
    rename_all = "camelCase",
    bound(deserialize = "V: Deserialize<'de> + Default")
)]
pub struct PromiseCreate<'a, V = PromiseValue<'a>> {
    /// The new promise. One that is there already stays as it is.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Unix milliseconds.
    pub timeout_at: i64,
    /// What it is created with.
    #[serde(default)]
    pub param: V,
    /// Its tags.
    #[serde(borrow, default)]
    pub tags: Pairs<'a>,
}

/// The states that a client may settle a promise with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettleState {
    /// With a value.
    Resolved,
    /// With an error.
    Rejected,
    /// Canceled.
    RejectedCanceled,
}

impl From<SettleState> for PromiseState {
    fn from(state: SettleState) -> Self {
        match state {
            SettleState::Resolved => Self::Resolved,
            SettleState::Rejected => Self::Rejected,
            SettleState::RejectedCanceled => Self::RejectedCanceled,
        }
    }
}

/// `promise.settle`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    expecting = "struct PromiseSettleData",
    bound(deserialize = "V: Deserialize<'de> + Default")
)]
pub struct PromiseSettle<'a, V = PromiseValue<'a>> {
    /// The promise. One that is settled already stays as it is.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Its new state.
    pub state: SettleState,
    /// What it is settled with.
    #[serde(default)]
    pub value: V,
}

/// `promise.register_callback`: the task of `awaiter` waits for `awaited`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(expecting = "struct PromiseRegisterCallbackData")]
pub struct RegisterCallback<'a> {
    /// The promise that is waited for.
    #[serde(borrow)]
    pub awaited: Cow<'a, str>,
    /// The promise whose task waits.
    #[serde(borrow)]
    pub awaiter: Cow<'a, str>,
}

/// `promise.register_listener`: tell `address` when `awaited` is settled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterListener<'a> {
    /// The promise that is waited for.
    #[serde(borrow)]
    pub awaited: Cow<'a, str>,
    /// An [`Address`](crate::Address).
    #[serde(borrow)]
    pub address: Cow<'a, str>,
}

/// `promise.search`. It looks at every promise: not for request paths.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PromiseSearch<'a> {
    /// Promises in this state.
    pub state: Option<PromiseState>,
    /// Promises with all of these tags.
    #[serde(borrow)]
    pub tags: Option<Pairs<'a>>,
    /// At most this many; 100 by default, 1,000 at most.
    pub limit: Option<i64>,
    /// Where the last page ended.
    #[serde(borrow)]
    pub cursor: Option<Cow<'a, str>>,
}

/// `task.create`: a promise, and its first run by the process that asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(deserialize = "V: Deserialize<'de> + Default"))]
pub struct TaskCreate<'a, V = PromiseValue<'a>> {
    /// The process.
    #[serde(borrow)]
    pub pid: Cow<'a, str>,
    /// The lease in milliseconds.
    pub ttl: i64,
    /// The promise.
    #[serde(borrow)]
    pub action: Action<'a, PromiseCreate<'a, V>>,
}

/// `task.acquire`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskAcquire<'a> {
    /// The task.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Its version before this acquisition.
    pub version: i64,
    /// The process.
    #[serde(borrow)]
    pub pid: Cow<'a, str>,
    /// The lease in milliseconds.
    pub ttl: i64,
}

/// `task.release`, and one task of `task.heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRef<'a> {
    /// The task.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The version that the process holds.
    pub version: i64,
}

/// `task.fulfill`: settles the promise of a task, and ends the task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(deserialize = "V: Deserialize<'de> + Default"))]
pub struct TaskFulfill<'a, V = PromiseValue<'a>> {
    /// The task.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The version that the process holds.
    pub version: i64,
    /// The settlement.
    #[serde(borrow)]
    pub action: Action<'a, PromiseSettle<'a, V>>,
}

/// `task.suspend`: the task waits for promises, and nobody holds it meanwhile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskSuspend<'a> {
    /// The task.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The version that the process holds.
    pub version: i64,
    /// What it waits for.
    #[serde(borrow)]
    pub actions: Vec<Action<'a, RegisterCallback<'a>>>,
}

/// `task.fence`: creates or settles another promise, if the process still holds the task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskFence<'a, A> {
    /// The task.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The version that the process holds.
    pub version: i64,
    /// The creation or settlement.
    pub action: A,
}

/// `task.heartbeat`: renews the leases of these tasks, as far as the process still holds them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskHeartbeat<'a> {
    /// The process.
    #[serde(borrow)]
    pub pid: Cow<'a, str>,
    /// The tasks.
    #[serde(borrow)]
    pub tasks: Vec<TaskRef<'a>>,
}

/// `task.search`. It looks at every task: not for request paths.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TaskSearch<'a> {
    /// Tasks in this state.
    pub state: Option<TaskState>,
    /// At most this many; 100 by default, 1,000 at most.
    pub limit: Option<i64>,
    /// Where the last page ended.
    #[serde(borrow)]
    pub cursor: Option<Cow<'a, str>>,
}

/// What a fence guards.
#[derive(Debug, Clone)]
pub enum FencedAction<'a, V = PromiseValue<'a>> {
    /// `promise.create`.
    Create(PromiseCreate<'a, V>),
    /// `promise.settle`.
    Settle(PromiseSettle<'a, V>),
}

/// The `data` of a request that a process sends, by its kind. Contents of promises are JSON text.
#[derive(Debug, Clone)]
pub enum Operation<'a> {
    /// `promise.get`.
    PromiseGet(Get<'a>),
    /// `promise.create`.
    PromiseCreate(PromiseCreate<'a, Option<&'a RawValue>>),
    /// `promise.settle`.
    PromiseSettle(PromiseSettle<'a, Option<&'a RawValue>>),
    /// `promise.register_listener`.
    RegisterListener(RegisterListener<'a>),
    /// `task.get`.
    TaskGet(Get<'a>),
    /// `task.create`.
    TaskCreate(TaskCreate<'a, Option<&'a RawValue>>),
    /// `task.acquire`.
    TaskAcquire(TaskAcquire<'a>),
    /// `task.release`.
    TaskRelease(TaskRef<'a>),
    /// `task.fulfill`.
    TaskFulfill(TaskFulfill<'a, Option<&'a RawValue>>),
    /// `task.suspend`.
    TaskSuspend(TaskSuspend<'a>),
    /// `task.fence`.
    TaskFence(TaskFence<'a, FencedAction<'a, Option<&'a RawValue>>>),
    /// `task.heartbeat`.
    TaskHeartbeat(TaskHeartbeat<'a>),
    /// Any other kind: it passes through.
    Other,
}

impl<'a> Operation<'a> {
    /// Reads the `data` of a request of this `kind`.
    ///
    /// # Errors
    /// It is not what this kind has.
    pub(crate) fn read(kind: &str, data: &'a RawValue) -> serde_json::Result<Self> {
        fn read<'a, T: Deserialize<'a>>(data: &'a RawValue) -> serde_json::Result<T> {
            serde_json::from_str(data.get())
        }
        Ok(match kind {
            "promise.get" => Self::PromiseGet(read(data)?),
            "promise.create" => Self::PromiseCreate(read(data)?),
            "promise.settle" => Self::PromiseSettle(read(data)?),
            "promise.register_listener" => Self::RegisterListener(read(data)?),
            "task.get" => Self::TaskGet(read(data)?),
            "task.create" => Self::TaskCreate(read(data)?),
            "task.acquire" => Self::TaskAcquire(read(data)?),
            "task.release" => Self::TaskRelease(read(data)?),
            "task.fulfill" => Self::TaskFulfill(read(data)?),
            "task.suspend" => Self::TaskSuspend(read(data)?),
            "task.fence" => {
                let TaskFence { id, version, action } = read(data)?;
                let Action { kind, data, .. }: Action<&RawValue> = action;
                let action = match &*kind {
                    "promise.create" => FencedAction::Create(read(data)?),
                    _ => FencedAction::Settle(read(data)?),
                };
                Self::TaskFence(TaskFence { id, version, action })
            }
            "task.heartbeat" => Self::TaskHeartbeat(read(data)?),
            _ => Self::Other,
        })
    }

    /// The contents of the promise that is created or settled, where headers can be added.
    pub(crate) fn content(&self) -> Option<&'a RawValue> {
        match self {
            Self::PromiseCreate(create) => create.param,
            Self::PromiseSettle(settle) => settle.value,
            Self::TaskCreate(task) => task.action.data.param,
            Self::TaskFulfill(task) => task.action.data.value,
            Self::TaskFence(task) => match &task.action {
                FencedAction::Create(create) => create.param,
                FencedAction::Settle(settle) => settle.value,
            },
            _ => None,
        }
    }
}
