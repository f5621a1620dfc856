//! The `OTEL_*` variables, read once and as the specification says: an empty variable counts as
//! unset, and an unknown name or a bad number is ignored with a warning. Only what makes it
//! impossible to export as asked is an error.

use std::{collections::HashMap, time::Duration};

use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_otlp::Compression;
use opentelemetry_sdk::{
    propagation::{BaggagePropagator, TraceContextPropagator},
    trace::{Sampler, ShouldSample},
};

use percent_encoding::percent_decode_str;

use crate::limits::Limits;

/// Spans reach the collector about this long after their end, unless `OTEL_BSP_SCHEDULE_DELAY` says
/// otherwise: a crash should show while one is still looking.
const SCHEDULE_DELAY: u64 = 500;

/// Most spans that wait for the collector, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise.
const QUEUE: usize = 2048;

/// Most spans in one export, unless `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` says otherwise.
const BATCH: usize = 512;

/// Time-out of one export in milliseconds, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const TIMEOUT: u64 = 10_000;

/// Attributes, events and links of a span, unless a variable says otherwise.
const COUNT: usize = 128;

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const COMPRESSIONS: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];

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

impl ConfigurationError {
    fn new(variable: &str, value: &str, expected: impl Into<String>) -> Self {
        Self { variable: variable.to_owned(), value: value.to_owned(), expected: expected.into() }
    }
}

/// The variables with values that are ignored, because they mean nothing here. Log them once
/// logging has started: it starts after [`crate::Telemetry`].
pub fn ignored_variables() -> Vec<ConfigurationError> {
    let mut variables = Variables::new(&set);
    // An error ends the start of the telemetry, which reports it.
    let _ = variables.settings();
    variables.ignored
}

/// What the variables of this process say.
pub(crate) fn settings() -> Result<Settings, ConfigurationError> {
    Variables::new(&set).settings()
}

/// A variable, unless it is empty.
pub(crate) fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// What the variables say.
#[derive(Debug)]
pub(crate) struct Settings {
    pub propagator: TextMapCompositePropagator,
    pub sampler: Box<dyn ShouldSample>,
    pub limits: Limits,
    /// None: tracing is off.
    pub export: Option<Export>,
}

/// How spans are exported.
#[derive(Debug)]
pub(crate) struct Export {
    /// The variable that sets the endpoint, and its value.
    pub given: (&'static str, String),
    /// The complete address.
    pub endpoint: String,
    /// Only headers that the exporter does not find itself.
    pub headers: HashMap<String, String>,
    pub timeout: Duration,
    pub compression: Option<Compression>,
    pub queue: usize,
    pub batch: usize,
    pub delay: Duration,
}

/// Reads variables and collects what is ignored.
struct Variables<'a> {
    set: &'a dyn Fn(&str) -> Option<String>,
    ignored: Vec<ConfigurationError>,
}

impl<'a> Variables<'a> {
    /// `set`: a variable's value, unless it is empty.
    fn new(set: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { set, ignored: Vec::new() }
    }

    fn settings(&mut self) -> Result<Settings, ConfigurationError> {
        Ok(Settings {
            propagator: self.propagator(),
            sampler: self.sampler(),
            limits: self.limits(),
            export: self.export()?,
        })
    }

    fn ignore(&mut self, variable: &str, value: &str, expected: &str) {
        self.ignored.push(ConfigurationError::new(variable, value, expected));
    }

