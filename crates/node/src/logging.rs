//! Log lines: one for each event, on standard error.

use std::io::IsTerminal;

use resonate_otel::Telemetry;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, fmt, layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{Error, Settings};

/// The SDKs report what the transport, the runtime and the exporter report too, with more context.
/// A target turns off all that begin like it, the tracing crate's too: that has things to say.
const DEFAULT: &str = "info,resonate=off,resonate_sdk=off,resonate_otel=info,opentelemetry=off";

/// Starts logging and tracing for this process, by `NODE_LOG` (a filter as of `tracing-subscriber`) and
/// `NODE_LOG_FORMAT` (`human` or `json`).
///
/// # Errors
/// One of the two cannot be used.
pub fn start(telemetry: Option<&Telemetry>) -> Result<(), Error> {
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
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match json {
        true => lines.json().flatten_event(true).boxed(),
        false => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    // Whoever logs at debug level wants to see single requests in traces too.
    let requests = filter.max_level_hint().is_some_and(|level| level >= LevelFilter::DEBUG);
    let spans = telemetry.and_then(|telemetry| telemetry.layer(requests));
    let subscriber = Registry::default().with(lines.with_filter(filter)).with(spans);
    // A second start in one process, as in tests, keeps the first one's settings.
    let _ = subscriber.try_init();
    Ok(())
}
