//! Names of the attributes, events, headers and log targets that this crate writes.

use std::sync::Arc;

use opentelemetry::KeyValue;
use wire::Promise;

/// Id of the durable promise that a span is about.
pub const PROMISE_ID: &str = "resonate.promise.id";
/// State of the promise at the end of the span: `resolved`, `rejected`, `rejected_timedout`, …
pub const PROMISE_STATE: &str = "resonate.promise.state";
/// Name of a flow, on its span.
pub const FLOW: &str = "resonate.flow";
/// Name of the durable function.
pub const FUNCTION: &str = "resonate.function";
/// The group that a call is sent to, or that runs it.
pub const GROUP: &str = "resonate.group";
/// Version of the task: how often it was acquired, this run included.
pub const TASK_VERSION: &str = "resonate.task.version";
/// How a run ended: see [`crate::Outcome`].
pub const RUN_OUTCOME: &str = "resonate.run.outcome";
/// True on a run that took over from a dead one, and on a step that it ran again.
pub const TAKEOVER: &str = "resonate.takeover";
/// True on a request that found a promise which an earlier one had created.
pub const RECONNECTED: &str = "resonate.reconnected";
/// The process that lost a lease: its `service.instance.id`.
pub const LEASE_INSTANCE: &str = "resonate.lease.instance";

/// In metrics: whether an invocation is the first one of its flow.
pub const ROOT: &str = "resonate.root";
/// In metrics: the kind of a request to the Resonate Server, such as `task.fence`.
pub const REQUEST_KIND: &str = "resonate.request.kind";
/// In metrics: whether a request was sent before.
pub const REQUEST_REPEATED: &str = "resonate.request.repeated";

/// Event on a step that a dead run had begun: the moment from which another process ran it again.
pub const TAKEOVER_EVENT: &str = "takeover";
/// The process that ran it again.
pub const INSTANCE: &str = "resonate.instance";

/// OpenTelemetry's attribute for why a span failed: the type of the error of a step, or a word for what
/// happened, such as `rejected_timedout` or `lease_expired`.
pub const ERROR_TYPE: &str = "error.type";

/// The `error.type` of a call whose process ended before it knew whether the promise was created.
pub const UNANSWERED: &str = "unanswered";

/// OpenTelemetry's attributes of a span that sends or processes a message: a call is one.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// What is done with the message, as the system names it.
pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
/// What is done with the message, as OpenTelemetry names it.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// Where the message goes: the group.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// The id of the message: that of the promise.
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";

/// OpenTelemetry's event for a failed attempt.
pub const EXCEPTION: &str = "exception";
/// Type of the error of a failed attempt: the variant of the SDK's error.
pub const EXCEPTION_TYPE: &str = "exception.type";
/// Message of the error of a failed attempt.
pub const EXCEPTION_MESSAGE: &str = "exception.message";

pub(crate) const HTTP_METHOD: &str = "http.request.method";
pub(crate) const HTTP_STATUS: &str = "http.response.status_code";
pub(crate) const HTTP_ROUTE: &str = "http.route";
pub(crate) const URL_SCHEME: &str = "url.scheme";
pub(crate) const SERVER_ADDRESS: &str = "server.address";
pub(crate) const SERVER_PORT: &str = "server.port";
#[cfg(feature = "metrics")]
pub(crate) const COMPONENT_NAME: &str = "otel.component.name";
#[cfg(feature = "metrics")]
pub(crate) const COMPONENT_TYPE: &str = "otel.component.type";

/// In `param.headers` of a flow's first promise: the id of the flow's span.
pub(crate) const HEADER_FLOW: &str = "resonate-otel-flow";
/// In `param.headers` of whatever a run creates: the process that created it.
pub const HEADER_INSTANCE: &str = "resonate-otel-instance";
/// In `param.headers` of whatever a run creates: the version of the task that created it.
pub const HEADER_VERSION: &str = "resonate-otel-version";
/// In `param.headers` of the mark of a run that was released in the middle of a step.
pub(crate) const HEADER_RELEASED: &str = "resonate-otel-released";
/// In `value.headers` of a promise that a task's run settled, steps included: the process and the
/// version, with a space between them.
pub const HEADER_SETTLER: &str = "resonate-otel-settler";
/// In `value.headers` of a step: when the run that settled it began to run it, in Unix milliseconds of
/// its process's clock.
pub const HEADER_BEGUN: &str = "resonate-otel-begun";
/// In `value.headers` of a step: how many of its attempts failed in the run that settled it.
pub const HEADER_FAILURES: &str = "resonate-otel-failures";

/// The `tracing` target of the spans of single requests to the Resonate Server.
pub(crate) const REQUEST_TARGET: &str = "resonate_otel::request";

/// What an observation is about. Clones share the names: each span and each measurement has them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    pub function: Option<Arc<str>>,
    pub group: Option<Arc<str>>,
}

impl Subject {
    pub fn of(promise: &Promise) -> Self {
        Self { function: promise.function().map(Arc::from), group: promise.group().map(Arc::from) }
    }

    /// The attributes of a span about `promise`.
    pub fn attributes(&self, promise: Arc<str>) -> impl Iterator<Item = KeyValue> + use<> {
        let Self { function, group } = self.clone();
        [
            Some(KeyValue::new(PROMISE_ID, promise)),
            function.map(|function| KeyValue::new(FUNCTION, function)),
            group.map(|group| KeyValue::new(GROUP, group)),
        ]
        .into_iter()
        .flatten()
    }
}

/// What a span does with the call `promise` to `group`: `operation` is the name in Resonate's terms, and
/// `kind` the type in OpenTelemetry's.
pub(crate) fn messaging(
    operation: &'static str,
    kind: &'static str,
    group: Option<Arc<str>>,
    promise: Arc<str>,
) -> impl Iterator<Item = KeyValue> {
    let group = group.map(|group| KeyValue::new(MESSAGING_DESTINATION_NAME, group));
    [
        KeyValue::new(MESSAGING_SYSTEM, "resonate"),
        KeyValue::new(MESSAGING_OPERATION_NAME, operation),
        KeyValue::new(MESSAGING_OPERATION_TYPE, kind),
        KeyValue::new(MESSAGING_MESSAGE_ID, promise),
    ]
    .into_iter()
    .chain(group)
}
