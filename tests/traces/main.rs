//! One flow is one trace: what a collector receives from the whole system.
//!
//! The collector runs in the test. Most tests compare a trace, rendered as indented text, with a
//! snapshot. At the end of each system, everything that arrived is checked against the rules that
//! hold for all traces (`invariants.rs`). `jaeger.rs` reads traces back from a real Jaeger, if there
//! is one.
//!
//! ```sh
//! cargo test -p launcher --test traces
//! ASYNC_RPC_KILLS=50 cargo test -p launcher --test traces random_kills   # default: 10
//! ASYNC_RPC_SEED=…   # random_kills with the same random choices; it prints its seed
//! ```
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod observed;

mod cancel;
mod contexts;
mod crashes;
mod flows;
mod invariants;
mod jaeger;
mod outages;
mod poison;
mod proxy;
mod random_kills;
mod requests;
mod rest;
mod restart;
mod settlers;
mod shop;
mod tree;
mod user_code;
