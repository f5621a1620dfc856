//! The span of a flow, and the span of a request that starts a flow or finds it.
//!
//! The server tells only with its answer whether it created the flow's first promise or found it. So
//! both spans are made once that is known: see [`Outcome`].

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use opentelemetry::{
    Context, KeyValue, SpanId,
    context::FutureExt,
    propagation::Extractor,
    trace::{Link, SpanContext, SpanKind, Status, TraceContextExt},
};
use opentelemetry_sdk::trace::IdGenerator;
use tokio::{runtime::Handle, sync::SetOnce};
use wire::{Answer, ExchangeError, Pairs, Promise};

use crate::{
    Telemetry, attributes as key, context,
    emit::{Emitter, Finished},
};

/// Makes the spans of the flows that this process starts. Clones share everything.
///
/// A flow that is started below the span of a request has a root that is exported last, and never if
/// the process dies first. Here the flow has a span of its own, which ends when the flow has started:
/// it is exported first, and the request is its child.
///
/// ```
/// # use opentelemetry::KeyValue;
/// # use resonate_otel::{FlowTracer, Telemetry};
/// # use resonate_sdk::prelude::{Resonate, Result};
/// # use std::collections::HashMap;
/// # async fn handle(tracer: FlowTracer, resonate: Resonate, headers: HashMap<String, String>) -> Result<()> {
/// // When a request arrives; `opentelemetry-http` reads contexts from HTTP headers.
/// let mut request = tracer.server_span("POST /orders", &headers);
/// let flow = request.flow("order");
/// let order = flow.start(resonate.rpc::<_, String>("order-1", "order", 1).spawn()).await?;
/// order.result().await?;
/// request.set_attribute(KeyValue::new("http.response.status_code", 200));
/// // The span ends when it is dropped.
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FlowTracer {
    /// `None`: tracing is off. Contexts travel all the same.
    emitter: Option<Arc<Emitter>>,
}

impl FlowTracer {
    /// Exports as `telemetry` does.
    pub fn new(telemetry: &Telemetry) -> Self {
        Self { emitter: telemetry.emitter() }
    }

    /// Begins the span of a request that may start a flow. `headers` may carry a trace context, which
    /// is continued.
    pub fn server_span(
        &self,
        name: impl Into<Cow<'static, str>>,
        headers: &dyn Extractor,
    ) -> ServerSpan {
        ServerSpan {
            request: Some(Request {
                emitter: self.emitter.clone(),
                incoming: context::read(headers),
                name: name.into(),
                start: SystemTime::now(),
                attributes: Vec::new(),
                status: Status::Unset,
            }),
            flow: None,
        }
    }

    /// Begins the span of a flow, as a child of `incoming` or else as the root of a trace. It is made
    /// when the flow's first promise has been created.
    pub fn flow_span(&self, name: impl Into<Cow<'static, str>>, incoming: &Context) -> FlowSpan {
        self.flow_since(name.into(), incoming, SystemTime::now())
    }

    fn flow_since(
        &self,
        name: Cow<'static, str>,
        incoming: &Context,
        start: SystemTime,
    ) -> FlowSpan {
        let Some(emitter) = self.emitter.clone() else {
            return FlowSpan { context: incoming.clone() };
        };
        let span = emitter.child(incoming, &name, &SpanKind::Internal);
        let flow = Arc::new(Flow {
            emitter,
            name,
            start,
            parent: incoming.span().span_context().span_id(),
            context: span.clone(),
            called: AtomicBool::new(false),
            outcome: SetOnce::new(),
        });
        FlowSpan { context: context::child_of(incoming, span).with_value(flow) }
    }
}

/// The span of a flow: internal, named after the flow, from its beginning to the answer of the server
/// about the flow's first promise. It is exported before everything below it. A flow that an earlier
/// request has started keeps the span that it has.
#[derive(Debug, Clone)]
pub struct FlowSpan {
    context: Context,
}

impl FlowSpan {
    /// Runs `call`. The first promise that is created in it, through [`crate::Traced`] or
    /// [`crate::TracedNetwork`], is the flow's first one, and its call is a child of this span.
    pub fn start<F: Future>(&self, call: F) -> impl Future<Output = F::Output> + use<F> {
        call.with_context(self.context.clone())
    }
}

