//! Searches: they look at everything, and are not meant for a request path.

use std::collections::HashMap;

use super::{Core, Id};
use crate::protocol::{PromiseState, Reply, TaskState, push_string};

impl Core {
    pub(super) fn promise_search(
        &self,
        state: Option<PromiseState>,
        tags: &HashMap<String, String>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Reply {
        let found = self.promises.iter().filter(|(id, promise)| {
            cursor.is_none_or(|cursor| ***id > *cursor)
                && state.is_none_or(|state| promise.state == state)
                && carries(&promise.tags, tags)
        });
        let (page, next) = page(found.map(|(id, _)| id).collect(), limit);
        let mut data = String::from("{\"promises\":[");
        for (index, id) in page.iter().enumerate() {
            if index > 0 {
                data.push(',');
            }
            if let Some(promise) = self.promises.get(*id) {
                promise.render(id, &mut data);
            }
        }
        finish(data, next)
    }

    pub(super) fn task_search(
        &self,
        state: Option<TaskState>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Reply {
        let tasks = self.promises.keys().filter_map(|id| Some((id, self.task(id)?)));
        let found = tasks.filter(|(id, task)| {
            cursor.is_none_or(|cursor| ***id > *cursor)
                && state.is_none_or(|state| task.state == state)
        });
        let (page, next) = page(found.map(|(id, _)| id).collect(), limit);
        let mut data = String::from("{\"tasks\":[");
        for (index, id) in page.iter().enumerate() {
            if index > 0 {
                data.push(',');
            }
            if let Some(task) = self.task(id) {
                task.render(id, &mut data);
            }
        }
        finish(data, next)
    }
}

/// Whether a promise's tags contain all of these.
fn carries(tags: &str, wanted: &HashMap<String, String>) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let tags: HashMap<String, String> = serde_json::from_str(tags).unwrap_or_default();
    wanted.iter().all(|(name, value)| tags.get(name) == Some(value))
}

/// The first `limit` ids, and the cursor if there are more.
fn page(mut ids: Vec<&Id>, limit: usize) -> (Vec<&Id>, Option<&Id>) {
    ids.sort_unstable();
    let more = ids.len() > limit;
    ids.truncate(limit);
    let next = ids.last().copied().filter(|_| more);
    (ids, next)
}

fn finish(mut data: String, cursor: Option<&Id>) -> Reply {
    data.push(']');
    if let Some(cursor) = cursor {
        data.push_str(",\"cursor\":");
        push_string(&mut data, cursor);
    }
    data.push('}');
    Reply::ok(data)
}
