//! The parts of requests and answers that the transport looks at; the rest passes through.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

/// The protocol version of server v0.9.8 and of the SDK.
const VERSION: &str = "2026-04-01";

#[derive(Deserialize)]
pub struct Request<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub head: Head<'a>,
    #[serde(borrow)]
    pub data: &'a RawValue,
}

#[derive(Deserialize)]
pub struct Head<'a> {
    #[serde(borrow, rename = "corrId")]
    pub corr_id: Cow<'a, str>,
}

/// `data` of the requests about one task.
#[derive(Deserialize)]
pub struct Task<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    pub version: i64,
    /// In `task.acquire`: the lease in milliseconds.
    #[serde(default)]
    pub ttl: u64,
    /// In `task.fence`: what to do under the lease.
    #[serde(borrow, default)]
    pub action: Option<Action<'a>>,
}

#[derive(Deserialize)]
pub struct Action<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
}

#[derive(Deserialize, Serialize)]
pub struct Heartbeat {
    pub pid: String,
    pub tasks: Vec<TaskRef>,
}

#[derive(Deserialize, Serialize, Clone)]
pub struct TaskRef {
    pub id: String,
    pub version: i64,
}

/// The answer to `task.acquire`, as far as it tells whether the task can be run.
#[derive(Deserialize)]
pub struct Acquired<'a> {
    #[serde(borrow)]
    pub data: AcquiredData<'a>,
}

#[derive(Deserialize)]
pub struct AcquiredData<'a> {
    pub task: TaskRef,
    #[serde(borrow)]
    pub promise: AcquiredPromise<'a>,
}

#[derive(Deserialize)]
pub struct AcquiredPromise<'a> {
    #[serde(borrow, default)]
    pub param: Param<'a>,
}

#[derive(Deserialize, Default)]
pub struct Param<'a> {
    #[serde(borrow, default)]
    pub data: Option<Cow<'a, str>>,
}

impl Param<'_> {
    /// The name of the function that is to be run.
    ///
    /// # Errors
    /// The parameter is no call: base64 of `{"func": …, "args": …}`.
    pub fn function(&self) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Call {
            func: String,
        }
        let data = self.data.as_deref().unwrap_or_default();
        let bytes = BASE64_STANDARD.decode(data).map_err(|error| error.to_string())?;
        let call: Call = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        Ok(call.func)
    }
}

/// The answer to `task.get`.
#[derive(Deserialize)]
pub struct TaskAnswer {
    pub data: TaskAnswerData,
}

#[derive(Deserialize)]
pub struct TaskAnswerData {
    pub task: TaskState,
}

#[derive(Deserialize)]
pub struct TaskState {
    pub version: i64,
    #[serde(default)]
    pub pid: Option<String>,
}

/// The flow that an id belongs to: the id of its first promise, up to the first dot.
pub fn origin(id: &str) -> &str {
    id.split_once('.').map_or(id, |(origin, _)| origin)
}

/// A request of the transport's own.
pub fn request(kind: &str, data: Value) -> String {
    json!({"kind": kind, "head": {"corrId": "node", "version": VERSION}, "data": data}).to_string()
}

/// An answer in the server's place.
pub fn answer(request: &Request, status: u16, data: Value) -> String {
    let head = json!({"corrId": request.head.corr_id, "status": status, "version": VERSION});
    json!({"kind": request.kind, "head": head, "data": data}).to_string()
}

/// An error as the SDK stores it in a promise.
pub fn rejection(message: &str) -> String {
    BASE64_STANDARD.encode(json!({"__type": "error", "message": message}).to_string())
}

/// Writes the true origin into a promise that is created inside a run: the SDK takes the id of
/// the function that calls, dots included, which servers newer than v0.9.8 refuse.
/// `None` where nothing needs to change.
pub fn with_true_origin(body: &str) -> Option<String> {
    let mut request: Value = serde_json::from_str(body).ok()?;
    let tag = request.pointer_mut("/data/action/data/tags/resonate:origin")?;
    let id = tag.as_str()?;
    let origin = origin(id).to_owned();
    if origin == id {
        return None;
    }
    *tag = Value::String(origin);
    Some(request.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_the_id_up_to_its_first_dot() {
        let create = |origin: &str| {
            json!({"kind": "task.fence", "data": {"action": {"data": {"tags": {"resonate:origin": origin, "x": "a.b"}}}}}).to_string()
        };
        assert_eq!(with_true_origin(&create("flow.0.1")), Some(create("flow")));
        assert_eq!(with_true_origin(&create("flow")), None);
        assert_eq!(with_true_origin("{}"), None);
    }

    #[test]
    fn a_parameter_is_a_call_or_says_why_not() {
        let function = |data: Option<String>| Param { data: data.map(Cow::Owned) }.function();
        let encoded = |json: Value| Some(BASE64_STANDARD.encode(json.to_string()));
        assert_eq!(function(encoded(json!({"func": "foo", "args": null}))).unwrap(), "foo");
        for bad in [None, Some("%".to_owned()), encoded(json!([1])), encoded(json!({"args": 1}))] {
            assert!(function(bad).is_err());
        }
    }
}
