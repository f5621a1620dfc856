//! The system as its user sees it: flows through the gateway, crashes and drains, processes that are
//! frozen or cut off, outages of the Resonate Server, the launcher, and promises that cannot be run.
//!
//! Each test runs on the embedded server and, where `RESONATE_SERVER_BIN` names its executable, on
//! the official one. Most tests print the times that they measure:
//!
//! ```sh
//! cargo test -p launcher --test system kills -- --nocapture
//! ```
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod auth;
mod bounds;
mod cancel;
mod changed;
mod crash;
mod cuts;
mod drain;
mod flow;
mod frozen;
mod groups;
mod kills;
mod launcher;
mod load;
mod openapi;
mod options;
mod outage;
mod poison;
mod service_p;
mod settings;
mod start;
mod stops;
mod viewers;
