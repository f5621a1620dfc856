//! The metrics of the whole system: what a collector receives, and what a real Prometheus answers to
//! the queries of the dashboard.
//!
//! ```sh
//! cargo test -p launcher --test metrics
//! PROMETHEUS_BIN=… cargo test -p launcher --test metrics   # with the queries of the dashboard
//! PROMETHEUS_BIN=… JAEGER_BIN=… cargo test -p launcher --test metrics   # and Jaeger's Monitor tab
//! ```
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod collected;
mod dashboard;
mod documented;
mod monitor;
mod prometheus;
