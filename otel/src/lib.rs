#![doc = include_str!("../README.md")]

pub mod attributes;
mod context;
mod emit;
mod export;
mod network;
mod observer;
mod runs;
mod setup;
mod spans;
mod steps;
mod wire;

pub use context::in_current_context;
pub use export::Counts;
pub use network::{Traced, trace_id};
pub use runs::Outcome;
pub use setup::{ConfigurationError, Identity, Telemetry};
