//! Promises that are created: their context, and the span of their call.

use std::{sync::Arc, time::SystemTime};

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanKind, TraceContextExt},
};
use tokio::time::Instant;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::{Operation, Pairs, Promise, Request};

use super::{Answered, Inner, lease, lost::Asked};
use crate::{attributes as key, context, promise_spans::Creation};

/// The context of a promise that is about to be created.
pub(super) struct Prepared {
    headers: Pairs<'static>,
    creation: Option<Creation>,
}

impl Prepared {
    /// The ids of the span of the creation, if it has one.
    pub fn span(&self) -> Option<&SpanContext> {
        self.creation.as_ref().map(|creation| &creation.span)
    }

    /// Whether a promise that came back is the one that was sent with these headers: the server
    /// answers alike whether it created or found it.
    pub fn created(&self, promise: &Promise) -> bool {
        self.headers.iter().all(|(name, value)| promise.param.header(name) == Some(value))
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
        let mut headers = match &creation {
            Some(creation) => context::inject(&context::child_of(parent, creation.span.clone())),
            None => context::inject(parent),
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

    /// `promise.create` by a client under its current span, or `task.create`, which begins the
    /// promise's first run at once.
    pub async fn create(
        self: &Arc<Self>,
        mut request: Request,
        caller: (Context, tracing::Span),
    ) -> Answered {
        let (parent, span) = caller;
        let (id, lease) = match request.operation() {
            Operation::TaskCreate(task) => {
                (task.action.data.id.to_string(), Some((Instant::now(), lease(task.ttl))))
            }
            Operation::PromiseCreate(create) => (create.id.to_string(), None),
            _ => unreachable!(),
        };
        let Some(prepared) = self.prepare(&mut request, &parent, None, Pairs::default()) else {
            return self.next.exchange(request).await;
        };
        let mut under_way = self.watch(Some(Asked::Creation { id, prepared: prepared.clone() }));
        let answer = self.send(request, &parent).await;
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
}

/// A request that found its flow keeps its own trace, with a link to the flow's.
fn link(request: &tracing::Span, found: &Promise) {
    if let Some(flow) = context::of_promise(found) {
        request.add_link(flow.span().span_context().clone());
        request.set_attribute(key::RECONNECTED, true);
    }
}
