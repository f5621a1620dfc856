//! The spans of promises: calls, timers, steps and invocations.

use std::{
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, SpanId,
    trace::{Event, SpanContext, SpanKind, Status, TraceContextExt},
};

use crate::{
    attributes as key, context,
    emit::{Emitter, Finished},
    observer::{Observer, Prepared, TIMED_OUT, context_in},
    wire::Promise,
};

/// Clocks that differ by more are worth a line in the log.
const CLOCK_DIFFERENCE: Duration = Duration::from_millis(100);

/// A timer's length as it was asked for: a moment of it is over when its promise is sent.
fn as_asked(left: Duration) -> Duration {
    let grain: u128 = if left < Duration::from_secs(1) { 10 } else { 50 };
    Duration::from_millis((left.as_micros().div_ceil(grain * 1_000) * grain) as u64)
}

impl Observer {
    fn attributes(&self, promise: &Promise) -> Vec<KeyValue> {
        let mut attributes = vec![KeyValue::new(key::PROMISE_ID, promise.id.clone())];
        attributes
            .extend(promise.function().map(|function| KeyValue::new(key::FUNCTION, function)));
        attributes.extend(promise.group().map(|group| KeyValue::new(key::GROUP, group.to_owned())));
        attributes
    }

    /// The span of a promise that was created: its call, or its timer. A step has its own, later.
    pub fn emit_created(&self, prepared: Prepared, promise: &Promise) {
        let (Some(emitter), Some(context)) = (&self.emitter, prepared.span) else { return };
        let end = SystemTime::now();
        self.compare_clocks(prepared.start, context::time(promise.created_at), end);
        let (name, kind, start, end) = if promise.is_timer() {
            let due = context::time(promise.timeout_at);
            // By the clock of this process, which has added its length to it.
            let length = due.duration_since(prepared.start).unwrap_or_default();
            (
                format!("sleep {:?}", as_asked(length)),
                SpanKind::Internal,
                context::time(promise.created_at),
                due,
            )
        } else if let Some(function) = promise.function().filter(|_| !promise.is_local()) {
            (format!("rpc {function}"), SpanKind::Producer, prepared.start, end)
        } else {
            return;
        };
        emitter.emit(Finished {
            name: name.into(),
            kind,
            context,
            parent: prepared.parent.span().span_context().span_id(),
            start,
            end,
            attributes: self.attributes(promise),
            events: Vec::new(),
            status: Status::Unset,
        });
    }

    fn compare_clocks(&self, sent: SystemTime, server: SystemTime, answered: SystemTime) {
        let ahead = server.duration_since(answered).unwrap_or_default();
        let behind = sent.duration_since(server).unwrap_or_default();
        let difference = ahead.max(behind);
        if difference > CLOCK_DIFFERENCE && !self.clocks_compared.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?difference,
                "the clocks of this process and of the Resonate Server differ: spans of both do not fit together to the millisecond"
            );
        }
    }

    /// A step that this process has settled: from its creation, by whichever process, until now.
    pub fn emit_step(&self, task: &str, promise: &Promise) {
        let mut note = self.steps.take(&promise.id);
        let (Some(emitter), true) = (&self.emitter, promise.is_local()) else { return };
        let Some((run, taken_over)) = self.runs.step(task, &promise.id) else { return };
        let parent = run.span().span_context().clone();
        // The id was chosen by who created the step, so that there is one span however often it ran.
        let context = match context_in(promise) {
            Some(context) => emitter.sibling(&parent, context.span().span_context().span_id()),
            None => emitter.child(&run, "step", &SpanKind::Internal),
        };
        let mut attributes = vec![
            KeyValue::new(key::PROMISE_ID, promise.id.clone()),
            KeyValue::new(key::PROMISE_STATE, promise.state.clone()),
        ];
        if let Some(taken_over) = taken_over {
            attributes.push(KeyValue::new(key::TAKEOVER, true));
            // Where in the span the crash ends and the second attempt begins.
            let by = vec![KeyValue::new(key::INSTANCE, self.identity.instance.clone())];
            note.events.insert(0, Event::new(key::TAKEOVER_EVENT, taken_over, by, 0));
        }
        let status = match promise.state.as_str() {
            "resolved" => Status::Unset,
            _ => Status::error(note.error.or_else(|| promise.error()).unwrap_or_default()),
        };
        emitter.emit(Finished {
            name: note.name.unwrap_or_else(|| "step".to_owned()).into(),
            kind: SpanKind::Internal,
            context,
            parent: parent.span_id(),
            start: context::time(promise.created_at),
            end: context::time(promise.settled_at.unwrap_or(promise.created_at)),
            attributes,
            events: note.events,
            status,
        });
    }

    pub fn emit_invocation(
        &self,
        emitter: &Emitter,
        promise: &Promise,
        parent: &Context,
        context: SpanContext,
        version: Option<i64>,
    ) {
        let mut attributes = self.attributes(promise);
        attributes.push(KeyValue::new(key::PROMISE_STATE, promise.state.clone()));
        attributes.extend(version.map(|version| KeyValue::new(key::TASK_VERSION, version)));
        let status = match promise.state.as_str() {
            "resolved" => Status::Unset,
            TIMED_OUT => Status::error("timed out"),
            _ => Status::error(promise.error().unwrap_or_default()),
        };
        emitter.emit(Finished {
            name: promise.function().unwrap_or_else(|| "invocation".to_owned()).into(),
            kind: SpanKind::Consumer,
            context,
            parent: parent.span().span_context().span_id(),
            start: context::time(promise.created_at),
            end: context::time(promise.settled_at.unwrap_or(promise.created_at)),
            attributes,
            events: Vec::new(),
            status,
        });
    }

    /// Nobody settles a promise that times out. Whoever notices emits its invocation, with an id
    /// that follows from the promise: a rare second one is recognised as the same.
    pub fn emit_timed_out(&self, promise: &Promise) {
        let (Some(emitter), Some(parent)) = (&self.emitter, context_in(promise)) else { return };
        let span = context::derived_span_id("timed out", &promise.id, promise.created_at);
        let context = emitter.sibling(parent.span().span_context(), span);
        self.emit_invocation(emitter, promise, &parent, context, None);
    }

    /// The first span of a flow that a client without tracing has started.
    pub fn emit_received(
        &self,
        emitter: &Emitter,
        promise: &Promise,
        name: String,
        root: SpanContext,
        now: SystemTime,
    ) {
        emitter.emit(Finished {
            name: name.into(),
            kind: SpanKind::Consumer,
            context: root,
            parent: SpanId::INVALID,
            start: context::time(promise.created_at),
            end: now,
            attributes: self.attributes(promise),
            events: Vec::new(),
            status: Status::Unset,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_named_by_what_was_asked_for() {
        for (left, asked) in [(3_999_700, 4_000), (1_240_001, 1_250), (499_100, 500), (0, 0)] {
            assert_eq!(as_asked(Duration::from_micros(left)), Duration::from_millis(asked));
        }
    }
}
