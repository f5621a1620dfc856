//! The state machine: promises, tasks and timers, without I/O and without a clock.
//!
//! [`Core::apply`] takes the time and an operation, and returns the reply and the messages to send.
//! Whatever is due by that time happens first, so an operation never sees outdated state.
//!
//! | file | what it does |
//! | --- | --- |
//! | `state.rs` | what is stored |
//! | `apply.rs` | one operation |
//! | `promises.rs` | create, get, settle |
//! | `tasks.rs` | the operations on tasks, fenced by their version |
//! | `holders.rs` | who holds a task: announce, acquire, resume, end |
//! | `waits.rs` | callbacks and listeners |
//! | `settlement.rs` | what follows when a promise is settled |
//! | `timers.rs` | what happens by itself when it is due |
//! | `retention.rs` | forgetting flows that are over |
//! | `search.rs` | searches |
//! | `records.rs` | promises and tasks as answers describe them |

mod apply;
mod holders;
mod promises;
mod records;
mod retention;
mod search;
mod settlement;
mod state;
mod tasks;
mod timers;
mod waits;

#[cfg(test)]
mod tests;

pub(crate) use state::{Core, Limits, Message};
