//! Log lines, on standard error.

use std::io::IsTerminal;

use settings::LogFormat;
use tracing_subscriber::EnvFilter;

use crate::settings::Settings;

impl Settings {
    /// Starts logging for this process. If something else logs already, that stays.
    pub fn start_logging(&self) {
        let lines = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(&self.log))
            .with_writer(std::io::stderr)
            .with_target(false);
        let _ = match self.log_format {
            LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
        };
    }
}
