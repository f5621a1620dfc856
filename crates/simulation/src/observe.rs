//! What a process logs and exports, on its way to the record.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use opentelemetry::{
    Context, InstrumentationScope,
    trace::{SpanContext, SpanKind, Status, TraceContextExt, TraceState},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanExporter, SpanLinks},
};
use resonate_otel::Telemetry;
use tracing::{
    Dispatch, Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{self, SubscriberExt},
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

impl Exporter {
    /// A span below the active one, as the code of a step may make it.
    fn user_code(&self) {
        let active = Context::current();
        let parent = active.span().span_context().clone();
        let id = RandomIdGenerator::default().new_span_id();
        let (trace, flags) = (parent.trace_id(), parent.trace_flags());
        let now = SystemTime::now();
        let span = SpanData {
            span_context: SpanContext::new(trace, id, flags, false, TraceState::default()),
            parent_span_id: parent.span_id(),
            parent_span_is_remote: false,
            span_kind: SpanKind::Client,
            name: USER_CODE.into(),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        };
        let (record, instance, life) = (self.record.clone(), self.instance.clone(), self.life);
        record.exported(Exported { instance, life, made: virtual_time::now(), lost: false, span });
    }
}

/// The name of the span that each attempt of a step has below it.
pub const USER_CODE: &str = "user code";

/// Where the log lines and the HTTP spans of one process go.
pub(crate) fn dispatch(exporter: Exporter, telemetry: &Telemetry) -> Dispatch {
    let targets = ["node", "gateway", "resonate_otel", "embedded_server", "simulation"];
    let filter = Targets::new().with_targets(targets.map(|target| (target, Level::INFO)));
    let lines = Lines(exporter);
    Dispatch::new(
        Registry::default()
            .with(lines.with_filter(filter))
            .with(telemetry.layer(Targets::new(), false)),
    )
}

/// Writes log lines to the record.
struct Lines(Exporter);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let Line { message, fields, promise } = line;
        let Exporter { record, instance, .. } = &self.0;
        record.event(instance, &format!("{message}{fields}"), "");
        if message == "step started" {
            record.step_started(instance, &promise);
            self.0.user_code();
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
