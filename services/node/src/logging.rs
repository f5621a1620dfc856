//! Log lines: one for each event, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Error, Settings};

/// The SDK reports what the transport and the runtime report too, with more context.
const DEFAULT: &str = "info,resonate=off,resonate_sdk=off";

/// Starts logging for this process, by `NODE_LOG` (a filter as of `tracing-subscriber`) and
/// `NODE_LOG_FORMAT` (`human` or `json`).
///
/// # Errors
/// One of the two cannot be used.
pub fn start() -> Result<(), Error> {
    let settings = Settings::load("NODE")?;
    let filter = |text: &str| {
        EnvFilter::try_new(text)
            .map_err(|error| format!("a filter such as info,node=debug is expected ({error})"))
    };
    let default = EnvFilter::new(DEFAULT);
    let filter = settings.get("log", default, |text| filter(&format!("{DEFAULT},{text}")))?;
    let json = settings.get("log_format", false, |text| match text {
        "human" => Ok(false),
        "json" => Ok(true),
        _ => Err("human or json is expected".to_owned()),
    })?;
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start in one process, as in tests, keeps the first one's settings.
    let _ = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    Ok(())
}
