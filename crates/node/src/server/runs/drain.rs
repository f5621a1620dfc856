//! The end of a process: its runs end after their steps, or are released.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use wire::{Request, operation::TaskRef};

use super::Runs;
use crate::server::leases::Abandoned;

/// How long a drain that has reached its deadline waits for the answers to its releases. A server that
/// is well needs milliseconds, and whoever stops this process may kill it soon after the deadline.
pub(super) const LAST_RELEASE: Duration = Duration::from_millis(500);

impl Runs {
    /// Waits until this process is told to stop.
    pub(super) async fn draining(&self) {
        // It fails only if the sender, which `self` holds, is gone.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Lets each running step end, and waits until every run has ended or was released. Runs that
    /// are left after `NODE_DRAIN` are released in the middle of a step.
    pub async fn drain(&self) {
        self.draining.send_replace(true);
        if timeout(self.drain, self.leases.wait_for_end()).await.is_ok() {
            return;
        }
        let release = async |(id, version): (String, i64)| {
            tracing::warn!(
                promise = id,
                version,
                "drain deadline reached: released in the middle of a step, which will run again"
            );
            self.leases.abandon(&id, version, Abandoned::Released);
            // One attempt: the process is about to end, and the lease ends anyway.
            self.release_task(&id, version, Some(Instant::now())).await;
        };
        let releases = join_all(self.leases.all().into_iter().map(release));
        if timeout(LAST_RELEASE, releases).await.is_err() {
            tracing::warn!("no answer to the last releases; the leases will expire");
        }
    }

    /// Releases a task on the runtime's own account. `until`: see [`Request::until`].
    pub(super) async fn release_task(&self, id: &str, version: i64, until: Option<Instant>) {
        let mut request = Request::new("task.release", &TaskRef { id: id.into(), version });
        if let Some(until) = until {
            request = request.until(until);
        }
        if let Err(error) = self.next.exchange(request).await {
            tracing::warn!(promise = id, version, %error, "release failed; the lease will expire");
        }
    }
}
