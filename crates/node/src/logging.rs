//! Log lines: one for each event, on standard error.

use std::io::IsTerminal;

use resonate_otel::{Identity, Telemetry};
use settings::{LogFormat, SettingError};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, fmt, layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{error::Error, launched::LAUNCHED};

/// The SDKs report what the layers, the runtime and the exporter report too, with more context.
/// Turning a target off turns off all that begin like it, so the tracing crate is turned on again.
const DEFAULT: &str = "info,resonate=off,resonate_sdk=off,resonate_otel=info,opentelemetry=off";

/// What is logged, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct LogSettings {
    /// What is logged: a filter of tracing-subscriber, such as info,hyper=debug
    #[arg(long, env = "NODE_LOG", value_name = "FILTER", default_value = "info", value_parser = settings::filter)]
    pub log: String,
    /// How lines are written
    #[arg(long, env = "NODE_LOG_FORMAT", value_name = "FORMAT", default_value = "human")]
    pub log_format: LogFormat,
}

/// Starts tracing and logging of a process. The end of the value flushes its spans.
///
/// # Errors
/// A setting of either is unusable.
pub fn telemetry(identity: Identity, settings: &LogSettings) -> Result<Telemetry, Error> {
    let telemetry = Telemetry::start(identity)?;
    start(settings, Some(&telemetry))?;
    Ok(telemetry)
}

/// Starts logging.
///
/// # Errors
/// The filter is unusable.
pub fn start(settings: &LogSettings, telemetry: Option<&Telemetry>) -> Result<(), Error> {
    let filter = EnvFilter::try_new(format!("{DEFAULT},{}", settings.log))
        .map_err(|error| SettingError::new("NODE_LOG", &settings.log, error.to_string()))?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match settings.log_format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    // At debug level, single requests are spans too.
    let requests = filter.max_level_hint().is_some_and(|level| level >= LevelFilter::DEBUG);
    let spans = telemetry.and_then(|telemetry| telemetry.layer(requests));
    let subscriber = Registry::default().with(lines.with_filter(filter)).with(spans);
    // A second start in one process, as in tests, keeps the settings of the first one.
    let _ = subscriber.try_init();
    Ok(())
}

/// Logs names of settings, and values of OpenTelemetry's, that mean nothing. Under a launcher, the
/// launcher has done so.
pub fn report_unknown(names: &[String]) {
    if std::env::var_os(LAUNCHED).is_none() {
        names.iter().for_each(|name| tracing::warn!(name, "unknown setting"));
        let ignored = resonate_otel::ignored_variables();
        ignored.iter().for_each(|ignored| tracing::warn!("{ignored}; ignored"));
    }
}
