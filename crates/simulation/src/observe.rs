//! What a process logs and exports, on its way to the record.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use resonate_otel::Telemetry;
use tracing::{
    Dispatch, Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{Context, SubscriberExt},
};

use crate::record::{Exported, Record};

/// Hands each span to the record until the process is dead.
#[derive(Clone)]
pub(crate) struct Exporter {
    pub record: Record,
    pub instance: String,
    pub life: u32,
    pub alive: Arc<AtomicBool>,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_tuple("Exporter").field(&self.instance).finish()
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        for span in spans.into_iter().filter(|_| self.alive.load(Ordering::Relaxed)) {
            self.record.event(&self.instance, &format!("span {}", span.name), "");
            self.record.exported(Exported {
                instance: self.instance.clone(),
                life: self.life,
                made: virtual_time::now(),
                lost: false,
                span,
            });
        }
        Ok(())
    }
}

/// Where the log lines and the HTTP spans of one process go.
pub(crate) fn dispatch(record: Record, instance: &str, telemetry: &Telemetry) -> Dispatch {
    let targets = ["node", "gateway", "resonate_otel", "embedded_server", "simulation"];
    let filter = Targets::new().with_targets(targets.map(|target| (target, Level::INFO)));
    let lines = Lines { record, instance: instance.to_owned() };
    Dispatch::new(Registry::default().with(lines.with_filter(filter)).with(telemetry.layer(false)))
}

/// Writes log lines to the record.
struct Lines {
    record: Record,
    instance: String,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let Line { message, fields, promise } = line;
        self.record.event(&self.instance, &format!("{message}{fields}"), "");
        if message == "step started" {
            self.record.step_started(&self.instance, &promise);
        }
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
    promise: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "promise" {
            self.promise = value.to_owned();
        }
        self.record_debug(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
