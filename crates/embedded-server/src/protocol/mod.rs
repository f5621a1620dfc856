//! The protocol's JSON: requests in, replies and messages out.

mod data;
mod envelope;
mod request;

pub(crate) use data::{PromiseState, TaskState};
pub(crate) use envelope::{Reply, parse, push_envelope, push_string, respond};
pub(crate) use request::{Action, Create, Request, Settle};