    /// The first of these variables that is set.
    fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, String)> {
        names.iter().find_map(|name| Some((*name, (self.set)(name)?)))
    }

    /// The first of these variables that is a number `from` or above.
    fn number(&mut self, names: &[&str], from: u64) -> Option<u64> {
        for name in names {
            let Some(value) = (self.set)(name) else { continue };
            match value.trim().parse() {
                Ok(number) if number >= from => return Some(number),
                _ => self.ignore(name, &value, &format!("expected an integer, {from} or more")),
            }
        }
        None
    }

    fn size(&mut self, name: &str, default: usize) -> usize {
        self.number(&[name], 1).and_then(|size| size.try_into().ok()).unwrap_or(default)
    }

    /// `OTEL_PROPAGATORS`, which the Rust SDK does not read.
    fn propagator(&mut self) -> TextMapCompositePropagator {
        const NAME: &str = "OTEL_PROPAGATORS";
        let names = (self.set)(NAME).unwrap_or_default();
        let mut propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = Vec::new();
        let mut none = false;
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "tracecontext" => propagators.push(Box::new(TraceContextPropagator::new())),
                "baggage" => propagators.push(Box::new(BaggagePropagator::new())),
                "none" => none = true,
                _ => self.ignore(NAME, name, "expected tracecontext, baggage or none"),
            }
        }
        if propagators.is_empty() && !none {
            propagators.push(Box::new(TraceContextPropagator::new()));
            propagators.push(Box::new(BaggagePropagator::new()));
        }
        TextMapCompositePropagator::new(propagators)
    }

    /// `OTEL_TRACES_SAMPLER`. The SDK reads it too, but reports nothing that a user would see.
    fn sampler(&mut self) -> Box<dyn ShouldSample> {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let given = (self.set)(NAME);
        let name = given.as_deref().map_or("parentbased_always_on", str::trim);
        let root = match name.strip_prefix("parentbased_").unwrap_or(name) {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(self.ratio()),
            _ => {
                let expected = "expected always_on, always_off or traceidratio, \
                    each also with parentbased_ before it; using parentbased_always_on";
                self.ignore(NAME, name, expected);
                return Box::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
            }
        };
        match name.starts_with("parentbased_") {
            true => Box::new(Sampler::ParentBased(Box::new(root))),
            false => Box::new(root),
        }
    }

    fn ratio(&mut self) -> f64 {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(value) = (self.set)(NAME) else { return 1.0 };
        match value.trim().parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                self.ignore(NAME, &value, "expected a number from 0 to 1; using 1");
                1.0
            }
        }
    }

    fn limits(&mut self) -> Limits {
        let mut count = |names: &[&str]| self.number(names, 0).map_or(COUNT, clamp);
        Limits {
            attributes: count(&["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"]),
            events: count(&["OTEL_SPAN_EVENT_COUNT_LIMIT"]),
            links: count(&["OTEL_SPAN_LINK_COUNT_LIMIT"]),
            value_length: self
                .number(
                    &[
                        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
                        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
                    ],
                    0,
                )
                .map(clamp),
        }
    }

    fn export(&mut self) -> Result<Option<Export>, ConfigurationError> {
        if self.off() {
            return Ok(None);
        }
        let Some((variable, given)) = self.first(&ENDPOINTS) else { return Ok(None) };
        self.protocol()?;
        let endpoint = match variable == ENDPOINTS[0] {
            true => given.clone(),
            false => format!("{}/v1/traces", given.trim_end_matches('/')),
        };
        let queue = self.size("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE);
        let delay = self.number(&["OTEL_BSP_SCHEDULE_DELAY"], 0).unwrap_or(SCHEDULE_DELAY);
        Ok(Some(Export {
            given: (variable, given),
            endpoint,
            headers: self.headers(),
            timeout: Duration::from_millis(self.number(&TIMEOUTS, 1).unwrap_or(TIMEOUT)),
            compression: self.compression()?,
            queue,
            batch: self.size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH).min(queue),
            delay: Duration::from_millis(delay),
        }))
    }

    /// Whether tracing is turned off.
    fn off(&mut self) -> bool {
        const DISABLED: &str = "OTEL_SDK_DISABLED";
        const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
        if let Some(value) = (self.set)(DISABLED) {
            match value.trim().to_ascii_lowercase().as_str() {
                "true" => return true,
                "false" => {}
                _ => self.ignore(DISABLED, &value, "expected true or false"),
            }
        }
        let names = (self.set)(EXPORTER).unwrap_or_default();
        let mut off = false;
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "none" => off = true,
                "otlp" => {}
                _ => self.ignore(EXPORTER, name, "expected otlp or none"),
            }
        }
        off
    }

    /// Refuses the protocols of OTLP that this exporter does not speak.
    fn protocol(&mut self) -> Result<(), ConfigurationError> {
        let Some((variable, value)) = self.first(&PROTOCOLS) else { return Ok(()) };
        match value.trim() {
            "http/protobuf" => {}
            "grpc" | "http/json" => {
                let expected = "it is not supported; use http/protobuf, \
                    and the collector's port for HTTP, usually 4318";
                return Err(ConfigurationError::new(variable, &value, expected));
            }
            _ => self.ignore(variable, &value, "expected http/protobuf"),
        }
        Ok(())
    }

    fn compression(&mut self) -> Result<Option<Compression>, ConfigurationError> {
        let Some((variable, value)) = self.first(&COMPRESSIONS) else { return Ok(None) };
        match value.trim() {
            "gzip" => return Ok(Some(Compression::Gzip)),
            "none" => {}
            "zstd" => {
                let expected = "it is not supported; use gzip or none";
                return Err(ConfigurationError::new(variable, &value, expected));
            }
            _ => self.ignore(variable, &value, "expected gzip or none"),
        }
        Ok(None)
    }

    /// The exporter reads its headers itself, but an empty variable for traces hides the general
    /// one from it.
    fn headers(&self) -> HashMap<String, String> {
        if (self.set)(HEADERS[0]).is_some() {
            return HashMap::new();
        }
        let text = (self.set)(HEADERS[1]).unwrap_or_default();
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let decode = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
        pairs.map(|(name, value)| (name.trim().to_owned(), decode(value))).collect()
    }
}

fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
