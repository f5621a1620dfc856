//! The spans of promises: calls, timers, steps and invocations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, SpanId,
    trace::{Event, SpanContext, SpanKind, Status, TraceContextExt},
};
use wire::{Promise, PromiseState};

use crate::{
    attributes::{self as key, Subject},
    context,
    emit::{Emitter, Finished},
    run_spans::StepOf,
    steps::Note,
};

/// Clocks that differ by more are worth a line in the log.
const CLOCK_SKEW: Duration = Duration::from_millis(100);

/// Stands for the name of a function that cannot be read.
pub(crate) const UNREADABLE: &str = "invocation";

/// A call or timer that is being created.
pub(crate) struct Creation {
    /// The context that its span is a child of.
    pub parent: Context,
    /// The ids of its span.
    pub span: SpanContext,
    /// When the request was sent.
    pub start: SystemTime,
}

/// Makes the spans of promises.
pub(crate) struct PromiseSpans {
    emitter: Arc<Emitter>,
    instance: String,
    skew_reported: AtomicBool,
}

impl PromiseSpans {
    pub fn new(emitter: Arc<Emitter>, instance: &str) -> Self {
        Self { emitter, instance: instance.to_owned(), skew_reported: AtomicBool::new(false) }
    }

    /// The span of a promise that this process has created: its call or timer. A step has one when
    /// it is settled. The call ended at `end`.
    pub fn created(&self, creation: &Creation, promise: &Promise, end: SystemTime) {
        let (start, created) = (creation.start, context::time(promise.created_at));
        self.compare_clocks(start, created, end);
        if promise.is_timer() {
            let due = context::time(promise.timeout_at);
            // By the clock of this process, which computed the due time.
            let length = due.duration_since(start).unwrap_or_default();
            self.emitter.emit(Finished {
                name: format!("sleep {:?}", requested(length)).into(),
                kind: SpanKind::Internal,
                context: creation.span.clone(),
                parent: creation.parent.span().span_context().span_id(),
                start: created,
                end: due,
                attributes: vec![KeyValue::new(key::PROMISE_ID, promise.id.to_string())],
                events: Vec::new(),
                status: Status::Unset,
            });
        } else {
            self.called(creation, promise, end, true);
        }
    }

    /// The span of a call that this process has made, without an answer until its own end at `end`:
    /// nobody knows whether the promise was created.
    pub fn unanswered(&self, creation: &Creation, promise: &Promise, end: SystemTime) {
        if !promise.is_timer() {
            self.called(creation, promise, end, false);
        }
    }

    fn called(&self, creation: &Creation, promise: &Promise, end: SystemTime, answered: bool) {
        if promise.is_step() {
            return;
        }
        let subject = Subject::of(promise);
        let Some(function) = &subject.function else { return };
        let name = format!("rpc {function}");
        let id: Arc<str> = Arc::from(&*promise.id);
        let mut attributes: Vec<_> = subject.attributes(id.clone()).collect();
        attributes.extend(key::messaging("rpc", "send", subject.group, id));
        if !answered {
            attributes.push(KeyValue::new(key::ERROR_TYPE, key::UNANSWERED));
        }
        self.emitter.emit(Finished {
            name: name.into(),
            kind: SpanKind::Producer,
            context: creation.span.clone(),
            parent: creation.parent.span().span_context().span_id(),
            start: creation.start,
            end,
            attributes,
            events: Vec::new(),
            status: match answered {
                true => Status::Unset,
                false => Status::error("not answered before the process ended"),
            },
        });
    }

