//! What is logged, and how.

use clap::ValueEnum;
use tracing_subscriber::filter::Targets;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// A level, or a filter by target: info, or info,hyper=debug.
///
/// # Errors
/// What is expected.
pub fn filter(text: &str) -> Result<Targets, String> {
    text.parse().map_err(|error| format!("expected a filter such as info,hyper=debug ({error})"))
}
