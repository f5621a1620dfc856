//! The parts of requests and answers that spans are made from.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::context::Headers;

/// A request, of which only the kind is known.
#[derive(Deserialize)]
pub struct Request<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub data: &'a RawValue,
}

/// `data` of the requests about one task.
#[derive(Deserialize)]
pub struct Task<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    pub version: i64,
    #[serde(default)]
    pub ttl: u64,
    #[serde(borrow, default)]
    pub action: Option<Action<'a>>,
}

#[derive(Deserialize)]
pub struct Action<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub data: Option<ActionData<'a>>,
}

#[derive(Deserialize)]
pub struct ActionData<'a> {
    #[serde(borrow, default)]
    pub tags: Option<Tags<'a>>,
}

#[derive(Deserialize)]
pub struct Tags<'a> {
    #[serde(borrow, rename = "resonate:scope", default)]
    pub scope: Option<Cow<'a, str>>,
}

impl Action<'_> {
    /// Whether a step is created: a promise that the run settles itself.
    pub fn is_step(&self) -> bool {
        let tags = self.data.as_ref().and_then(|data| data.tags.as_ref());
        tags.is_some_and(|tags| tags.scope.as_deref() == Some("local"))
    }
}

/// `data` of `task.create`.
#[derive(Deserialize)]
pub struct CreateTask {
    pub ttl: u64,
}

#[derive(Deserialize)]
pub struct Heartbeat<'a> {
    #[serde(borrow)]
    pub tasks: Vec<TaskRef<'a>>,
}

#[derive(Deserialize)]
pub struct TaskRef<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    pub version: i64,
}

/// An answer: its status, and what is asked of its data.
#[derive(Deserialize)]
pub struct Answer<D> {
    pub head: Head,
    pub data: D,
}

/// An answer of which only the status matters.
#[derive(Deserialize)]
pub struct Status {
    pub head: Head,
}

#[derive(Deserialize)]
pub struct Head {
    pub status: u16,
}

/// `data` with one promise: `promise.create`, `promise.get`, `task.fulfill`.
#[derive(Deserialize)]
pub struct OnePromise {
    pub promise: Promise,
}

/// An answer or a message that is about one promise.
#[derive(Deserialize)]
pub struct Awaited {
    pub data: OnePromise,
}

/// `data` of `task.fence`.
#[derive(Deserialize)]
pub struct Fenced {
    pub action: FencedAction,
}

#[derive(Deserialize)]
pub struct FencedAction {
    pub data: OnePromise,
}

/// `data` of `task.acquire` and `task.create`.
#[derive(Deserialize)]
pub struct Acquired<'a> {
    #[serde(borrow)]
    pub task: TaskRef<'a>,
    pub promise: Promise,
    /// Not parsed unless needed: a hundred steps make it large, and every answer carries it.
    #[serde(borrow, default)]
    pub preload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub struct Promise {
    pub id: String,
    pub state: String,
    #[serde(default)]
    pub param: Content,
    #[serde(default)]
    pub value: Content,
    #[serde(default)]
    pub tags: HashMap<String, String>,
    #[serde(rename = "timeoutAt")]
    pub timeout_at: i64,
    #[serde(rename = "createdAt")]
    pub created_at: i64,
    #[serde(rename = "settledAt", default)]
    pub settled_at: Option<i64>,
}

#[derive(Deserialize, Default)]
pub struct Content {
    #[serde(default)]
    pub headers: Option<Headers>,
    #[serde(default)]
    pub data: Option<String>,
}

