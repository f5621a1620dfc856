//! The time-out of a call or step that sets none is that of its caller.
//!
//! The SDK takes 24 h instead, if the caller's is later. A flow that may take longer would lose its
//! calls to that.

use std::time::{Duration, SystemTime};

use wire::{Operation, Request, operation::FencedAction, tag};

use super::Runs;

/// What the SDK takes for calls without a time-out, in milliseconds.
const DEFAULT: i64 = 24 * 60 * 60 * 1_000;

/// How long a request may take from the moment at which the SDK computed its time-out to this layer,
/// in milliseconds. Only the value tells the default from a time-out that a function sets: one that
/// ends in the last minute of these 24 h is taken for the default.
const UNDER_WAY: i64 = 60_000;

impl Runs {
    /// Writes the caller's time-out into a creation that has the SDK's default.
    pub(super) fn inherit_timeout(&self, id: &str, version: i64, request: &mut Request) {
        let Operation::TaskFence(fence) = request.operation() else { return };
        let FencedAction::Create(create) = &fence.action else { return };
        let Some(callers) = self.leases.promise_timeout(id, version) else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let default = now.as_ref().map_or(0, Duration::as_millis) as i64 + DEFAULT;
        let is_default = (default - UNDER_WAY..=default).contains(&create.timeout_at);
        // A timer's time-out is its length.
        if is_default && create.timeout_at < callers && create.tags.get(tag::TIMER).is_none() {
            request.set_timeout(callers);
        }
    }
}
