//! The protocol of the Resonate Server (v0.9.8), in one place.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`operation`] | the `data` of each kind of request |
//! | [`outcome`] | the `data` of each kind of answer and message |
//! | [`record`] | promises and tasks as the server describes them |
//! | [`envelope`] | what surrounds every request, answer and message |
//! | [`address`] | where messages go: `poll://any@group/id` |
//! | [`call`] | function calls and errors inside promises |
//! | [`Request`], [`Answer`], [`Message`] | one of each as text, parsed once |
//! | [`Exchange`] | the interface between two layers of a process |
//! | `scripted` | with the feature `testing`: a server for unit tests of layers |
//!
//! Data structures borrow from the text they were read from, so that a process reads each request
//! and answer once and copies little. This crate knows the protocol only: no HTTP, no SDK, no flow.

pub mod address;
mod answer;
pub mod call;
pub mod envelope;
mod exchange;
mod message;
pub mod operation;
pub mod outcome;
mod pairs;
pub mod record;
mod request;
#[cfg(feature = "testing")]
pub mod scripted;

pub use address::Address;
pub use answer::{Answer, AnswerBody, NotAnAnswer};
pub use exchange::{Exchange, ExchangeError};
pub use message::{Message, MessageBody};
pub use operation::Operation;
pub use pairs::Pairs;
pub use record::{Promise, PromiseState, PromiseValue, Task, TaskState};
pub use request::{Deadline, Request};

/// The only version of the protocol that server v0.9.8 speaks.
pub const VERSION: &str = "2026-04-01";

/// The flow that a promise belongs to: its id up to the first dot.
pub fn origin(id: &str) -> &str {
    id.split_once('.').map_or(id, |(origin, _)| origin)
}

/// Tags that the server and the SDK give a meaning to.
pub mod tag {
    /// The id of the flow's first promise.
    pub const ORIGIN: &str = "resonate:origin";
    /// The promise whose function created this one, steps aside.
    pub const BRANCH: &str = "resonate:branch";
    /// The promise that this one was created under.
    pub const PARENT: &str = "resonate:parent";
    /// `global`: any process may run it; `local`: a step, settled by the run that created it.
    pub const SCOPE: &str = "resonate:scope";
    /// The address of those who may run it. A promise with this tag has a task.
    pub const TARGET: &str = "resonate:target";
    /// `true`: the promise resolves at its time-out.
    pub const TIMER: &str = "resonate:timer";
}

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
