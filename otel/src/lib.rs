#![doc = include_str!("../README.md")]

pub mod attributes;
mod builder;
mod context;
mod emit;
mod export;
mod flow;
mod globals;
mod identity;
mod limits;
mod log;
mod metrics;
mod network;
mod promise_spans;
mod run_spans;
mod steps;
mod telemetry;
mod traced;
mod variables;

pub use builder::TelemetryBuilder;
pub use context::span_context;
pub use export::Counts;
pub use flow::{FlowSpan, FlowTracer, ServerSpan};
pub use identity::Identity;
pub use log::WithTraceIds;
pub use metrics::{Attempt, ClientRequests, Metrics};
pub use network::{TracedNetwork, send_text};
pub use run_spans::Outcome;
pub use telemetry::Telemetry;
pub use traced::{Traced, TracedFunction, TracedStep, released_mark};
pub use variables::{ConfigurationError, ignored_variables};
