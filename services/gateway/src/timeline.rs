//! What happened in a flow, for its page: read from its durable promises, so it needs no tracing.
//!
//! | module | what it does |
//! | --- | --- |
//! | `record` | what one promise or task says |
//! | `known` | what is known of a flow, and the requests that find out more |
//! | `attempts` | who ran a step or function when, and where nobody did |
//! | `outage` | when the gateway could not reach the server |
//! | `gone` | the processes that died, and how to start them again |
//! | `rows` | the rows of the drawing, and the segments in them |
//! | `view` | everything that the page draws |
//! | `story` | the same in sentences |
//! | `look_back` | flows that have ended late, for `GET /stats` |
//! | `watch` | one watcher of each flow that somebody looks at |
//!
//! Times are Unix milliseconds of the server's clock. What cannot be known is left out: without the
//! crash button, a process died at its last sign of life.

mod attempts;
mod gone;
mod known;
mod look_back;
mod outage;
mod record;
mod rows;
mod story;
#[cfg(test)]
mod tests;
mod view;
mod watch;

pub use self::look_back::LookBack;
pub use self::watch::{Published, Viewer, Watchers, own_clock};
