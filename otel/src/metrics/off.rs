//! No export: the crate is built without the feature `metrics`.

use std::{sync::Arc, time::Duration};

use opentelemetry::metrics::Meter;
use opentelemetry_sdk::Resource;

use crate::{
    export::Counts,
    variables::{ConfigurationError, MetricExport},
};

/// It has no values: this build exports no metrics.
#[derive(Debug, Clone)]
pub(crate) enum Export {}

impl Export {
    pub fn start(
        settings: &MetricExport,
        _: Resource,
        _: &str,
    ) -> Result<Self, ConfigurationError> {
        Err(settings.to.invalid("this build lacks the feature `metrics`"))
    }

    pub fn meter(&self) -> Meter {
        match *self {}
    }

    pub fn observe_spans(&self, _: &Arc<Counts>) {
        match *self {}
    }

    pub fn end(&self, _: Duration) {
        match *self {}
    }
}
