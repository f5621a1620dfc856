//! What steps report while they run: `ctx.run` carries no name.

use std::{collections::HashMap, sync::Mutex, time::SystemTime};

use opentelemetry::{KeyValue, trace::Event};

use crate::attributes::{EXCEPTION, EXCEPTION_MESSAGE, EXCEPTION_TYPE};

/// Notes about the steps that run in this process, by promise id.
#[derive(Debug, Default)]
pub(crate) struct Steps(Mutex<HashMap<String, Note>>);

#[derive(Debug, Default)]
pub(crate) struct Note {
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

    pub fn name(&self, promise: &str, name: &str) {
        self.with(promise, |note| note.name = Some(name.to_owned()));
    }

    /// Whether a failed attempt of the step was reported.
    pub fn has_failed(&self, promise: &str) -> bool {
        let notes = self.0.lock().expect("no holder of this lock panics");
        notes.get(promise).is_some_and(|note| note.error.is_some())
    }

    pub fn failed(&self, promise: &str, kind: &'static str, message: &str) {
        let attributes = vec![
            KeyValue::new(EXCEPTION_TYPE, kind),
            KeyValue::new(EXCEPTION_MESSAGE, message.to_owned()),
        ];
        let event = Event::new(EXCEPTION, SystemTime::now(), attributes, 0);
        self.with(promise, |note| {
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

    /// Forgets the steps that a run has left.
    pub fn forget(&self, task: &str) {
        let below =
            |promise: &str| promise.strip_prefix(task).is_some_and(|rest| rest.starts_with('.'));
        self.0.lock().expect("no holder of this lock panics").retain(|promise, _| !below(promise));
    }
}
