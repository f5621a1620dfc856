//! One flow is one trace: what a collector gets of the whole system, as real processes.
//!
//! The collector is one of the test's own. Most tests compare a trace, rendered as indented text,
//! with the tree that they expect; at the end of each system everything that came is checked
//! against the rules that hold for all traces (`traces/invariants.rs`).
//!
//! ```sh
//! cargo test --test traces
//! ASYNC_RPC_KILLS=50 cargo test --test traces random_kills   # default: 10
//! ASYNC_RPC_SEED=…                                           # the seed that a run has printed
//! ```

#[path = "support/collector.rs"]
mod collector;
#[path = "traces/invariants.rs"]
mod invariants;
#[path = "traces/observed.rs"]
mod observed;
#[allow(dead_code, reason = "each of the test binaries uses a part of it")]
mod support;
#[path = "traces/tree.rs"]
mod tree;

#[path = "traces/contexts.rs"]
mod contexts;
#[path = "traces/crashes.rs"]
mod crashes;
#[path = "traces/flows.rs"]
mod flows;
#[path = "traces/outages.rs"]
mod outages;
#[path = "traces/random_kills.rs"]
mod random_kills;
#[path = "traces/rest.rs"]
mod rest;
#[path = "traces/settlers.rs"]
mod settlers;
