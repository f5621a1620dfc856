//! Leases that were held, and leases that were lost.

use std::time::SystemTime;

use opentelemetry::{
    KeyValue,
    trace::{SpanKind, Status, TraceContextExt},
};

use super::{Run, of_run};
use crate::{
    attributes as key,
    emit::{Emitter, Finished},
};

/// What is known of the run before a run.
#[derive(Debug, Default)]
pub(crate) struct Predecessor {
    /// The process.
    pub instance: Option<String>,
    /// It was released.
    pub released: bool,
    /// When it last did something that only the holder of the lease can do.
    pub seen: Option<SystemTime>,
}

/// The span of the time in which a dead process sent no heartbeat: from the last moment in which its
/// lease was held, as far as this process knows, to the takeover.
pub(super) fn emit_lost_lease(emitter: &Emitter, run: &Run) {
    let Some(Predecessor { instance, seen, .. }) = &run.predecessor else { return };
    let name = match instance {
        Some(instance) => format!("lease of {instance} expired"),
        None => "lease expired".to_owned(),
    };
    let mut attributes = of_run(run);
    let instance = instance.clone();
    attributes.extend(instance.map(|instance| KeyValue::new(key::LEASE_INSTANCE, instance)));
    attributes.push(KeyValue::new(key::ERROR_TYPE, "lease_expired"));
    let held = seen.unwrap_or(run.created).max(run.created).max(run.start - run.lease);
    emitter.emit(Finished {
        name: name.into(),
        kind: SpanKind::Internal,
        context: emitter.child(&run.context, "lease", &SpanKind::Internal),
        parent: run.context.span().span_context().span_id(),
        // The server's clock may be ahead.
        start: held.min(run.start),
        end: run.start,
        attributes,
        events: Vec::new(),
        status: Status::error("no heartbeat for the length of the lease"),
    });
}

/// Emits a lease span since the last one.
pub(super) fn mark(emitter: &Emitter, instance: &str, run: &mut Run) {
    let now = SystemTime::now();
    emitter.emit(Finished {
        name: format!("lease on {instance}").into(),
        kind: SpanKind::Internal,
        context: emitter.child(&run.context, "lease", &SpanKind::Internal),
        parent: run.context.span().span_context().span_id(),
        start: std::mem::replace(&mut run.marked, now),
        end: now,
        attributes: of_run(run),
        events: Vec::new(),
        status: Status::Unset,
    });
}
