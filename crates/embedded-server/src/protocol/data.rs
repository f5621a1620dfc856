//! The `data` of each kind of request as it stands on the wire, and the rules it must keep.
//!
//! `expecting` is how the official server's refusals name a type.
//! Where data breaks more than one rule, the first is told.

use std::collections::{BTreeMap, HashMap};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The rules of a request's data: `Err` carries the sentence of the refusal.
pub(super) trait Rules {
    fn check(&self) -> Result<(), &'static str>;
}

const NO_TASK: &str = "Task ID is required";
const NO_PROMISE: &str = "Promise ID is required";
const NO_PROCESS: &str = "Process ID is required";
const NO_AWAITED: &str = "Awaited promise ID is required";
const BAD_VERSION: &str = "Version must be a non-negative integer";
const BAD_TTL: &str = "TTL must be a positive integer";
const BAD_LIMIT: &str = "Limit must be a positive integer";
const HIGH_LIMIT: &str = "Invalid 'limit' — must be between 1 and 1000";

fn rule(kept: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if kept { Ok(()) } else { Err(otherwise) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PromiseState {
    Pending,
    Resolved,
    Rejected,
    RejectedCanceled,
    RejectedTimedout,
}

impl PromiseState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Resolved => "resolved",
            Self::Rejected => "rejected",
            Self::RejectedCanceled => "rejected_canceled",
            Self::RejectedTimedout => "rejected_timedout",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TaskState {
    Pending,
    Acquired,
    Suspended,
    /// Never reached here: `task.halt` is refused. A search for it finds nothing.
    Halted,
    Fulfilled,
}

impl TaskState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Acquired => "acquired",
            Self::Suspended => "suspended",
            Self::Halted => "halted",
            Self::Fulfilled => "fulfilled",
        }
    }
}

/// The states a client may settle a promise with.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SettleState {
    Resolved,
    Rejected,
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

/// A promise's parameter or value.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(expecting = "struct PromiseValue")]
pub(crate) struct Value {
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<HashMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

/// `promise.get` and `task.get`.
#[derive(Deserialize)]
pub(super) struct GetData {
    pub(super) id: String,
}

#[derive(Deserialize)]
#[serde(expecting = "struct PromiseCreateData", rename_all = "camelCase")]
pub(super) struct CreateData {
    pub(super) id: String,
    pub(super) timeout_at: i64,
    #[serde(default)]
    pub(super) param: Value,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
}

impl Rules for CreateData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.id.is_empty(), NO_PROMISE)?;
        let negative = "TimeoutAt must be a non-negative integer";
        rule(self.timeout_at >= 0, negative)?;
        let nul = "Promise ID must not contain null bytes";
        rule(!self.id.contains('\0'), nul)
    }
}

#[derive(Deserialize)]
#[serde(expecting = "struct PromiseSettleData")]
pub(super) struct SettleData {
    pub(super) id: String,
    pub(super) state: SettleState,
    #[serde(default)]
    pub(super) value: Value,
}

impl Rules for SettleData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.id.is_empty(), NO_PROMISE)
    }
}

#[derive(Deserialize)]
#[serde(expecting = "struct PromiseRegisterCallbackData")]
pub(super) struct AwaitData {
    pub(super) awaited: String,
    pub(super) awaiter: String,
}

impl Rules for AwaitData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.awaited.is_empty(), NO_AWAITED)?;
        let no_awaiter = "Awaiter promise ID is required";
        rule(!self.awaiter.is_empty(), no_awaiter)?;
        let itself = "Awaited and awaiter must be different promises";
        rule(self.awaited != self.awaiter, itself)
    }
}

#[derive(Deserialize)]
pub(super) struct ListenData {
    pub(super) awaited: String,
    pub(super) address: String,
}

impl Rules for ListenData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.awaited.is_empty(), NO_AWAITED)?;
        rule(!self.address.is_empty(), "Address is required")
    }
}

#[derive(Deserialize)]
pub(super) struct PromiseSearchData {
    pub(super) state: Option<PromiseState>,
    pub(super) tags: Option<HashMap<String, String>>,
    pub(super) limit: Option<i64>,
    pub(super) cursor: Option<String>,
}

impl Rules for PromiseSearchData {
    fn check(&self) -> Result<(), &'static str> {
        rule(self.limit.is_none_or(|limit| limit >= 1), BAD_LIMIT)?;
        rule(self.limit.is_none_or(|limit| limit <= 1000), HIGH_LIMIT)
    }
}

#[derive(Deserialize)]
pub(super) struct TaskSearchData {
    pub(super) state: Option<TaskState>,
    pub(super) limit: Option<i64>,
    pub(super) cursor: Option<String>,
}

