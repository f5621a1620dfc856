//! Promises that are created: their context, and the span of their call.

use std::{sync::Arc, time::SystemTime};

use opentelemetry::{
    Context,
    trace::{SpanKind, Status, TraceContextExt},
};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::{
    Operation, Pairs, Promise, Request,
    operation::{FencedAction, PromiseCreate},
    tag,
};

use super::{Answered, Inner, Spans, lease, lost::Asked};
use crate::{attributes as key, context, emit::Finished, flow::FirstCall, promise_spans::Creation};

/// The context of a promise that is about to be created.
pub(super) struct Prepared {
    headers: Pairs<'static>,
    creation: Option<Creation>,
}

impl Prepared {
    /// What its span needs, if it has one.
    pub fn creation(&self) -> Option<&Creation> {
        self.creation.as_ref()
    }

    /// Whether a promise that came back is the one that was sent with these headers: the server
    /// answers alike whether it created or found it.
    pub fn created(&self, promise: &Promise) -> bool {
        self.headers.iter().all(|(name, value)| promise.param.header(name) == Some(value))
    }
}

/// Who creates a promise.
pub(super) struct Caller {
    context: Context,
    span: tracing::Span,
    flow: Option<FirstCall>,
}

impl Caller {
    /// The current context, and the flow that starts with this request, if one does.
    pub fn of(request: &Request) -> Self {
        let context = Context::current();
        let id = match request.operation() {
            Operation::TaskCreate(task) => &task.action.data.id,
            Operation::PromiseCreate(create) => &create.id,
            _ => unreachable!(),
        };
        let flow = FirstCall::take(&context, id);
        Self { context, span: tracing::Span::current(), flow }
    }
}

impl Inner {
    /// Writes a context into a promise that is created under `parent`, and more headers. `step`: its
    /// id, if it is a step. `None`: there is nothing to write, or no place for it.
    pub fn prepare(
        &self,
        request: &mut Request,
        parent: &Context,
        step: Option<&str>,
        more: Pairs,
    ) -> Option<Arc<Prepared>> {
        let creation = self.spans.as_ref().map(|spans| Creation {
            span: match step {
                Some(id) => context::of_step(parent, id).span().span_context().clone(),
                None => spans.emitter.child(parent, "rpc", &SpanKind::Producer),
            },
            parent: parent.clone(),
            start: SystemTime::now(),
        });
        let baggage = self.stores_baggage && is_invocation(request.operation());
        let mut headers = match &creation {
            Some(creation) => {
                context::inject(&context::child_of(parent, creation.span.clone()), baggage)
            }
            None => context::inject(parent, baggage),
        };
        more.iter().for_each(|(name, value)| headers.set(name.to_owned(), value.to_owned()));
        if headers.is_empty() || !request.add_headers(&headers) {
            return None;
        }
        Some(Arc::new(Prepared { headers, creation }))
    }

    /// The span of a creation that took effect. The call ended at `end`.
    pub fn created(&self, prepared: &Prepared, promise: &Promise, end: SystemTime) {
        if let (Some(spans), Some(creation)) = (&self.spans, &prepared.creation) {
            spans.promises.created(creation, promise, end);
        }
    }

    /// `promise.create` by a client in its current context, or `task.create`, which begins the
    /// promise's first run at once.
    pub async fn create(self: &Arc<Self>, mut request: Request, caller: Caller) -> Answered {
        let Caller { context: parent, span, flow } = caller;
        let (id, lease) = match request.operation() {
            Operation::TaskCreate(task) => {
                (task.action.data.id.to_string(), Some((Instant::now(), lease(task.ttl))))
            }
            Operation::PromiseCreate(create) => (create.id.to_string(), None),
            _ => unreachable!(),
        };
        let more = flow.as_ref().map(FirstCall::headers).unwrap_or_default();
        let Some(prepared) = self.prepare(&mut request, &parent, None, more) else {
            return self.next.exchange(request).await;
        };
        let asked = Asked::Creation { id, prepared: prepared.clone(), request: request.clone() };
        let mut under_way = self.watch(Some(asked));
        let answer = match flow {
            None => self.send(request, &parent).await,
            Some(flow) => {
                let (kind, sent) = (request.kind().to_owned(), SystemTime::now());
                let answer = self.next.exchange(request).await;
                // Before the span of the call: the flow's is its parent, and there only if it begins.
                if flow.answered(&answer, |promise| prepared.created(promise)) {
                    self.sent(kind, &parent, sent);
                }
                answer
            }
        };
        under_way.note(&answer);
        let answer = answer?;
        if let (200, Some(promise)) = (answer.status(), answer.promise()) {
            match prepared.created(promise) {
                true => self.created(&prepared, promise, SystemTime::now()),
                false => link(&span, promise),
            }
        }
        if let Some(lease) = lease {
            self.begin(&answer, lease).await;
        }
        Ok(answer)
    }

    /// The span of a single request, as [`Inner::send`] makes it, once it is known that `parent` has one.
    fn sent(&self, kind: String, parent: &Context, start: SystemTime) {
        if let Some(Spans { emitter, .. }) = &self.spans
            && tracing::span_enabled!(target: key::REQUEST_TARGET, tracing::Level::DEBUG)
        {
            emitter.emit(Finished {
                context: emitter.child(parent, &kind, &SpanKind::Client),
                name: kind.into(),
                kind: SpanKind::Client,
                parent: parent.span().span_context().span_id(),
                start,
                end: SystemTime::now(),
                attributes: Vec::new(),
                events: Vec::new(),
                status: Status::Unset,
            });
        }
    }
}

/// What a request creates, if it does.
pub(super) fn created_by<'a>(
    operation: &'a Operation<'a>,
) -> Option<&'a PromiseCreate<'a, Option<&'a RawValue>>> {
    match operation {
        Operation::PromiseCreate(create) => Some(create),
        Operation::TaskCreate(task) => Some(&task.action.data),
        Operation::TaskFence(fence) => match &fence.action {
            FencedAction::Create(create) => Some(create),
            FencedAction::Settle(_) => None,
        },
        _ => None,
    }
}

/// Whether a promise is created that some process runs, and not a step or a timer.
fn is_invocation(operation: &Operation) -> bool {
    created_by(operation).is_some_and(|create| create.tags.get(tag::TARGET).is_some())
}

/// A request that found its flow keeps its own trace, with a link to the flow's.
fn link(request: &tracing::Span, found: &Promise) {
    if let Some(flow) = context::of_promise(found) {
        request.add_link(flow.span().span_context().clone());
        request.set_attribute(key::RECONNECTED, true);
    }
}
