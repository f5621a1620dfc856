//! Promises and tasks as answers describe them.

use std::borrow::Cow;

use serde_json::value::RawValue;
use wire::{Promise, Task};

use super::state::{Core, StoredPromise, StoredTask};
use crate::json::EMPTY;

pub(super) type Record<'a> = Promise<'a, &'a RawValue, &'a RawValue>;

impl StoredPromise {
    pub(super) fn record<'a>(&'a self, id: &'a str) -> Record<'a> {
        Promise {
            id: id.into(),
            state: self.state,
            param: &self.param,
            value: self.value.as_ref().unwrap_or(&EMPTY),
            tags: &self.tags,
            timeout_at: self.timeout_at,
            created_at: self.created_at,
            settled_at: self.settled_at,
        }
    }
}

impl StoredTask {
    pub(super) fn record<'a>(&'a self, id: &'a str) -> Task<'a> {
        Task {
            id: id.into(),
            state: self.state,
            version: self.version,
            resumes: i64::try_from(self.ready.len()).unwrap_or(i64::MAX),
            ttl: self.lease.as_ref().map(|lease| lease.ttl),
            pid: self.lease.as_ref().map(|lease| Cow::Borrowed(&*lease.pid)),
        }
    }
}

impl Core {
    /// The other promises of the branch of `id`.
    pub(super) fn preload(&self, id: &str) -> Vec<Record<'_>> {
        let branch = self.promises.get(id).and_then(|promise| promise.branch.as_ref());
        let ids = branch.and_then(|branch| self.branches.get(branch));
        let others = ids.into_iter().flatten().filter(|other| ***other != *id);
        others.filter_map(|id| Some(self.promises.get(id)?.record(id))).collect()
    }
}