/// What the server said about a flow's first promise.
#[derive(Debug)]
enum Outcome {
    /// It was created, or perhaps it was: the flow has its span.
    Begun,
    /// An earlier request created it, in this trace if it has one. `pending`: it is not settled yet.
    Found { flow: Option<SpanContext>, pending: bool },
}

/// A flow that is being started.
#[derive(Debug)]
pub(crate) struct Flow {
    emitter: Arc<Emitter>,
    name: Cow<'static, str>,
    start: SystemTime,
    parent: SpanId,
    context: SpanContext,
    called: AtomicBool,
    /// Set once if `called`.
    outcome: SetOnce<Outcome>,
}

impl Flow {
    /// Makes the flow's span, which ends now.
    fn emit(&self, promise: &str, failure: Option<(String, String)>) {
        let mut attributes = vec![
            KeyValue::new(key::FLOW, self.name.clone()),
            KeyValue::new(key::PROMISE_ID, promise.to_owned()),
        ];
        let status = match failure {
            None => Status::Unset,
            Some((kind, description)) => {
                attributes.push(KeyValue::new(key::ERROR_TYPE, kind));
                Status::error(description)
            }
        };
        self.emitter.emit(Finished {
            name: self.name.clone(),
            kind: SpanKind::Internal,
            context: self.context.clone(),
            parent: self.parent,
            start: self.start,
            end: SystemTime::now(),
            attributes,
            events: Vec::new(),
            status,
        });
    }
}

/// The creation of a flow's first promise.
pub(crate) struct FirstCall {
    flow: Arc<Flow>,
    promise: String,
}

impl FirstCall {
    /// The flow of the context `caller`, if nothing was created in it yet.
    pub fn take(caller: &Context, promise: &str) -> Option<Self> {
        let flow = caller.get::<Arc<Flow>>()?;
        let first = !flow.called.swap(true, Ordering::Relaxed);
        first.then(|| Self { flow: flow.clone(), promise: promise.to_owned() })
    }

    /// What the promise carries: those who find it join the flow's span.
    pub fn headers(&self) -> Pairs<'static> {
        Pairs::from_iter([(key::HEADER_FLOW, self.flow.context.span_id().to_string())])
    }

    /// The server has answered, or will not. `created`: whether a promise is the one of this call.
    /// Returns whether the flow has its span.
    pub fn answered(
        self,
        answered: &Result<Answer, ExchangeError>,
        created: impl Fn(&Promise) -> bool,
    ) -> bool {
        let failure = match answered {
            Ok(answer) => match (answer.status(), answer.promise()) {
                (200, Some(promise)) if !created(promise) => {
                    let pending = promise.is_pending();
                    self.end(Outcome::Found { flow: span_of(promise), pending });
                    return false;
                }
                (200, _) => None,
                (status, _) => Some((status.to_string(), answer.reason().to_owned())),
            },
            Err(error) => {
                let kind = match error {
                    ExchangeError::Unreachable { .. } => "unreachable",
                    ExchangeError::Unauthorized { .. } => "unauthorized",
                    ExchangeError::TooLarge { .. } => "too_large",
                    ExchangeError::Unanswered => key::UNANSWERED,
                    ExchangeError::Withheld(_) => "withheld",
                };
                Some((kind.to_owned(), error.to_string()))
            }
        };
        self.flow.emit(&self.promise, failure);
        self.end(Outcome::Begun);
        true
    }

    fn end(&self, outcome: Outcome) {
        // Nobody else sets it.
        let _ = self.flow.outcome.set(outcome);
    }
}

impl Drop for FirstCall {
    /// The call ended before the server answered about the promise.
    fn drop(&mut self) {
        if self.flow.outcome.get().is_none() {
            self.flow.emit(&self.promise, None);
            self.end(Outcome::Begun);
        }
    }
}

/// The span of the flow that starts with this promise, or of its call if that has none.
fn span_of(promise: &Promise) -> Option<SpanContext> {
    let context = context::of_promise(promise)?;
    let call = context.span().span_context().clone();
    let flow = promise.param.header(key::HEADER_FLOW);
    let flow = flow.and_then(|id| SpanId::from_hex(id).ok()).filter(|id| *id != SpanId::INVALID);
    Some(match flow {
        Some(id) => SpanContext::new(
            call.trace_id(),
            id,
            call.trace_flags(),
            true,
            call.trace_state().clone(),
        ),
        None => call,
    })
}

