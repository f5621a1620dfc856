//! Log lines: one for each event, on standard error.

use std::io::IsTerminal;

use resonate_otel::{Identity, Telemetry, WithTraceIds};
use settings::LogFormat;
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{error::Error, guard, launched::is_launched};

/// The SDKs and TLS report what the layers, the runtime and the exporter report too, with more context.
const OFF: [&str; 4] = ["resonate", "resonate_sdk", "opentelemetry", "rustls_platform_verifier"];

/// What is logged, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct LogSettings {
    /// What is logged: a level, or a filter by target, such as info,hyper=debug
    #[arg(long, env = "NODE_LOG", value_name = "FILTER", default_value = "info", value_parser = settings::filter)]
    pub log: Targets,
    /// How lines are written
    #[arg(long, env = "NODE_LOG_FORMAT", value_name = "FORMAT", default_value = "human")]
    pub log_format: LogFormat,
    /// Which spans of the tracing crate are in traces: a filter by target, such as info,sqlx=debug
    #[arg(long, env = "NODE_SPANS", value_name = "FILTER", default_value = "info", value_parser = settings::filter)]
    pub spans: Targets,
}

/// Starts tracing and logging of a process. The end of the value flushes its spans.
///
/// # Errors
/// A setting of either is unusable.
pub fn telemetry(identity: Identity, settings: &LogSettings) -> Result<Telemetry, Error> {
    let telemetry = Telemetry::start(identity)?;
    start(settings, Some(&telemetry));
    Ok(telemetry)
}

/// Starts logging.
pub fn start(settings: &LogSettings, telemetry: Option<&Telemetry>) {
    let filter = Targets::new()
        .with_default(settings.log.default_level().unwrap_or(LevelFilter::INFO))
        .with_targets(OFF.map(|target| (target, LevelFilter::OFF)))
        // Turning a target off also turns off every target that starts with it.
        .with_target("resonate_otel", LevelFilter::INFO)
        .with_targets(settings.log.iter());
    let ansi = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(ansi);
    let format = fmt::format().with_target(false).with_ansi(ansi);
    let lines = match settings.log_format {
        LogFormat::Json => {
            let format = format.json().flatten_event(true);
            lines.json().event_format(WithTraceIds::new(format)).boxed()
        }
        LogFormat::Human => lines.event_format(WithTraceIds::new(format)).boxed(),
    };
    // At debug level, single requests are spans too.
    let requests = Layer::<Registry>::max_level_hint(&filter) >= Some(LevelFilter::DEBUG);
    // That of the runtime is for log lines only.
    let joining = settings.spans.clone().with_target(guard::TARGET, LevelFilter::OFF);
    let spans = telemetry.and_then(|telemetry| telemetry.layer(joining, requests));
    let subscriber = Registry::default().with(lines.with_filter(filter)).with(spans);
    // A second start in one process, as in tests, keeps the settings of the first one.
    let _ = subscriber.try_init();
}

/// Logs names of settings, and values of OpenTelemetry's, that mean nothing. Under a launcher, the
/// launcher has done so.
pub fn report_unknown(names: &[String]) {
    if !is_launched() {
        names.iter().for_each(|name| tracing::warn!(name, "unknown setting"));
        let ignored = resonate_otel::ignored_variables();
        ignored.iter().for_each(|ignored| tracing::warn!("{ignored}; ignored"));
    }
}
