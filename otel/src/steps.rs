//! What steps report while they run: `ctx.run` carries no name.

use std::{collections::HashMap, sync::Mutex, time::SystemTime};

use opentelemetry::{KeyValue, trace::Event};

use crate::{
    attributes::{EXCEPTION, EXCEPTION_MESSAGE, EXCEPTION_TYPE},
    context::milliseconds,
};

/// Notes about the steps that run in this process, by promise id.
#[derive(Debug, Default)]
pub(crate) struct Steps(Mutex<HashMap<String, Note>>);

#[derive(Debug, Default)]
pub(crate) struct Note {
    /// When its body began to run here, in Unix milliseconds.
    begun: Option<i64>,
    /// How many attempts have failed.
    failures: u32,
    pub name: Option<String>,
    pub events: Vec<Event>,
    /// Message of the last failed attempt.
    pub error: Option<String>,
    pub error_type: Option<&'static str>,
}

impl Steps {
    fn with(&self, promise: &str, change: impl FnOnce(&mut Note)) {
        let mut notes = self.0.lock().expect("no holder of this lock panics");
        change(notes.entry(promise.to_owned()).or_default());
    }

    /// The step's body runs now. `name`: none if there will be no span.
    pub fn begun(&self, promise: &str, name: Option<&str>) {
        self.with(promise, |note| {
            note.begun.get_or_insert_with(|| milliseconds(SystemTime::now()));
            note.name = name.map(str::to_owned);
        });
    }

    /// When the step's body began to run here, in Unix milliseconds, and how many of its attempts have failed.
    pub fn progress(&self, promise: &str) -> Option<(i64, u32)> {
        let notes = self.0.lock().expect("no holder of this lock panics");
        notes.get(promise).and_then(|note| Some((note.begun?, note.failures)))
    }

    /// Whether a failed attempt of the step was reported.
    pub fn has_failed(&self, promise: &str) -> bool {
        let notes = self.0.lock().expect("no holder of this lock panics");
        notes.get(promise).is_some_and(|note| note.failures > 0)
    }

    /// An attempt has failed, and there will be no span.
    pub fn counted(&self, promise: &str) {
        self.with(promise, |note| note.failures += 1);
    }

    /// An attempt has failed, which the step's span will tell.
    pub fn failed(&self, promise: &str, kind: &'static str, message: &str) {
        let attributes = vec![
            KeyValue::new(EXCEPTION_TYPE, kind),
            KeyValue::new(EXCEPTION_MESSAGE, message.to_owned()),
        ];
        let event = Event::new(EXCEPTION, SystemTime::now(), attributes, 0);
        self.with(promise, |note| {
            note.failures += 1;
            note.events.push(event);
            note.error = Some(message.to_owned());
            note.error_type = Some(kind);
        });
    }

    /// The note of a step that has ended.
    pub fn take(&self, promise: &str) -> Note {
        self.find(promise).unwrap_or_default()
    }

    /// The note of a step that ends with its run, if its body was run here.
    pub fn find(&self, promise: &str) -> Option<Note> {
        self.0.lock().expect("no holder of this lock panics").remove(promise)
    }

    /// Forgets the steps that a run has left. `callees`: the runs below it that have not ended, whose
    /// steps stay.
    pub fn forget(&self, task: &str, callees: &[String]) {
        let is_left = |promise: &str| {
            is_below(promise, task) && !callees.iter().any(|callee| is_below(promise, callee))
        };
        self.0.lock().expect("no holder of this lock panics").retain(|id, _| !is_left(id));
    }
}

/// Whether a promise is a step or a call of a run, however deep.
pub(crate) fn is_below(promise: &str, task: &str) -> bool {
    promise.strip_prefix(task).is_some_and(|rest| rest.starts_with('.'))
}
