//! The `OTEL_*` variables, read once and as the specification says: an empty variable counts as
//! unset, and an unknown name or a bad number is ignored with a warning. Only what makes it
//! impossible to export as asked is an error.

mod export;

use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_sdk::{
    propagation::{BaggagePropagator, TraceContextPropagator},
    trace::{Sampler, ShouldSample},
};

pub(crate) use self::export::{Destination, Export, MetricExport};
use crate::limits::Limits;

/// Attributes, events and links of a span, unless a variable says otherwise.
const COUNT: usize = 128;

/// A variable of OpenTelemetry with an unusable value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
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

/// What the variables say. `set`: a variable's value, unless it is empty.
pub(crate) fn settings(
    set: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigurationError> {
    Variables::new(set).settings()
}

/// A variable, unless it is empty.
pub(crate) fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// What the variables say.
#[derive(Debug)]
pub(crate) struct Settings {
    pub propagator: TextMapCompositePropagator,
    /// Whether promises carry baggage: only if it is asked for, since each promise of a flow does.
    pub stores_baggage: bool,
    pub sampler: Box<dyn ShouldSample>,
    pub limits: Limits,
    /// None: tracing is off.
    pub export: Option<Export>,
    /// None: there are no metrics.
    pub metrics: Option<MetricExport>,
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
        let (propagator, stores_baggage) = self.propagator();
        Ok(Settings {
            propagator,
            stores_baggage,
            sampler: self.sampler(),
            limits: self.limits(),
            export: self.export()?,
            metrics: self.metrics()?,
        })
    }

    fn ignore(&mut self, variable: &str, value: &str, expected: &str) {
        let ignored = ConfigurationError::new(variable, value, expected);
        // Several signals read the same variable.
        if !self.ignored.contains(&ignored) {
            self.ignored.push(ignored);
        }
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

    /// `OTEL_PROPAGATORS`, which the Rust SDK does not read, and whether it asks for baggage.
    fn propagator(&mut self) -> (TextMapCompositePropagator, bool) {
        const NAME: &str = "OTEL_PROPAGATORS";
        let names = (self.set)(NAME).unwrap_or_default();
        let mut propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = Vec::new();
        let (mut none, mut baggage) = (false, false);
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "tracecontext" => propagators.push(Box::new(TraceContextPropagator::new())),
                "baggage" => {
                    baggage = true;
                    propagators.push(Box::new(BaggagePropagator::new()));
                }
                "none" => none = true,
                _ => self.ignore(NAME, name, "expected tracecontext, baggage or none"),
            }
        }
        if propagators.is_empty() && !none {
            propagators.push(Box::new(TraceContextPropagator::new()));
            propagators.push(Box::new(BaggagePropagator::new()));
        }
        (TextMapCompositePropagator::new(propagators), baggage)
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
}

fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
