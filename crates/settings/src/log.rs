//! What is logged, and how.

use std::fmt::Display;

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
/// What is expected. A part that would match nothing, such as a filter by span, is an error too.
pub fn filter(text: &str) -> Result<Targets, String> {
    let expected =
        |reason: &dyn Display| format!("expected a filter such as info,hyper=debug ({reason})");
    if text.split(',').any(|part| part.trim().is_empty()) {
        return Err(expected(&"a part is empty"));
    }
    let filter: Targets = text.parse().map_err(|error| expected(&error))?;
    let is_none = |name: &str| name.contains(|it: char| it == '[' || it.is_whitespace());
    match filter.iter().find(|(name, _)| is_none(name)) {
        Some((name, _)) => Err(expected(&format_args!("{name:?} is no target"))),
        None => Ok(filter),
    }
}
