//! Forgetting flows that are over, so that memory stays bounded.
//!
//! A flow is everything with one origin. It is dropped as a whole, and only while nothing in it is
//! pending: none of its tasks can come back, and nothing inside awaits anything. An id that is used
//! again after that is new, so its functions run again.
//!
//! Each flow has at most one timer, so nothing has to be searched for.

use std::collections::BTreeSet;

use wire::origin;

use super::state::{Core, Flow, Id};

impl Core {
    /// A promise was added.
    pub(super) fn joined_flow(&mut self, now: i64, id: &Id, pending: bool) {
        let name = origin(id);
        if !self.flows.contains_key(name) {
            // A root is its own origin; both share one text.
            let origin: Id = if name.len() == id.len() { id.clone() } else { name.into() };
            self.flows.insert(origin.clone(), Flow::new(origin));
        }
        if let Some(flow) = self.flows.get_mut(name) {
            flow.ids.push(id.clone());
            flow.pending += usize::from(pending);
            reschedule(flow, &mut self.forget, now.saturating_add(self.limits.retention));
        }
    }

    /// A promise was settled.
    pub(super) fn left_flow(&mut self, now: i64, id: &Id) {
        if let Some(flow) = self.flows.get_mut(origin(id)) {
            flow.pending = flow.pending.saturating_sub(1);
            reschedule(flow, &mut self.forget, now.saturating_add(self.limits.retention));
        }
    }

    /// Drops the flows whose retention is over, and the oldest ones if there are too many.
    pub(super) fn forget_settled(&mut self, now: i64) {
        let most = self.limits.settled_flows;
        let over = |(at, _): &(i64, Id), len: usize| *at <= now || len > most;
        while self.forget.first().is_some_and(|first| over(first, self.forget.len())) {
            let Some((_, origin)) = self.forget.pop_first() else { return };
            self.forget_flow(&origin);
        }
    }

    fn forget_flow(&mut self, origin: &str) {
        let Some(flow) = self.flows.remove(origin) else { return };
        for id in flow.ids {
            let branch = self.promises.remove(&id).and_then(|promise| promise.branch);
            let Some(branch) = branch else { continue };
            if let Some(ids) = self.branches.get_mut(&branch) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.branches.remove(&branch);
                }
            }
        }
    }
}

/// The retention starts again with each promise that is created or settled.
fn reschedule(flow: &mut Flow, forget: &mut BTreeSet<(i64, Id)>, forget_at: i64) {
    let next = (flow.pending == 0).then_some(forget_at);
    if let Some(at) = std::mem::replace(&mut flow.forget_at, next) {
        forget.remove(&(at, flow.origin.clone()));
    }
    if let Some(at) = next {
        forget.insert((at, flow.origin.clone()));
    }
}
