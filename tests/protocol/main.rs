//! The protocol, case by case.
//!
//! Each case runs against the embedded server, and against the official one where
//! `RESONATE_SERVER_BIN` names its executable: what passes on both behaves the same on both.
//!
//! ```sh
//! cargo test -p embedded-server --test protocol heartbeats_keep_a_lease
//! ```
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod harness;

mod auth;
mod client;
mod delivery;
mod embedded;
mod envelopes;
mod fences;
mod histories;
mod promises;
mod refusals;
mod servers;
mod tasks;
mod times;
mod waits;

use std::process::ExitCode;

/// The cases that run against both servers.
fn cases() -> impl Iterator<Item = &'static harness::Case> {
    let lists = [
        envelopes::CASES,
        refusals::CASES,
        promises::CASES,
        tasks::CASES,
        fences::CASES,
        waits::CASES,
        times::CASES,
        delivery::CASES,
    ];
    lists.into_iter().flatten()
}

fn main() -> ExitCode {
    harness::run(cases(), &[auth::TESTS, embedded::TESTS, histories::TESTS].concat())
}
