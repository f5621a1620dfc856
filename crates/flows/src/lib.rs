//! The three flows of this example: which functions they call, in which services, and what a
//! request may ask of them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `table` | [`FLOWS`]: the flows as data, and everything that follows from it |
//! | `options` | [`Options`]: `work`, `sleep` and `fail` |
//!
//! Launcher, gateway, page and tests read the table. To add a flow, add it there and write its
//! services.

mod options;
mod table;

pub use options::{LONGEST, MOST_FAILURES, Options, STEP};
pub use table::{Answer, Caller, Checkpoint, FLOWS, Flow, Function, Invocation};

/// The `service.namespace` of every process in traces.
pub const NAMESPACE: &str = "async-rpc";

/// A service of this example: all its processes share the name `group`.
pub fn service(group: &'static str) -> node::Service {
    // Only a function that works is ever called with the hint: see `Options::target`.
    let works =
        FLOWS.iter().flat_map(|flow| flow.functions).any(|it| it.group == group && it.works);
    node::Service::new(group).namespace(NAMESPACE).hands_over(works)
}
