//! Messages of the server, and what is asked for by itself when the server is back.

use std::sync::{Arc, Mutex, OnceLock};

use serde_json::json;

use super::stream;

pub(super) type Callback = Box<dyn Fn(String) + Send + Sync>;

/// Where messages go, and what is to be asked for when the server is back.
#[derive(Default)]
pub(super) struct Inbox {
    pub callback: OnceLock<Callback>,
    pub connected: OnceLock<Callback>,
    /// Runs that were lost because the server was out of reach, as (task id, version).
    pub orphans: Mutex<Vec<(String, i64)>>,
}

impl stream::Listener for Arc<Inbox> {
    fn connected(&self, id: &str) {
        if let Some(connected) = self.connected.get() {
            connected(id.to_owned());
        }
        // The server's own message for a task whose lease ended while nobody was connected is
        // lost, and comes again after its retry time-out only. Asking costs one request, and a
        // refusal does no harm.
        let orphans =
            std::mem::take(&mut *self.orphans.lock().expect("no holder of this lock panics"));
        for (id, version) in orphans {
            let task = json!({"id": id, "version": version});
            self.message(json!({"kind": "execute", "data": {"task": task}}).to_string());
        }
    }

    fn message(&self, json: String) {
        if let Some(callback) = self.callback.get() {
            callback(json);
        }
    }
}