impl Content {
    /// The headers, or none.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.as_ref()?.get(name).map(String::as_str)
    }

    fn decode<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        let bytes = BASE64_STANDARD.decode(self.data.as_deref()?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

impl Promise {
    /// The function that a call names.
    pub fn function(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Call {
            func: String,
        }
        self.param.decode::<Call>().map(|call| call.func)
    }

    /// The group that a call was sent to: the part of `poll://any@group/id` that names it.
    pub fn group(&self) -> Option<&str> {
        let target = self.tags.get("resonate:target")?;
        let group = target.split_once('@').map_or(target.as_str(), |(_, group)| group);
        Some(group.split('/').next().unwrap_or(group))
    }

    pub fn is_timer(&self) -> bool {
        self.tags.get("resonate:timer").is_some_and(|timer| timer == "true")
    }

    /// A step: a promise that the run which created it settles itself.
    pub fn is_local(&self) -> bool {
        self.tags.get("resonate:scope").is_some_and(|scope| scope == "local")
    }

    /// The message of a rejection.
    pub fn error(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Rejection {
            message: String,
        }
        self.value.decode::<Rejection>().map(|rejection| rejection.message)
    }
}

/// Where headers go: into a promise that is created, or into the value of one that is settled.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow, default)]
    data: Option<Box<Place<'a>>>,
    #[serde(borrow, default)]
    action: Option<Box<Place<'a>>>,
    #[serde(borrow, default)]
    param: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

impl<'a> Place<'a> {
    fn content(&self) -> Option<&'a RawValue> {
        let inner = self.action.as_ref().or(self.data.as_ref());
        inner.map_or(self.param.or(self.value), |inner| inner.content())
    }
}

/// Puts headers into the `param` or `value` of a request. `None`: the request does not have the
/// form that it should have, and is sent as it is.
pub fn with_headers(body: &str, headers: &Headers) -> Option<String> {
    let there = serde_json::from_str::<Place>(body).ok()?.content()?.get();
    // The content is a part of the body, which is otherwise left as it is: to build the whole
    // request anew would cost more than all the rest of tracing it.
    let begin = there.as_ptr() as usize - body.as_ptr() as usize;
    let mut content: BTreeMap<&str, &RawValue> = serde_json::from_str(there).ok()?;
    let mut all = match content.get("headers") {
        Some(headers) => {
            serde_json::from_str::<Option<Headers>>(headers.get()).ok()?.unwrap_or_default()
        }
        None => Headers::new(),
    };
    all.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    let all = serde_json::value::to_raw_value(&all).ok()?;
    content.insert("headers", &all);
    let content = serde_json::to_string(&content).ok()?;
    Some([&body[..begin], &content, &body[begin + there.len()..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn promise(param: Value, tags: Value) -> Promise {
        let promise = json!({"id": "x", "state": "pending", "param": param, "tags": tags, "timeoutAt": 1, "createdAt": 0});
        serde_json::from_value(promise).unwrap()
    }

    #[test]
    fn headers_are_added_to_those_that_are_there() {
        let added = Headers::from([("a".to_owned(), "1".to_owned())]);
        let with = |content: Value| {
            let body = json!({"data": {"id": "ä", "param": content, "tags": {}}}).to_string();
            let body: Value = serde_json::from_str(&with_headers(&body, &added)?).unwrap();
            assert_eq!((&body["data"]["id"], &body["data"]["tags"]), (&json!("ä"), &json!({})));
            Some(body["data"]["param"].clone())
        };
        assert_eq!(with(json!({"data": "x"})), Some(json!({"data": "x", "headers": {"a": "1"}})));
        assert_eq!(
            with(json!({"headers": {"b": "2"}})),
            Some(json!({"headers": {"a": "1", "b": "2"}}))
        );
        assert_eq!(with(json!({"headers": null})), Some(json!({"headers": {"a": "1"}})));
        assert_eq!(with(json!({})), Some(json!({"headers": {"a": "1"}})));
        assert_eq!(with(json!("text")), None);
        let settle = json!({"data": {"id": "x", "action": {"data": {"value": {"data": "x"}}}}});
        let settle: Value =
            serde_json::from_str(&with_headers(&settle.to_string(), &added).unwrap()).unwrap();
        assert_eq!(
            settle["data"]["action"]["data"]["value"],
            json!({"data": "x", "headers": {"a": "1"}})
        );
    }

    #[test]
    fn a_call_names_its_function_and_its_target_the_group() {
        let call = BASE64_STANDARD.encode(r#"{"func":"bar","args":[null]}"#);
        for target in ["poll://any@service-b", "poll://any@service-b/service-b", "service-b"] {
            let call = promise(json!({"data": call}), json!({"resonate:target": target}));
            assert_eq!(call.function().as_deref(), Some("bar"));
            assert_eq!(call.group(), Some("service-b"));
        }
        let step = promise(json!({"data": "%"}), json!({"resonate:scope": "local"}));
        assert!(step.is_local() && step.function().is_none() && step.group().is_none());
    }
}
