//! An end for tasks that no process can run: they would come back for ever, at once.

use std::time::Duration;

use resonate_sdk::error::Error;
use serde_json::json;

use super::{Transport, wire};

/// How often one process looks at a task whose function it does not know before it rejects it:
/// while a new version is rolled out, another process of the group may know it.
const UNKNOWN_FUNCTION_RUNS: u32 = 5;

impl Transport {
    /// Settles a promise that no process can run, so that its task does not come back for ever.
    pub(super) async fn reject(&self, task: &wire::TaskRef, message: &str) -> Error {
        tracing::error!(
            promise = task.id,
            version = task.version,
            error = message,
            "promise rejected"
        );
        let value = json!({"data": wire::rejection(message)});
        let settle = json!({"id": task.id, "state": "rejected", "value": value});
        let action = json!({"kind": "promise.settle", "head": {}, "data": settle});
        let data = json!({"id": task.id, "version": task.version, "action": action});
        if let Err(error) = self.call_patiently(wire::request("task.fulfill", data)).await {
            tracing::warn!(promise = task.id, %error, "could not be rejected, its lease will expire");
        }
        Error::NetworkError(message.to_owned())
    }

    pub(super) async fn give_up_unknown(&self, task: &wire::TaskRef, function: &str) -> Error {
        let message = format!("no function {function:?} in group {}", self.group);
        let times = self.count_given_up(&task.id);
        if times >= UNKNOWN_FUNCTION_RUNS {
            self.forget_given_up(&task.id);
            return self.reject(task, &format!("{message}: the caller's target is wrong, or the group runs an older version")).await;
        }
        tracing::warn!(
            promise = task.id,
            version = task.version,
            message,
            "another process may know it: given back after a pause"
        );
        tokio::time::sleep(self.pause_before_release(times)).await;
        self.send_release(&task.id, task.version).await;
        Error::NetworkError(message)
    }

    pub(super) fn count_given_up(&self, id: &str) -> u32 {
        let mut given_up = self.given_up.lock().expect("no holder of this lock panics");
        // Counts of tasks that ended elsewhere stay behind: too many of them, and all start anew.
        if given_up.len() >= 10_000 {
            given_up.clear();
        }
        let times = given_up.entry(id.to_owned()).or_default();
        *times += 1;
        *times
    }

    pub(super) fn forget_given_up(&self, id: &str) {
        let mut given_up = self.given_up.lock().expect("no holder of this lock panics");
        if !given_up.is_empty() {
            given_up.remove(id);
        }
    }

    /// A task that is released comes back at once. The pause grows, and ends within the lease.
    pub(super) fn pause_before_release(&self, times: u32) -> Duration {
        let pause = Duration::from_millis(50) * 2_u32.saturating_pow(times.min(16));
        pause.min(self.config.lease / 2)
    }
}