/// The span of a request, of kind server. It ends when it is dropped.
///
/// It is a child of the context in the request's headers. A request without one is a child of the
/// flow's span, also if it finds a flow that an earlier request has started and that is pending. A
/// request that finds a flow otherwise has a link to the flow's span.
#[derive(Debug)]
pub struct ServerSpan {
    /// Until it ends.
    request: Option<Request>,
    flow: Option<Arc<Flow>>,
}

/// What is known of a request.
#[derive(Debug)]
struct Request {
    emitter: Option<Arc<Emitter>>,
    incoming: Context,
    name: Cow<'static, str>,
    start: SystemTime,
    attributes: Vec<KeyValue>,
    status: Status,
}

impl ServerSpan {
    /// Whether the span may be exported. If not, attributes need not be collected.
    pub fn is_recording(&self) -> bool {
        self.request.as_ref().is_some_and(|Request { emitter, incoming, .. }| {
            let client = incoming.span().span_context().clone();
            emitter.is_some() && (client.is_sampled() || !client.is_valid())
        })
    }

    /// Adds an attribute.
    pub fn set_attribute(&mut self, attribute: KeyValue) {
        if let Some(request) = &mut self.request {
            request.attributes.push(attribute);
        }
    }

    /// The request has failed. `kind`: the value of `error.type`. `description`: what other attributes
    /// do not tell; may be empty.
    pub fn set_error(&mut self, kind: impl Into<Cow<'static, str>>, description: &'static str) {
        self.set_attribute(KeyValue::new(key::ERROR_TYPE, kind.into()));
        if let Some(request) = &mut self.request {
            request.status = Status::error(description);
        }
    }

    /// Begins the span of the flow that this request asks for: it starts with the request.
    pub fn flow(&mut self, name: impl Into<Cow<'static, str>>) -> FlowSpan {
        let Some(Request { emitter, incoming, start, .. }) = &self.request else {
            unreachable!("it is there until the drop");
        };
        let tracer = FlowTracer { emitter: emitter.clone() };
        let span = tracer.flow_since(name.into(), incoming, *start);
        self.flow = span.context.get::<Arc<Flow>>().cloned();
        span
    }
}

impl Drop for ServerSpan {
    fn drop(&mut self) {
        let Some(request) = self.request.take() else { return };
        let end = SystemTime::now();
        match self.flow.take() {
            // The client hung up first. The creation continues, and its outcome decides the parent.
            Some(flow) if flow.called.load(Ordering::Relaxed) && flow.outcome.get().is_none() => {
                // At the end of a process there is no runtime any more.
                let Ok(runtime) = Handle::try_current() else { return };
                runtime.spawn(async move {
                    flow.outcome.wait().await;
                    request.emit(Some(&flow), end);
                });
            }
            flow => request.emit(flow.as_deref(), end),
        }
    }
}

impl Request {
    fn emit(mut self, flow: Option<&Flow>, end: SystemTime) {
        let Some(emitter) = &self.emitter else { return };
        let incoming = self.incoming.span().span_context().clone();
        let outcome = flow.and_then(|flow| flow.outcome.get());
        let parent = match (flow, outcome) {
            _ if incoming.is_valid() => Some(&incoming),
            (Some(flow), Some(Outcome::Begun)) => Some(&flow.context),
            (_, Some(Outcome::Found { flow, pending: true })) => flow.as_ref(),
            _ => None,
        };
        let id = emitter.ids.new_span_id();
        let context = match (parent, flow) {
            (Some(parent), _) => emitter.sibling(parent, id),
            // The sampler has been asked about this trace.
            (None, Some(flow)) => emitter.sibling(&flow.context, id),
            (None, None) => emitter.child(&self.incoming, &self.name, &SpanKind::Server),
        };
        let mut links = Vec::new();
        if let Some(Outcome::Found { flow, .. }) = outcome {
            self.attributes.push(KeyValue::new(key::RECONNECTED, true));
            let other = flow.as_ref().filter(|flow| Some(*flow) != parent);
            links.extend(other.cloned().map(Link::with_context));
        }
        let span = Finished {
            name: self.name,
            kind: SpanKind::Server,
            context,
            parent: parent.map_or(SpanId::INVALID, SpanContext::span_id),
            start: self.start,
            end,
            attributes: self.attributes,
            events: Vec::new(),
            status: self.status,
        };
        emitter.emit_linked(span, links);
    }
}
