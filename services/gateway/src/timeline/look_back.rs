//! Looks for takeovers in flows that have ended, if they took long enough for one. All other flows cost
//! nothing.

use std::{sync::Arc, time::Duration};

use flows::Options;
use tokio::sync::mpsc;
use wire::Promise;

use super::{known::Known, view::view, watch::own_clock};
use crate::{Settings, client::Client, stats::Stats};

/// How many flows may wait for their turn. On a system in which all flows are late, most are left out.
const WAITING: usize = 64;

/// Looks at flows one after the other.
#[derive(Clone)]
pub struct LookBack {
    flows: mpsc::Sender<Promise<'static>>,
    lease: Duration,
}

impl LookBack {
    /// Starts a task that ends with the last clone of the value.
    pub fn start(client: Client, settings: Arc<Settings>, stats: Stats) -> Self {
        let (flows, mut waiting) = mpsc::channel(WAITING);
        let lease = settings.node.lease;
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                look(&client, &settings, &stats, &first).await;
            }
        });
        Self { flows, lease }
    }

    /// The flow that starts with `first` has ended `after` this time.
    pub fn ended(&self, first: &Promise<'static>, options: &Options, after: Duration) {
        if after >= soonest(options, self.lease) {
            // It fails if too many wait.
            let _ = self.flows.try_send(first.clone());
        }
    }
}

/// How long a flow takes at least if there was a takeover: nothing happens from a death to the end of
/// the lease, and heartbeats are sent twice in a lease.
fn soonest(options: &Options, lease: Duration) -> Duration {
    options.work.unwrap_or_default() + options.sleep.unwrap_or_default() + lease / 2
}

/// Looks at one flow. If the server cannot tell, it is left out.
async fn look(client: &Client, settings: &Settings, stats: &Stats, first: &Promise<'_>) {
    let Some(mut known) = Known::new(first, None) else { return };
    match known.refresh(client, own_clock).await {
        Ok(()) => stats.takeovers(&view(&known, &[], settings).found),
        Err(error) => tracing::debug!(%error, promise = %first.id, "looking for takeovers failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flow_that_took_longer_than_asked_for_can_have_a_takeover() {
        let (second, lease) = (Duration::from_secs(1), Duration::from_secs(3));
        assert_eq!(soonest(&Options::default(), lease), Duration::from_millis(1_500));
        let options = Options { work: Some(6 * second), sleep: Some(second), fail: Some(1) };
        assert_eq!(soonest(&options, lease), Duration::from_millis(8_500));
    }
}
