//! Where spans and metrics are exported to, and how.

use std::{collections::HashMap, fmt::Display, time::Duration};

use opentelemetry_otlp::Compression;
#[cfg(feature = "metrics")]
use opentelemetry_sdk::metrics::Temporality;
use percent_encoding::percent_decode_str;

use super::{ConfigurationError, Variables};

/// Spans reach the collector about this long after their end, unless `OTEL_BSP_SCHEDULE_DELAY` says
/// otherwise: a crash should be visible while somebody is still watching.
const SCHEDULE_DELAY: u64 = 500;

/// Most spans that wait for the collector, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise.
const QUEUE: usize = 2048;

/// Most spans in one export, unless `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` says otherwise.
const BATCH: usize = 512;

/// Time-out of one export in milliseconds, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const TIMEOUT: u64 = 10_000;

/// Time between two exports of metrics in milliseconds, unless `OTEL_METRIC_EXPORT_INTERVAL` says
/// otherwise.
#[cfg(feature = "metrics")]
const INTERVAL: u64 = 60_000;

/// What is exported. Of each pair of variables the first one wins.
struct Signal {
    exporter: &'static str,
    path: &'static str,
    endpoints: [&'static str; 2],
    headers: [&'static str; 2],
    timeouts: [&'static str; 2],
    protocols: [&'static str; 2],
    compressions: [&'static str; 2],
}

const TRACES: Signal = Signal {
    exporter: "OTEL_TRACES_EXPORTER",
    path: "/v1/traces",
    endpoints: ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    headers: ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
    timeouts: ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
    protocols: ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
    compressions: ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"],
};

const METRICS: Signal = Signal {
    exporter: "OTEL_METRICS_EXPORTER",
    path: "/v1/metrics",
    endpoints: ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    headers: ["OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
    timeouts: ["OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
    protocols: ["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
    compressions: ["OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"],
};

/// How spans are exported.
#[derive(Debug)]
pub(crate) struct Export {
    pub to: Destination,
    pub queue: usize,
    pub batch: usize,
    pub delay: Duration,
}

/// How metrics are exported.
#[derive(Debug)]
pub(crate) struct MetricExport {
    pub to: Destination,
    #[cfg(feature = "metrics")]
    pub interval: Duration,
    #[cfg(feature = "metrics")]
    pub temporality: Temporality,
}

/// Where something is exported to, and how.
#[derive(Debug)]
pub(crate) struct Destination {
    /// The variable that sets the endpoint, and its value.
    pub given: (&'static str, String),
    /// The complete address.
    pub endpoint: String,
    /// Only headers that the exporter does not find itself.
    pub headers: HashMap<String, String>,
    pub timeout: Duration,
    pub compression: Option<Compression>,
}

impl Destination {
    /// The address as logs may show it: without user, password and query, which may be secrets.
    pub fn shown(&self) -> String {
        shown(&self.endpoint)
    }

    /// Nothing can be exported to it, for this reason.
    pub fn invalid(&self, error: impl Display) -> ConfigurationError {
        let (variable, value) = &self.given;
        // The exporter's own error quotes the address.
        let error = error.to_string().replace(&self.endpoint, &self.shown());
        let expected =
            format!("expected an OTLP/HTTP address such as http://127.0.0.1:4318 ({error})");
        ConfigurationError::new(variable, &shown(value), expected)
    }
}

/// A password that is not escaped may have any of `/?#@`.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

impl Variables<'_> {
    pub fn export(&mut self) -> Result<Option<Export>, ConfigurationError> {
        let Some(to) = self.destination(&TRACES)? else { return Ok(None) };
        let queue = self.size("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE);
        let delay = self.number(&["OTEL_BSP_SCHEDULE_DELAY"], 0).unwrap_or(SCHEDULE_DELAY);
        Ok(Some(Export {
            to,
            queue,
            batch: self.size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH).min(queue),
            delay: Duration::from_millis(delay),
        }))
    }

    pub fn metrics(&mut self) -> Result<Option<MetricExport>, ConfigurationError> {
        if cfg!(not(feature = "metrics")) {
            return Ok(None);
        }
        let Some(to) = self.destination(&METRICS)? else { return Ok(None) };
        Ok(Some(MetricExport {
            to,
            #[cfg(feature = "metrics")]
            interval: self.interval(),
            #[cfg(feature = "metrics")]
            temporality: self.temporality(),
        }))
    }

    #[cfg(feature = "metrics")]
    fn interval(&mut self) -> Duration {
        let interval = self.number(&["OTEL_METRIC_EXPORT_INTERVAL"], 1).unwrap_or(INTERVAL);
        Duration::from_millis(interval)
    }

    #[cfg(feature = "metrics")]
    fn temporality(&mut self) -> Temporality {
        const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let Some(value) = (self.set)(NAME) else { return Temporality::Cumulative };
        value.trim().parse().unwrap_or_else(|()| {
            self.ignore(NAME, &value, "expected cumulative, delta or lowmemory");
            Temporality::Cumulative
        })
    }

    /// `None`: the signal is turned off, or has no endpoint.
    fn destination(&mut self, of: &Signal) -> Result<Option<Destination>, ConfigurationError> {
        if self.off(of) {
            return Ok(None);
        }
        let Some((variable, given)) = self.first(&of.endpoints) else { return Ok(None) };
        self.protocol(of)?;
        let endpoint = match variable == of.endpoints[0] {
            true => given.clone(),
            false => format!("{}{}", given.trim_end_matches('/'), of.path),
        };
        Ok(Some(Destination {
            given: (variable, given),
            endpoint,
            headers: self.headers(of),
            timeout: Duration::from_millis(self.number(&of.timeouts, 1).unwrap_or(TIMEOUT)),
            compression: self.compression(of)?,
        }))
    }

    /// Whether a signal is turned off.
    fn off(&mut self, Signal { exporter, .. }: &Signal) -> bool {
        const DISABLED: &str = "OTEL_SDK_DISABLED";
        if let Some(value) = (self.set)(DISABLED) {
            match value.trim().to_ascii_lowercase().as_str() {
                "true" => return true,
                "false" => {}
                _ => self.ignore(DISABLED, &value, "expected true or false"),
            }
        }
        let names = (self.set)(exporter).unwrap_or_default();
        let mut off = false;
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "none" => off = true,
                "otlp" => {}
                _ => self.ignore(exporter, name, "expected otlp or none"),
            }
        }
        off
    }

    /// Refuses the protocols of OTLP that this exporter does not speak.
    fn protocol(&mut self, of: &Signal) -> Result<(), ConfigurationError> {
        let Some((variable, value)) = self.first(&of.protocols) else { return Ok(()) };
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

    fn compression(&mut self, of: &Signal) -> Result<Option<Compression>, ConfigurationError> {
        let Some((variable, value)) = self.first(&of.compressions) else { return Ok(None) };
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

    /// The exporter reads its headers itself, but an empty variable for one signal hides the general
    /// one from it.
    fn headers(&self, of: &Signal) -> HashMap<String, String> {
        if (self.set)(of.headers[0]).is_some() {
            return HashMap::new();
        }
        let text = (self.set)(of.headers[1]).unwrap_or_default();
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let decode = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
        pairs.map(|(name, value)| (name.trim().to_owned(), decode(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_logs_show_of_an_address_is_no_secret() {
        for (url, expected) in [
            ("http://jaeger:4318/v1/traces", "http://jaeger:4318/v1/traces"),
            ("https://user:s3/cr?t@x.example/v1/traces?key=s3cret", "https://x.example/v1/traces"),
            ("user:s3cret@jaeger:4318", "jaeger:4318"),
            ("jaeger:4318", "jaeger:4318"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
