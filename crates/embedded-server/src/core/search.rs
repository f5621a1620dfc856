//! Searches. They look at everything: not for request paths.

use wire::{
    Pairs,
    operation::{PromiseSearch, TaskSearch},
    outcome::{Promises, Tasks},
};

use super::state::{Core, Id, StoredPromise};
use crate::reply::Reply;

const DEFAULT_LIMIT: usize = 100;

impl Core {
    pub(super) fn promise_search(&self, search: &PromiseSearch) -> Reply {
        let found = self.promises.iter().filter(|(_, promise)| {
            search.state.is_none_or(|state| promise.state == state)
                && search.tags.as_ref().is_none_or(|tags| has_tags(promise, tags))
        });
        let (page, cursor) = page(found, search.cursor.as_deref(), search.limit);
        let promises = page.into_iter().map(|(id, promise)| promise.record(id)).collect();
        Reply::ok(&Promises { promises, cursor })
    }

    pub(super) fn task_search(&self, search: &TaskSearch) -> Reply {
        let tasks =
            self.promises.iter().filter_map(|(id, promise)| Some((id, promise.task.as_deref()?)));
        let found = tasks.filter(|(_, task)| search.state.is_none_or(|state| task.state == state));
        let (page, cursor) = page(found, search.cursor.as_deref(), search.limit);
        let tasks = page.into_iter().map(|(id, task)| task.record(id)).collect();
        Reply::ok(&Tasks { tasks, cursor })
    }
}

fn has_tags(promise: &StoredPromise, wanted: &Pairs) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let tags: Pairs = serde_json::from_str(promise.tags.get()).unwrap_or_default();
    wanted.iter().all(|(name, value)| tags.get(name) == Some(value))
}

/// The page after `cursor`, by id, and the next cursor if there are more.
fn page<'a, T>(
    found: impl Iterator<Item = (&'a Id, T)>,
    cursor: Option<&str>,
    limit: Option<i64>,
) -> (Vec<(&'a Id, T)>, Option<&'a str>) {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_LIMIT);
    let mut found: Vec<_> =
        found.filter(|(id, _)| cursor.is_none_or(|cursor| ***id > *cursor)).collect();
    found.sort_unstable_by_key(|(id, _)| *id);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(id, _)| &***id);
    (found, next)
}
