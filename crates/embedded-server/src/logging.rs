//! Log lines, on standard error.

use std::io::IsTerminal;

use settings::LogFormat;
use tracing_subscriber::{Layer, Registry, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings::Settings;

impl Settings {
    /// Starts logging for this process. If something else logs already, that stays.
    pub fn start_logging(&self) {
        let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
        let lines = match self.log_format {
            LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        let _ = Registry::default().with(lines.with_filter(self.log.clone())).try_init();
    }
}
