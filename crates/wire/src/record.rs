//! Promises and tasks as the server describes them in answers and messages.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Pairs, address, call, pairs::optional_text, tag};

/// The state of a durable promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromiseState {
    /// Nobody has settled it, and its time-out has not come.
    Pending,
    /// It has a value.
    Resolved,
    /// Its function failed, or nobody can run it.
    Rejected,
    /// Somebody canceled it.
    RejectedCanceled,
    /// Its time-out came first.
    RejectedTimedout,
}

impl PromiseState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Resolved => "resolved",
            Self::Rejected => "rejected",
            Self::RejectedCanceled => "rejected_canceled",
            Self::RejectedTimedout => "rejected_timedout",
        }
    }
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// It waits for a process.
    Pending,
    /// A process holds it.
    Acquired,
    /// It waits for other promises.
    Suspended,
    /// An operator stopped it.
    Halted,
    /// Its promise is settled.
    Fulfilled,
}

/// `param` or `value` of a promise. `data` is base64 of JSON, by convention of the SDKs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "struct PromiseValue")]
pub struct PromiseValue<'a> {
    /// Free for applications; server and SDK keep them.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Pairs<'a>>,
    /// The content.
    #[serde(
        borrow,
        default,
        deserialize_with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub data: Option<Cow<'a, str>>,
}

impl PromiseValue<'_> {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.as_ref()?.get(name)
    }

    /// The content, or an empty string.
    pub fn data(&self) -> &str {
        self.data.as_deref().unwrap_or_default()
    }

    /// The same, borrowing nothing.
    pub fn into_owned(self) -> PromiseValue<'static> {
        PromiseValue {
            headers: self.headers.map(Pairs::into_owned),
            data: self.data.map(|data| Cow::Owned(data.into_owned())),
        }
    }
}

/// A durable promise. Times are Unix milliseconds of the server's clock.
///
/// `V` and `T` are what is made of the contents and tags; a server that only stores them keeps
/// their JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    bound(deserialize = "V: Deserialize<'de> + Default, T: Deserialize<'de> + Default")
)]
pub struct Promise<'a, V = PromiseValue<'a>, T = Pairs<'a>> {
    /// Its id; that of its task too, if it has one.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Its state.
    pub state: PromiseState,
    /// What it was created with.
    #[serde(default)]
    pub param: V,
    /// What it was settled with.
    #[serde(default)]
    pub value: V,
    /// Its tags; see [`tag`].
    #[serde(default)]
    pub tags: T,
    /// When it is rejected unless it is settled before.
    pub timeout_at: i64,
    /// When it was created.
    pub created_at: i64,
    /// When it was settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<i64>,
}

impl Promise<'_> {
    /// Whether nobody has settled it.
    pub fn is_pending(&self) -> bool {
        self.state == PromiseState::Pending
    }

    /// The function that it calls, if it is a call.
    pub fn function(&self) -> Option<String> {
        call::function(self.param.data()).ok()
    }

    /// The group that may run it.
    pub fn group(&self) -> Option<&str> {
        self.tags.get(tag::TARGET).map(address::group)
    }

    /// A durable timer.
    pub fn is_timer(&self) -> bool {
        self.tags.get(tag::TIMER) == Some("true")
    }

    /// A step: the run that created it settles it.
    pub fn is_step(&self) -> bool {
        self.tags.get(tag::SCOPE) == Some("local")
    }

    /// The message that it was rejected with.
    pub fn error(&self) -> Option<String> {
        call::error_message(self.value.data())
    }

    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Promise<'static> {
        Promise {
            id: Cow::Owned(self.id.into_owned()),
            state: self.state,
            param: self.param.into_owned(),
            value: self.value.into_owned(),
            tags: self.tags.into_owned(),
            timeout_at: self.timeout_at,
            created_at: self.created_at,
            settled_at: self.settled_at,
        }
    }
}

/// The task of a promise with a target: who may run it, fenced by its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task<'a> {
    /// The promise's id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Its state.
    pub state: TaskState,
    /// How often it was acquired.
    pub version: i64,
    /// How many awaited promises were settled since it was acquired.
    #[serde(default)]
    pub resumes: i64,
    /// While it is acquired: the lease in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<i64>,
    /// While it is acquired: the process that holds it.
    #[serde(
        borrow,
        default,
        deserialize_with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub pid: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_its_function_and_its_target_the_group() {
        let data = call::encode("bar", &[(); 1]);
        for target in ["poll://any@service-b", "poll://any@service-b/service-b", "service-b"] {
            let text = format!(
                r#"{{"id": "x", "state": "pending", "param": {{"data": "{data}"}}, "value": {{}},
                    "tags": {{"resonate:target": "{target}"}}, "timeoutAt": 2, "createdAt": 1}}"#
            );
            let call: Promise = serde_json::from_str(&text).unwrap();
            assert_eq!(call.function().as_deref(), Some("bar"));
            assert_eq!(call.group(), Some("service-b"));
            assert!(call.is_pending() && !call.is_step() && !call.is_timer());
            assert!(matches!(call.param.data, Some(Cow::Borrowed(_))));
        }
    }

    #[test]
    fn a_record_is_written_as_it_was_read() {
        let text = concat!(
            r#"{"id":"x","state":"rejected_timedout","param":{"headers":{"a":"1"},"data":"x"},"#,
            r#""value":{},"tags":{"resonate:scope":"local"},"timeoutAt":2,"createdAt":1,"settledAt":2}"#
        );
        let promise: Promise = serde_json::from_str(text).unwrap();
        assert!(promise.is_step());
        assert_eq!(serde_json::to_string(&promise).unwrap(), text);
        assert_eq!(promise.clone().into_owned(), promise);
    }
}