    fn compare_clocks(&self, sent: SystemTime, server: SystemTime, answered: SystemTime) {
        let ahead = server.duration_since(answered).unwrap_or_default();
        let behind = sent.duration_since(server).unwrap_or_default();
        let skew = ahead.max(behind);
        if skew > CLOCK_SKEW && !self.skew_reported.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?skew,
                "clock skew between this process and the Resonate Server; spans may not line up"
            );
        }
    }

    /// A step that this process has settled: from its creation, by whichever process, until now.
    /// However often it ran, it has one span, and what ran in it is below that.
    pub fn step(&self, step: &StepOf, promise: &Promise, mut note: Note) {
        let mut attributes = step.attributes.clone();
        attributes.push(KeyValue::new(key::PROMISE_STATE, promise.state.as_str()));
        if let Some(taken_over) = step.taken_over {
            attributes.push(KeyValue::new(key::TAKEOVER, true));
            // Where in the span the crash ends and the second attempt begins.
            let by = vec![KeyValue::new(key::INSTANCE, self.instance.clone())];
            note.events.insert(0, Event::new(key::TAKEOVER_EVENT, taken_over, by, 0));
        }
        let status = match promise.state {
            PromiseState::Resolved | PromiseState::Pending => Status::Unset,
            PromiseState::RejectedTimedout => Status::error("timed out"),
            _ => Status::error(note.error.or_else(|| promise.error()).unwrap_or_default()),
        };
        if status != Status::Unset {
            let thrown = note.error_type.filter(|_| promise.state == PromiseState::Rejected);
            attributes.push(KeyValue::new(
                key::ERROR_TYPE,
                thrown.unwrap_or_else(|| promise.state.as_str()),
            ));
        }
        self.emitter.emit(Finished {
            name: note.name.unwrap_or_else(|| "step".to_owned()).into(),
            kind: SpanKind::Internal,
            context: context::of_step(&step.context, &promise.id).span().span_context().clone(),
            parent: step.context.span().span_context().span_id(),
            start: context::time(promise.created_at),
            end: context::time(promise.settled_at.unwrap_or(promise.created_at)),
            attributes,
            events: note.events,
            status,
        });
    }

    /// An invocation that this process has settled: its run `version`, or nobody's run.
    pub fn invocation(
        &self,
        parent: &Context,
        subject: Subject,
        promise: &Promise,
        version: Option<i64>,
    ) {
        let context = self.emitter.child(parent, "", &SpanKind::Internal);
        self.emit_invocation(parent, subject, promise, context, version);
    }

    /// An invocation that timed out. Nobody settles it, so whoever notices reports it, under an id
    /// that follows from the promise: a second report is recognised as the same span.
    pub fn timed_out(&self, subject: Subject, promise: &Promise) {
        let Some(parent) = context::of_promise(promise) else { return };
        let span = context::derived_span_id("timed out", promise);
        let context = self.emitter.sibling(parent.span().span_context(), span);
        self.emit_invocation(&parent, subject, promise, context, None);
    }

    fn emit_invocation(
        &self,
        parent: &Context,
        subject: Subject,
        promise: &Promise,
        context: SpanContext,
        version: Option<i64>,
    ) {
        let mut attributes: Vec<_> = subject.attributes(Arc::from(&*promise.id)).collect();
        attributes.push(KeyValue::new(key::PROMISE_STATE, promise.state.as_str()));
        attributes.extend(version.map(|version| KeyValue::new(key::TASK_VERSION, version)));
        let status = match promise.state {
            PromiseState::Resolved => Status::Unset,
            PromiseState::RejectedTimedout => Status::error("timed out"),
            _ => Status::error(promise.error().unwrap_or_default()),
        };
        if status != Status::Unset {
            attributes.push(KeyValue::new(key::ERROR_TYPE, promise.state.as_str()));
        }
        self.emitter.emit(Finished {
            name: subject.function.as_deref().unwrap_or(UNREADABLE).to_owned().into(),
            kind: SpanKind::Internal,
            context,
            parent: parent.span().span_context().span_id(),
            start: context::time(promise.created_at),
            end: context::time(promise.settled_at.unwrap_or(promise.created_at)),
            attributes,
            events: Vec::new(),
            status,
        });
    }

    /// The context of a flow that a client without tracing has started: every process derives it
    /// alike. The first run reports the flow's first span.
    pub fn received(&self, promise: &Promise, first_run: bool, now: SystemTime) -> Context {
        let subject = Subject::of(promise);
        let name = format!("received {}", subject.function.as_deref().unwrap_or(UNREADABLE));
        let trace = context::derived_trace_id(promise);
        let span = context::derived_span_id("received", promise);
        let root = self.emitter.root(trace, span, &name, &SpanKind::Consumer);
        if first_run {
            let id: Arc<str> = Arc::from(&*promise.id);
            let mut attributes: Vec<_> = subject.attributes(id.clone()).collect();
            attributes.extend(key::messaging("receive", "receive", subject.group, id));
            self.emitter.emit(Finished {
                name: name.into(),
                kind: SpanKind::Consumer,
                context: root.clone(),
                parent: SpanId::INVALID,
                start: context::time(promise.created_at),
                end: now,
                attributes,
                events: Vec::new(),
                status: Status::Unset,
            });
        }
        context::child_of(&Context::new(), root)
    }
}

/// The length that a timer was asked for: a moment of it has passed when its promise is sent.
fn requested(left: Duration) -> Duration {
    let grain: u128 = if left < Duration::from_secs(1) { 10 } else { 50 };
    Duration::from_millis((left.as_micros().div_ceil(grain * 1_000) * grain) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_named_by_the_length_that_was_asked_for() {
        for (left, asked) in [(3_999_700, 4_000), (1_240_001, 1_250), (499_100, 500), (0, 0)] {
            assert_eq!(requested(Duration::from_micros(left)), Duration::from_millis(asked));
        }
    }
}
