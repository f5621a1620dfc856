//! Who emits.

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
};

use crate::variables;

/// Who emits: the attributes `service.*` of every span of a process.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `service.name`: the group, which all replicas share.
    pub name: String,
    /// `service.instance.id`: unique to the process.
    pub instance: String,
    /// `service.namespace`; empty: none.
    pub namespace: &'static str,
    /// `service.version`.
    pub version: &'static str,
}

impl Identity {
    /// The OpenTelemetry resource. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over
    /// what the application says of itself.
    pub(crate) fn resource(&self) -> Resource {
        let name = variables::set("OTEL_SERVICE_NAME").unwrap_or_else(|| self.name.clone());
        let namespace = (!self.namespace.is_empty())
            .then(|| KeyValue::new("service.namespace", self.namespace));
        Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes([
                KeyValue::new("service.instance.id", self.instance.clone()),
                KeyValue::new("service.version", self.version),
            ])
            .with_attributes(namespace)
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attribute(KeyValue::new("service.name", name))
            .build()
    }
}
