//! One flow is one trace, across services, replicas, crashes and long waits.
//!
//! OpenTelemetry for any application on `resonate-sdk`: [`Traced`] wraps the SDK's network, writes
//! the trace context into each durable promise that is created through it, and emits the spans of
//! what it sees. [`Telemetry`] sets OpenTelemetry up by the `OTEL_*` variables and ends it.
//!
//! No span is open while a flow waits, and none is started for something that another process may
//! end: each is emitted, complete, by the process that knows its end. So whatever is killed, every
//! span's parent was exported early, and nothing is emitted twice by a replay.

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

pub use export::Counts;
pub use network::{Traced, trace_id};
pub use runs::Outcome;
pub use setup::{ConfigurationError, Identity, Telemetry};
