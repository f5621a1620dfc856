//! What the span of a step says of the run that it belongs to.

use std::time::SystemTime;

use opentelemetry::{Context, KeyValue};

use super::{Run, about};
use crate::attributes::Subject;

/// What the span of a step says of the run that it belongs to.
pub(crate) struct StepOf {
    pub context: Context,
    /// About the step: its promise, and what the run knows.
    pub attributes: Vec<KeyValue>,
    /// When the run took the step over from a dead one, if it did.
    pub taken_over: Option<SystemTime>,
    pub subject: Subject,
}

impl StepOf {
    pub(super) fn new(run: &Run, step: &str) -> Self {
        Self {
            context: run.context.clone(),
            attributes: about(run, step.into()),
            taken_over: run.taken_over.contains(step).then_some(run.start),
            subject: run.subject.clone(),
        }
    }
}
