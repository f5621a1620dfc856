//! The `data` of each kind of answer, and of each message.
//!
//! `P`, `T` and `L` are what is made of promises, tasks and preloads: a server writes its records, a
//! client reads them or leaves them as JSON text.

use serde::{Deserialize, Serialize};

/// `promise.*`, `task.fulfill`, and the message `unblock`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OnePromise<P> {
    /// The promise.
    pub promise: P,
}

/// `task.get`, and the message `execute`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OneTask<T> {
    /// The task.
    pub task: T,
}

/// `task.create` and `task.acquire`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Acquired<T, P, L> {
    /// The task.
    pub task: T,
    /// Its promise.
    pub promise: P,
    /// The other promises of its branch.
    pub preload: L,
}

/// `task.fence`: the answer to the operation that it guards, in an envelope of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fenced<A, L> {
    /// The envelope.
    pub action: A,
    /// The other promises of the task's branch.
    pub preload: L,
}

/// `task.suspend`, where one of the awaited promises is settled already (300).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotSuspended<L> {
    /// The other promises of the task's branch.
    pub preload: L,
}

/// `promise.search`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Promises<'a, P> {
    /// One page of those found, by id.
    pub promises: Vec<P>,
    /// Where the next page begins; none: this is the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<&'a str>,
}

/// `task.search`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tasks<'a, T> {
    /// One page of those found, by id.
    pub tasks: Vec<T>,
    /// Where the next page begins; none: this is the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<&'a str>,
}
