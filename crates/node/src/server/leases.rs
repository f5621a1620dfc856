//! The runs that this process holds, each with its lease.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use wire::Deadline;

use super::calls::Calls;

/// Why a run may no longer change promises. The SDK cannot abort a run, so its later requests are
/// withheld instead: an error of the transport must not become the error of the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Abandoned {
    /// Another process holds the task, or its promise is settled.
    #[error("fenced: another process holds the task")]
    Fenced,
    /// The server did not answer for as long as the lease lasts.
    #[error("lease lost: the Resonate Server was unreachable for the whole lease")]
    Unreachable,
    /// The lease ended before this process could renew it: it was frozen, or its thread was blocked.
    #[error("lease lost: this process was frozen or blocked for the whole lease")]
    Expired,
    /// The server answers, but not this request.
    #[error("the Resonate Server did not answer a request for three leases")]
    Unanswered,
    /// Its promise was rejected: no run of it can continue.
    #[error("its promise was rejected")]
    Rejected,
    /// The server takes no request of this process: its token is missing, wrong or expired.
    #[error("lease lost: the Resonate Server refuses this process's token")]
    Unauthorized,
    /// This process was told to stop.
    #[error("draining: another process continues")]
    Draining,
    /// The same, and the time for that is over.
    #[error("released at the drain deadline: another process continues")]
    Released,
}

struct Run {
    version: i64,
    lease: Duration,
    /// When the lease ends, counted from the moment that its last renewal was sent: at the server
    /// it ends later.
    ends: watch::Sender<Instant>,
    abandoned: Option<Abandoned>,
    calls: Calls,
    /// When its promise times out, in Unix milliseconds.
    promise_timeout: Option<i64>,
}

/// The runs of this process by the id of their task, at most one of each task.
#[derive(Default)]
pub(crate) struct Leases {
    runs: Mutex<HashMap<String, Run>>,
    /// The tasks that are being acquired.
    acquiring: Mutex<HashSet<String>>,
    /// The tasks that are to be acquired when their last run has ended.
    waiting: Mutex<HashMap<String, u64>>,
    /// How many waits there were.
    turns: AtomicU64,
    ended: Notify,
}

/// An acquisition that is under way.
pub(crate) struct Acquiring<'a> {
    leases: &'a Leases,
    id: String,
}

