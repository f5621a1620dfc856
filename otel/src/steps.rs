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
}

impl Steps {
    fn with(&self, promise: &str, change: impl FnOnce(&mut Note)) {
        let mut notes = self.0.lock().expect("no holder of this lock panics");
        change(notes.entry(promise.to_owned()).or_default());
    }

    pub fn name(&self, promise: &str, name: &str) {
        self.with(promise, |note| note.name = Some(name.to_owned()));
    }

    pub fn failed(&self, promise: &str, kind: &str, message: &str) {
        let attributes = vec![
            KeyValue::new(EXCEPTION_TYPE, kind.to_owned()),
            KeyValue::new(EXCEPTION_MESSAGE, message.to_owned()),
        ];
        let event = Event::new(EXCEPTION, SystemTime::now(), attributes, 0);
        self.with(promise, |note| {
            note.events.push(event);
            note.error = Some(message.to_owned());
        });
    }

    /// The note of a step that has ended.
    pub fn take(&self, promise: &str) -> Note {
        self.0.lock().expect("no holder of this lock panics").remove(promise).unwrap_or_default()
    }

    /// Forgets the steps of a run that has ended without settling them.
    pub fn forget(&self, task: &str) {
        let below =
            |promise: &str| promise.strip_prefix(task).is_some_and(|rest| rest.starts_with('.'));
        self.0.lock().expect("no holder of this lock panics").retain(|promise, _| !below(promise));
    }
}
