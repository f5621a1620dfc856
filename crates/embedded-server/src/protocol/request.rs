//! From a kind and its data to a [`Request`] the state machine can apply.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::data::{
    AcquireData, AwaitData, CreateData, FenceData, FulfillData, GetData, HeartbeatData, ListenData,
    PromiseSearchData, PromiseState, ReleaseData, Rules, SettleData, SettleState, SuspendData,
    TaskCreateData, TaskSearchData, TaskState, Value,
};
use super::envelope::{Data, Reply};
use crate::address::{Address, Refused};

/// A request whose data kept every rule. Times are Unix milliseconds, ttl are milliseconds.
#[derive(Debug)]
pub(crate) enum Request {
    PromiseGet(String),
    PromiseCreate(Create),
    PromiseSettle(Settle),
    RegisterCallback {
        awaited: String,
        awaiter: String,
    },
    RegisterListener {
        awaited: String,
        address: Address,
    },
    PromiseSearch {
        state: Option<PromiseState>,
        tags: HashMap<String, String>,
        cursor: Option<String>,
        limit: usize,
    },
    TaskGet(String),
    TaskCreate {
        pid: String,
        ttl: i64,
        create: Create,
    },
    TaskAcquire {
        id: String,
        version: i64,
        pid: String,
        ttl: i64,
    },
    TaskRelease {
        id: String,
        version: i64,
    },
    TaskFulfill {
        version: i64,
        settle: Settle,
    },
    TaskSuspend {
        id: String,
        version: i64,
        awaited: Vec<String>,
    },
    TaskFence {
        id: String,
        version: i64,
        corr_id: String,
        action: Action,
    },
    TaskHeartbeat {
        pid: String,
        tasks: Vec<(String, i64)>,
    },
    TaskSearch {
        state: Option<TaskState>,
        cursor: Option<String>,
        limit: usize,
    },
}

/// A new promise. What is only stored and repeated is JSON text already.
#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) id: Arc<str>,
    pub(crate) timeout_at: i64,
    pub(crate) param: Box<str>,
    pub(crate) tags: Box<str>,
    pub(crate) target: Option<Arc<Address>>,
    pub(crate) branch: Option<String>,
    pub(crate) timer: bool,
}

/// A settlement; `value` is JSON text.
#[derive(Debug)]
pub(crate) struct Settle {
    pub(crate) id: String,
    pub(crate) state: PromiseState,
    pub(crate) value: Box<str>,
}

/// What a fence guards.
#[derive(Debug)]
pub(crate) enum Action {
    Create(Create),
    Settle(Settle),
}

impl Request {
    /// # Errors
    /// The reply that refuses the request: an unknown kind, or data that breaks a rule.
    pub(super) fn read(kind: &str, corr_id: &str, data: &Data) -> Result<Self, Reply> {
        Ok(match kind {
            "promise.get" => Self::PromiseGet(get(data, "Promise ID is required")?),
            "promise.create" => Self::PromiseCreate(create(checked(data)?)?),
            "promise.settle" => Self::PromiseSettle(settle(checked(data)?)),
            "promise.register_callback" => {
                let AwaitData { awaited, awaiter } = checked(data)?;
                Self::RegisterCallback { awaited, awaiter }
            }
            "promise.register_listener" => {
                let ListenData { awaited, address } = checked(data)?;
                let address = target(&address, "Invalid listener address")?;
                Self::RegisterListener { awaited, address }
            }
            "promise.search" => {
                let read: PromiseSearchData = checked(data)?;
                Self::PromiseSearch {
                    state: read.state,
                    tags: read.tags.unwrap_or_default(),
                    cursor: read.cursor,
                    limit: limit(read.limit),
                }
            }
            "task.get" => Self::TaskGet(get(data, "Task ID is required")?),
            "task.create" => {
                let read: TaskCreateData = checked(data)?;
                Self::TaskCreate { pid: read.pid, ttl: read.ttl, create: create(read.action.data)? }
            }
            "task.acquire" => {
                let AcquireData { id, version, pid, ttl } = checked(data)?;
                Self::TaskAcquire { id, version, pid, ttl }
            }
            "task.release" => {
                let ReleaseData { id, version } = checked(data)?;
                Self::TaskRelease { id, version }
            }
            "task.fulfill" => {
                let read: FulfillData = checked(data)?;
                let action = read.action.data;
                Self::TaskFulfill {
                    version: read.version,
                    settle: settlement(action.id, action.state, &action.value),
                }
            }
            "task.suspend" => {
                let read: SuspendData = checked(data)?;
                let awaited = read.actions.into_iter().map(|action| action.data.awaited);
                Self::TaskSuspend { id: read.id, version: read.version, awaited: awaited.collect() }
            }
            "task.fence" => fence(checked(data)?, corr_id)?,
            "task.heartbeat" => {
                let read: HeartbeatData = checked(data)?;
                let tasks = read.tasks.into_iter().map(|task| (task.id, task.version));
                Self::TaskHeartbeat { pid: read.pid, tasks: tasks.collect() }
            }
            "task.search" => {
                let read: TaskSearchData = checked(data)?;
                Self::TaskSearch {
                    state: read.state,
                    cursor: read.cursor,
                    limit: limit(read.limit),
                }
            }
            "task.halt" | "task.continue" | "schedule.get" | "schedule.create"
            | "schedule.delete" | "schedule.search" => {
                let reason = format!("Not supported by the embedded server: {kind}");
                return Err(Reply::refuse(400, &reason));
            }
            "debug.start" | "debug.stop" | "debug.reset" | "debug.snap" | "debug.tick" => {
                return Err(Reply::refuse(403, "Debug operations are disabled"));
            }
            _ => return Err(Reply::refuse(400, &format!("Unknown operation: {kind}"))),
        })
    }
}