impl Rules for TaskSearchData {
    fn check(&self) -> Result<(), &'static str> {
        rule(self.limit.is_none_or(|limit| limit >= 1), BAD_LIMIT)?;
        rule(self.limit.is_none_or(|limit| limit <= 1000), HIGH_LIMIT)
    }
}

#[derive(Deserialize)]
pub(super) struct TaskCreateData {
    pub(super) pid: String,
    pub(super) ttl: i64,
    pub(super) action: TaskCreateAction,
}

#[derive(Deserialize)]
pub(super) struct TaskCreateAction {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "head")]
    _head: IgnoredAny,
    pub(super) data: CreateData,
}

impl Rules for TaskCreateData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.pid.is_empty(), NO_PROCESS)?;
        rule(self.ttl >= 1, BAD_TTL)?;
        self.action.data.check()?;
        let no_target = "Action must have a resonate:target tag";
        rule(self.action.data.tags.contains_key("resonate:target"), no_target)
    }
}

#[derive(Deserialize)]
pub(super) struct AcquireData {
    pub(super) id: String,
    pub(super) version: i64,
    pub(super) pid: String,
    pub(super) ttl: i64,
}

impl Rules for AcquireData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.id.is_empty(), NO_TASK)?;
        rule(self.version >= 0, BAD_VERSION)?;
        rule(!self.pid.is_empty(), NO_PROCESS)?;
        rule(self.ttl >= 1, BAD_TTL)
    }
}

#[derive(Deserialize)]
pub(super) struct ReleaseData {
    pub(super) id: String,
    pub(super) version: i64,
}

impl Rules for ReleaseData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.id.is_empty(), NO_TASK)?;
        rule(self.version >= 0, BAD_VERSION)
    }
}

#[derive(Deserialize)]
pub(super) struct FulfillData {
    pub(super) id: String,
    pub(super) version: i64,
    pub(super) action: TaskFulfillAction,
}

#[derive(Deserialize)]
pub(super) struct TaskFulfillAction {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "head")]
    _head: IgnoredAny,
    pub(super) data: TaskFulfillActionData,
}

#[derive(Deserialize)]
pub(super) struct TaskFulfillActionData {
    pub(super) id: String,
    pub(super) state: SettleState,
    #[serde(default)]
    pub(super) value: Value,
}

impl Rules for FulfillData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.id.is_empty(), NO_TASK)?;
        rule(self.version >= 0, BAD_VERSION)?;
        rule(!self.action.data.id.is_empty(), NO_PROMISE)?;
        let mismatch = "Action ID must match the task ID";
        rule(self.action.data.id == self.id, mismatch)
    }
}

#[derive(Deserialize)]
pub(super) struct SuspendData {
    pub(super) id: String,
    pub(super) version: i64,
    pub(super) actions: Vec<TaskSuspendAction>,
}

#[derive(Deserialize)]
pub(super) struct TaskSuspendAction {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "head")]
    _head: IgnoredAny,
    pub(super) data: AwaitData,
}

impl Rules for SuspendData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.id.is_empty(), NO_TASK)?;
        rule(self.version >= 0, BAD_VERSION)?;
        rule(!self.actions.is_empty(), "Actions array cannot be empty")?;
        self.actions.iter().try_for_each(|action| action.data.check())?;
        let mismatch = "All action awaiter IDs must match the task ID";
        let matches = |action: &TaskSuspendAction| action.data.awaiter == self.id;
        rule(self.actions.iter().all(matches), mismatch)
    }
}

#[derive(Deserialize)]
pub(super) struct FenceData {
    pub(super) id: String,
    pub(super) version: i64,
    pub(super) action: TaskFenceActionData,
}

/// Its data is read when its kind is known.
#[derive(Deserialize)]
pub(super) struct TaskFenceActionData {
    pub(super) kind: String,
    #[serde(rename = "head")]
    _head: Option<IgnoredAny>,
    pub(super) data: Box<RawValue>,
}

impl Rules for FenceData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.id.is_empty(), NO_TASK)?;
        rule(self.version >= 0, BAD_VERSION)
    }
}

#[derive(Deserialize)]
pub(super) struct HeartbeatData {
    pub(super) pid: String,
    pub(super) tasks: Vec<TaskHeartbeatTask>,
}

#[derive(Deserialize)]
pub(super) struct TaskHeartbeatTask {
    pub(super) id: String,
    pub(super) version: i64,
}

impl Rules for HeartbeatData {
    fn check(&self) -> Result<(), &'static str> {
        rule(!self.pid.is_empty(), NO_PROCESS)
    }
}