impl Drop for Acquiring<'_> {
    fn drop(&mut self) {
        self.leases.lock_acquiring().remove(&self.id);
        self.leases.ended.notify_waiters();
    }
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Run>> {
        self.runs.lock().expect("no holder of this lock panics")
    }

    fn lock_acquiring(&self) -> MutexGuard<'_, HashSet<String>> {
        self.acquiring.lock().expect("no holder of this lock panics")
    }

    fn lock_waiting(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.waiting.lock().expect("no holder of this lock panics")
    }

    fn with<R>(&self, id: &str, version: i64, read: impl FnOnce(&mut Run) -> R) -> Option<R> {
        self.lock().get_mut(id).filter(|run| run.version == version).map(read)
    }

    /// A run begins, by a request that was sent at `sent`.
    pub fn begin(&self, id: &str, version: i64, sent: Instant, lease: Duration) {
        let ends = watch::Sender::new(sent + lease);
        let run = Run {
            version,
            lease,
            ends,
            abandoned: None,
            calls: Calls::default(),
            promise_timeout: None,
        };
        self.lock().insert(id.to_owned(), run);
    }

    /// A run has ended.
    pub fn end(&self, id: &str, version: i64) {
        let mut runs = self.lock();
        if runs.get(id).is_some_and(|run| run.version == version) {
            runs.remove(id);
            self.ended.notify_waiters();
        }
    }

    /// A renewal that was sent at `sent` was confirmed. The server confirms renewals of leases that
    /// were lost too, so one that was sent too late changes nothing.
    pub fn renew(&self, id: &str, version: i64, sent: Instant) {
        self.with(id, version, |run| {
            if sent < *run.ends.borrow() {
                run.ends.send_replace(sent + run.lease);
            }
        });
    }

    /// Whether a heartbeat is due: not in the first sixteenth of a lease, nor after its end.
    /// Heartbeats are half a lease apart, so a lease is renewed with almost half of it left.
    /// Returns when the lease ends.
    pub fn wants_heartbeat(&self, id: &str, version: i64) -> Option<Instant> {
        self.with(id, version, |run| {
            let ends = *run.ends.borrow();
            let left = ends.saturating_duration_since(Instant::now());
            let due = !left.is_zero() && left <= run.lease * 15 / 16;
            (run.abandoned.is_none() && due).then_some(ends)
        })?
    }

    /// Whether the lease of a run has ended, by the clock of this process.
    pub fn has_expired(&self, id: &str, version: i64) -> bool {
        let expired = |run: &mut Run| Instant::now() >= *run.ends.borrow();
        self.with(id, version, expired).unwrap_or(true)
    }

    /// The promise of a run times out then, in Unix milliseconds.
    pub fn set_promise_timeout(&self, id: &str, version: i64, timeout: i64) {
        self.with(id, version, |run| run.promise_timeout = Some(timeout));
    }

    /// When the promise of a run times out, in Unix milliseconds.
    pub fn promise_timeout(&self, id: &str, version: i64) -> Option<i64> {
        self.with(id, version, |run| run.promise_timeout)?
    }

    /// The runs that are held or being acquired.
    pub fn count(&self) -> usize {
        self.lock().len() + self.lock_acquiring().len()
    }

    /// Notes that a task is being acquired. `None`: it is already.
    pub fn acquiring(&self, id: &str) -> Option<Acquiring<'_>> {
        let is_new = self.lock_acquiring().insert(id.to_owned());
        is_new.then(|| Acquiring { leases: self, id: id.to_owned() })
    }

    /// A run may no longer change promises. The first reason stands. False: it was known before.
    pub fn abandon(&self, id: &str, version: i64, reason: Abandoned) -> bool {
        let first = |run: &mut Run| {
            let first = run.abandoned.is_none();
            run.abandoned.get_or_insert(reason);
            first
        };
        self.with(id, version, first).unwrap_or(false)
    }

    /// The lease of a run that may change promises.
    ///
    /// # Errors
    /// Why it may not. A run that is not here is fenced.
    pub fn check(&self, id: &str, version: i64) -> Result<Deadline, Abandoned> {
        let check = |run: &mut Run| match run.abandoned {
            None => Ok(run.ends.subscribe()),
            Some(reason) => Err(reason),
        };
        self.with(id, version, check).unwrap_or(Err(Abandoned::Fenced))
    }

    /// Takes what a run that may change promises knows of its calls.
    pub fn take_calls(&self, id: &str, version: i64) -> Option<Calls> {
        let take = |run: &mut Run| run.abandoned.is_none().then(|| std::mem::take(&mut run.calls));
        self.with(id, version, take)?
    }

    /// Puts back what a run knows of its calls.
    pub fn put_calls(&self, id: &str, version: i64, calls: Calls) {
        self.with(id, version, |run| run.calls = calls);
    }

    /// Remembers the preload in the answer to a call of a run.
    pub fn remember(&self, id: &str, version: i64, preload: &RawValue) {
        self.with(id, version, |run| run.calls.remember(preload));
    }

    /// The version of the run of `id`: how often its task was acquired, this time included.
    pub fn version(&self, id: &str) -> Option<i64> {
        self.lock().get(id).map(|run| run.version)
    }

    /// All runs, as (task id, version).
    pub fn all(&self) -> Vec<(String, i64)> {
        self.lock().iter().map(|(id, run)| (id.clone(), run.version)).collect()
    }

    /// Waits until there is no run of `id`. False: another wait for it has begun meanwhile.
    pub async fn wait_for_end_of(&self, id: &str) -> bool {
        if self.version(id).is_none() {
            return true;
        }
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        self.lock_waiting().insert(id.to_owned(), turn);
        // An earlier wait gives way.
        self.ended.notify_waiters();
        let is_last = || self.lock_waiting().get(id) == Some(&turn);
        self.wait_until(|| self.version(id).is_none() || !is_last()).await;
        let last = is_last();
        if last {
            self.lock_waiting().remove(id);
        }
        last
    }

    /// Waits until there is no run at all, and none is being acquired.
    pub async fn wait_for_end(&self) {
        let idle = || self.lock_acquiring().is_empty() && self.lock().is_empty();
        self.wait_until(idle).await;
    }

    async fn wait_until(&self, reached: impl Fn() -> bool) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Listen before looking: an end between the two would be missed.
            ended.as_mut().enable();
            if reached() {
                return;
            }
            ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(4);

    #[tokio::test]
    async fn only_the_held_version_may_continue_and_the_first_reason_stands() {
        let leases = Leases::default();
        leases.begin("x", 2, Instant::now(), LEASE);
        assert!(leases.check("x", 2).is_ok());
        assert_eq!(leases.check("x", 1).unwrap_err(), Abandoned::Fenced);
        assert!(leases.abandon("x", 2, Abandoned::Draining));
        assert!(!leases.abandon("x", 2, Abandoned::Fenced));
        assert_eq!(leases.check("x", 2).unwrap_err(), Abandoned::Draining);
        leases.end("x", 1);
        assert_eq!(leases.version("x"), Some(2));
        leases.end("x", 2);
        assert_eq!(leases.version("x"), None);
        assert!(!leases.abandon("x", 2, Abandoned::Fenced));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_lease_needs_no_heartbeat_and_a_renewal_moves_its_end() {
        let leases = Leases::default();
        let start = Instant::now();
        leases.begin("x", 1, start, LEASE);
        let deadline = leases.check("x", 1).unwrap();
        assert_eq!(leases.wants_heartbeat("x", 1), None);
        tokio::time::advance(LEASE / 17).await;
        assert_eq!(leases.wants_heartbeat("x", 1), None);
        tokio::time::advance(LEASE / 8).await;
        assert_eq!(leases.wants_heartbeat("x", 1), Some(start + LEASE));
        assert_eq!(leases.wants_heartbeat("x", 2), None);
        leases.renew("x", 1, Instant::now());
        assert_eq!(*deadline.borrow(), Instant::now() + LEASE);
        assert_eq!(leases.wants_heartbeat("x", 1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_has_ended_is_not_renewed() {
        let leases = Leases::default();
        leases.begin("x", 1, Instant::now(), LEASE);
        assert!(!leases.has_expired("x", 1));
        tokio::time::advance(LEASE).await;
        assert!(leases.has_expired("x", 1));
        assert_eq!(leases.wants_heartbeat("x", 1), None);
        // The server confirms a heartbeat of a lost lease too.
        leases.renew("x", 1, Instant::now());
        assert!(leases.has_expired("x", 1));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_run() {
        let leases = std::sync::Arc::new(Leases::default());
        leases.begin("x", 1, Instant::now(), LEASE);
        let waiting = tokio::spawn({
            let leases = leases.clone();
            async move { leases.wait_for_end().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let acquiring = leases.acquiring("x");
        assert!(leases.acquiring("x").is_none());
        leases.end("x", 1);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(acquiring);
        waiting.await.unwrap();
    }
}