fn checked<T: DeserializeOwned + Rules>(data: &Data) -> Result<T, Reply> {
    let read: T = data.read()?;
    kept(read)
}

fn kept<T: Rules>(data: T) -> Result<T, Reply> {
    match data.check() {
        Ok(()) => Ok(data),
        Err(reason) => Err(Reply::refuse(400, reason)),
    }
}

fn get(data: &Data, otherwise: &'static str) -> Result<String, Reply> {
    let GetData { id } = data.read()?;
    if id.is_empty() {
        return Err(Reply::refuse(400, otherwise));
    }
    Ok(id)
}

/// A limit that kept its rules, or the default.
fn limit(limit: Option<i64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(100)
}

fn target(address: &str, otherwise: &'static str) -> Result<Address, Reply> {
    Address::parse(address).map_err(|refused| match refused {
        Refused::Invalid => Reply::refuse(400, otherwise),
        Refused::Unsupported => {
            let reason = "Not supported by the embedded server: addresses other than poll://";
            Reply::refuse(400, reason)
        }
    })
}

fn create(data: CreateData) -> Result<Create, Reply> {
    let tag = |name: &str| data.tags.get(name).map(String::as_str);
    let target = tag("resonate:target")
        .map(|address| target(address, "Invalid resonate:target address"))
        .transpose()?;
    Ok(Create {
        timeout_at: data.timeout_at,
        param: json(&data.param),
        tags: json(&data.tags),
        target: target.map(Arc::new),
        branch: tag("resonate:branch").map(str::to_owned),
        timer: tag("resonate:timer") == Some("true"),
        id: data.id.into(),
    })
}

fn settle(data: SettleData) -> Settle {
    settlement(data.id, data.state, &data.value)
}

fn settlement(id: String, state: SettleState, value: &Value) -> Settle {
    Settle { id, state: state.into(), value: json(value) }
}

/// Strings and maps of strings always have a JSON text.
fn json(value: &impl serde::Serialize) -> Box<str> {
    serde_json::to_string(value).unwrap_or_default().into()
}

fn fence(data: FenceData, corr_id: &str) -> Result<Request, Reply> {
    let raw = &data.action.data;
    let action = match data.action.kind.as_str() {
        "promise.create" => match serde_json::from_str::<CreateData>(raw.get()) {
            Ok(read) if read.id != data.id => Action::Create(create(kept(read)?)?),
            _ => Action::Create(create(kept(slow_action(raw, &data.id)?)?)?),
        },
        "promise.settle" => match serde_json::from_str::<SettleData>(raw.get()) {
            Ok(read) if read.id != data.id => Action::Settle(settle(kept(read)?)),
            _ => Action::Settle(settle(kept(slow_action(raw, &data.id)?)?)),
        },
        _ => {
            let _: serde_json::Value = slow_action(raw, &data.id)?;
            return Err(Reply::refuse(400, "Invalid fence action kind"));
        }
    };
    Ok(Request::TaskFence {
        id: data.id,
        version: data.version,
        corr_id: corr_id.to_owned(),
        action,
    })
}

/// A fence's action as the official server reads it: that it names another promise than the task's
/// own comes before whether it can be read at all.
fn slow_action<T: DeserializeOwned>(raw: &RawValue, task: &str) -> Result<T, Reply> {
    let invalid = |error| Reply::refuse(400, &format!("Invalid action data: {error}"));
    let value: serde_json::Value = serde_json::from_str(raw.get()).map_err(invalid)?;
    if value.get("id").and_then(serde_json::Value::as_str) == Some(task) {
        return Err(Reply::refuse(400, "Action ID must not equal the task ID"));
    }
    serde_json::from_value(value).map_err(invalid)
}
