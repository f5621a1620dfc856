//! The `OTEL_*` variables that this crate reads itself.

use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};

/// A variable of OpenTelemetry with an unusable value.
#[derive(Debug, thiserror::Error)]
#[error("invalid {variable} {value:?}: {expected}")]
pub struct ConfigurationError {
    /// Its name.
    pub variable: String,
    /// Its value.
    pub value: String,
    /// What is expected.
    pub expected: String,
}

/// A variable, unless it is empty.
pub(crate) fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// The collector's address and the variable that sets it; none: tracing is off.
pub(crate) fn endpoint() -> Option<(&'static str, String)> {
    if set("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
        return None;
    }
    ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        .into_iter()
        .find_map(|variable| Some((variable, set(variable)?)))
}

/// `OTEL_PROPAGATORS`, which the Rust SDK does not read.
pub(crate) fn propagator() -> Result<TextMapCompositePropagator, ConfigurationError> {
    let names =
        std::env::var("OTEL_PROPAGATORS").unwrap_or_else(|_| "tracecontext,baggage".to_owned());
    let mut propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name {
            "tracecontext" => propagators.push(Box::new(TraceContextPropagator::new())),
            "baggage" => propagators.push(Box::new(BaggagePropagator::new())),
            "none" => {}
            _ => {
                return Err(ConfigurationError {
                    variable: "OTEL_PROPAGATORS".to_owned(),
                    value: names.clone(),
                    expected: "expected a list of tracecontext and baggage, or none".to_owned(),
                });
            }
        }
    }
    Ok(TextMapCompositePropagator::new(propagators))
}

/// A positive integer, or `default` where the variable is not set.
pub(crate) fn positive(variable: &str, default: usize) -> Result<usize, ConfigurationError> {
    let Ok(value) = std::env::var(variable) else { return Ok(default) };
    let number = value.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| ConfigurationError {
        variable: variable.to_owned(),
        value,
        expected: "expected an integer above 0".to_owned(),
    })
}
