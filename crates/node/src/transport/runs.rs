//! The runs that this process holds: which may still change promises, and until when.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tokio::{sync::Notify, time::Instant};

/// Why a run may not change promises any more. The SDK cannot abort a run: its later requests are
/// refused instead, so that an error that is the transport's never becomes the function's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another process holds the task, or it has ended.
    #[error("the task is no longer held by this process")]
    Fenced,
    /// The server was out of reach for as long as the lease lasted.
    #[error("the Resonate Server was out of reach for as long as the lease lasted")]
    Unreachable,
    /// This process was told to stop; another one goes on with the next step.
    #[error("this process is draining, another one takes over")]
    Draining,
}

struct Run {
    version: i64,
    /// When the request was sent that last renewed the lease: at the server the lease lasts longer.
    renewed: Instant,
    lease: Duration,
    refusal: Option<Refusal>,
}

/// The runs of this process by the id of their task. Of one task at most one run is here.
#[derive(Default)]
pub struct Runs {
    runs: Mutex<HashMap<String, Run>>,
    ended: Notify,
}

impl Runs {
    fn with<R>(&self, id: &str, version: i64, change: impl FnOnce(&mut Run) -> R) -> Option<R> {
        let mut runs = self.runs.lock().expect("no holder of this lock panics");
        runs.get_mut(id).filter(|run| run.version == version).map(change)
    }

    pub(super) fn begin(&self, id: &str, version: i64, renewed: Instant, lease: Duration) {
        let run = Run { version, renewed, lease, refusal: None };
        self.runs.lock().expect("no holder of this lock panics").insert(id.to_owned(), run);
    }

    pub(super) fn end(&self, id: &str, version: i64) {
        let mut runs = self.runs.lock().expect("no holder of this lock panics");
        if runs.get(id).is_some_and(|run| run.version == version) {
            runs.remove(id);
            self.ended.notify_waiters();
        }
    }

    pub(super) fn renew(&self, id: &str, version: i64, sent: Instant) {
        self.with(id, version, |run| run.renewed = sent);
    }

    /// When the lease ends unless it is renewed; a run that is not here has none.
    pub(super) fn lease_end(&self, id: &str, version: i64) -> Instant {
        self.with(id, version, |run| run.renewed + run.lease).unwrap_or_else(Instant::now)
    }

    /// Whether a heartbeat is worth its request: not in the first quarter of a lease.
    pub(super) fn wants_heartbeat(&self, id: &str, version: i64) -> bool {
        self.with(id, version, |run| {
            run.refusal.is_none() && run.renewed.elapsed() >= run.lease / 4
        })
        .unwrap_or(false)
    }

    /// The first refusal stands.
    pub(super) fn refuse(&self, id: &str, version: i64, why: Refusal) {
        self.with(id, version, |run| run.refusal.get_or_insert(why).to_owned());
    }

    pub(super) fn check(&self, id: &str, version: i64) -> Result<(), Refusal> {
        match self.with(id, version, |run| run.refusal) {
            Some(None) => Ok(()),
            Some(Some(refusal)) => Err(refusal),
            None => Err(Refusal::Fenced),
        }
    }

    /// The version of the run of `id`: how often its task was acquired, this time included.
    pub fn version(&self, id: &str) -> Option<i64> {
        self.runs.lock().expect("no holder of this lock panics").get(id).map(|run| run.version)
    }

    /// All runs that are here, as (task id, version).
    pub fn all(&self) -> Vec<(String, i64)> {
        let runs = self.runs.lock().expect("no holder of this lock panics");
        runs.iter().map(|(id, run)| (id.clone(), run.version)).collect()
    }

    /// Waits until no run of `id` is here.
    pub(super) async fn wait_for_end_of(&self, id: &str) {
        self.wait_until(|| self.version(id).is_none()).await;
    }

    /// Waits until no run at all is here.
    pub async fn wait_for_end(&self) {
        self.wait_until(|| self.runs.lock().expect("no holder of this lock panics").is_empty())
            .await;
    }

    async fn wait_until(&self, reached: impl Fn() -> bool) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Listen before looking, or an end between the two would go unheard.
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

    const LEASE: Duration = Duration::from_secs(3);

    #[test]
    fn only_the_version_that_is_held_may_go_on_and_the_first_refusal_stands() {
        let runs = Runs::default();
        runs.begin("x", 2, Instant::now(), LEASE);
        assert_eq!(runs.check("x", 2), Ok(()));
        assert_eq!(runs.check("x", 1), Err(Refusal::Fenced));
        runs.refuse("x", 2, Refusal::Draining);
        runs.refuse("x", 2, Refusal::Fenced);
        assert_eq!(runs.check("x", 2), Err(Refusal::Draining));
        runs.end("x", 1);
        assert_eq!(runs.version("x"), Some(2));
        runs.end("x", 2);
        assert_eq!(runs.version("x"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_lease_needs_no_heartbeat() {
        let runs = Runs::default();
        let start = Instant::now();
        runs.begin("x", 1, start, LEASE);
        assert!(!runs.wants_heartbeat("x", 1));
        tokio::time::advance(LEASE / 2).await;
        assert!(runs.wants_heartbeat("x", 1));
        assert_eq!(runs.lease_end("x", 1), start + LEASE);
        runs.renew("x", 1, Instant::now());
        assert_eq!(runs.lease_end("x", 1), start + LEASE + LEASE / 2);
    }

    #[tokio::test]
    async fn an_end_is_heard() {
        let runs = std::sync::Arc::new(Runs::default());
        runs.begin("x", 1, Instant::now(), LEASE);
        let waiting = tokio::spawn({
            let runs = runs.clone();
            async move { runs.wait_for_end().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        runs.end("x", 1);
        waiting.await.unwrap();
    }
}
