//! The `data` of a request, as text or as a JSON value.
//!
//! The official server parses `data` into a value before it looks at it. This shows in two ways: a
//! field that occurs twice has its last value, and a refusal names no line and column. Reading the
//! text is faster, and good requests read the same both ways. So a request is read from its text, and
//! from a value only if that fails.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};
use wire::{envelope::Action, operation::TaskFence};

use crate::{
    reply::Reply,
    rules::{Rules, checked},
};

/// The data of a request, or of the operation inside a fence.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Data<'a> {
    Text(&'a RawValue),
    Value(&'a Value),
}

/// Why data was not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The text does not have the right form. Whether its value does, and if not, why, is for a
    /// second reading to say.
    Text,
    /// The request is refused.
    Refused(Reply),
}

impl From<Reply> for Unread {
    fn from(reply: Reply) -> Self {
        Self::Refused(reply)
    }
}

/// A fence whose operation is not read yet.
pub(crate) struct Fence<'a> {
    pub(crate) task: Cow<'a, str>,
    pub(crate) version: i64,
    /// The kind of the operation inside.
    pub(crate) kind: Cow<'a, str>,
    /// The data of the operation inside.
    pub(crate) data: Data<'a>,
}

impl<'a> Data<'a> {
    pub(crate) fn is_object(self) -> bool {
        match self {
            Self::Text(text) => text.get().starts_with('{'),
            Self::Value(value) => value.is_object(),
        }
    }

    /// The data as a value. Null, if its text is too deep for one: then it is refused for that.
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::Text(text) => serde_json::from_str(text.get()).unwrap_or_default(),
            Self::Value(value) => value.clone(),
        }
    }

    /// Reads the data of a request of this `kind`, and checks its rules.
    pub(crate) fn read<T: Deserialize<'a> + Rules>(self, kind: &str) -> Result<T, Unread> {
        let read = self.parse(|reason| format!("Invalid request: {}", official(kind, reason)))?;
        Ok(checked(read)?)
    }

    /// Reads a fence, but not the data inside.
    pub(crate) fn read_fence(self) -> Result<Fence<'a>, Unread> {
        let kind = "task.fence";
        match self {
            Self::Text(_) => {
                let TaskFence { id: task, version, action } =
                    self.read::<TaskFence<Action<&RawValue>>>(kind)?;
                Ok(Fence { task, version, kind: action.kind, data: Data::Text(action.data) })
            }
            Self::Value(value) => {
                let TaskFence { id: task, version, action } =
                    self.read::<TaskFence<Action<IgnoredAny>>>(kind)?;
                // Serde reads a struct from an array too.
                let inside = &value["action"];
                let data = inside.get("data").or_else(|| inside.get(2)).unwrap_or(&Value::Null);
                Ok(Fence { task, version, kind: action.kind, data: Data::Value(data) })
            }
        }
    }

    /// Reads the operation inside a fence of `task`, and checks its rules. `id` is the promise that
    /// it is about.
    pub(crate) fn read_fenced<T: Deserialize<'a> + Rules>(
        self,
        task: &str,
        id: fn(&T) -> &str,
    ) -> Result<T, Unread> {
        if let Self::Value(_) = self {
            self.refuse_own(task)?;
        }
        let read: T = self.parse(|reason| format!("Invalid action data: {reason}"))?;
        if id(&read) == task {
            return Err(Unread::Text);
        }
        Ok(checked(read)?)
    }

    /// Refuses the operation inside a fence of `task` if it is about the task's own promise. This
    /// comes before all other refusals, so it takes a value to say it.
    pub(crate) fn refuse_own(self, task: &str) -> Result<(), Unread> {
        match self {
            Self::Text(_) => Err(Unread::Text),
            Self::Value(value) if value.get("id").and_then(Value::as_str) == Some(task) => {
                Err(Reply::refuse(400, "Action ID must not equal the task ID").into())
            }
            Self::Value(_) => Ok(()),
        }
    }

    fn parse<T: Deserialize<'a>>(self, refusal: impl Fn(String) -> String) -> Result<T, Unread> {
        match self {
            Self::Text(text) => serde_json::from_str(text.get()).map_err(|_| Unread::Text),
            Self::Value(value) => T::deserialize(value)
                .map_err(|error| Reply::refuse(400, &refusal(error.to_string())).into()),
        }
    }
}

/// Names the expected type as the official server does, where it has several types for one of [`wire`].
fn official(kind: &str, reason: String) -> String {
    let Some((got, expected)) = reason.rsplit_once(", expected ") else { return reason };
    let expected = match kind {
        "task.create" => expected.replace("struct Action", "struct TaskCreateAction"),
        "task.fulfill" => expected
            .replace("struct Action", "struct TaskFulfillAction")
            .replace("struct PromiseSettleData", "struct TaskFulfillActionData"),
        "task.suspend" => expected.replace("struct Action", "struct TaskSuspendAction"),
        "task.fence" => expected.replace("struct Action", "struct TaskFenceActionData"),
        "task.heartbeat" => expected.replace("struct TaskRef", "struct TaskHeartbeatTask"),
        _ => return reason,
    };
    format!("{got}, expected {expected}")
}
