//! What is logged about exports: an outage and its end once, and losses at most once a minute.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::Counts;

/// Time between two lines about losses.
const INTERVAL: Duration = Duration::from_secs(60);

/// What has been logged.
#[derive(Debug)]
pub(crate) struct Log {
    endpoint: String,
    /// For log lines: many processes may write to one log.
    instance: String,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// The collector is out of reach.
    down: bool,
    /// Lost spans in the last line, and its time.
    lost: u64,
    at: Option<Instant>,
    /// Why the collector rejected spans last.
    reason: String,
}

impl Log {
    pub fn new(endpoint: String, instance: String) -> Self {
        Self { endpoint, instance, said: Mutex::default() }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn down(&self, error: &str) {
        if !std::mem::replace(&mut self.said().down, true) {
            let (instance, collector) = (&self.instance, &self.endpoint);
            tracing::warn!(
                instance,
                collector,
                error,
                "span export is failing; flows are not affected"
            );
        }
    }

    pub fn up(&self, counts: &Counts) {
        if std::mem::take(&mut self.said().down) {
            let (instance, collector) = (&self.instance, &self.endpoint);
            let (dropped, rejected) = (counts.dropped(), counts.rejected());
            tracing::info!(instance, collector, dropped, rejected, "span export recovered");
        }
    }

    /// Why the collector rejected spans; for lines about losses.
    pub fn reason(&self, reason: String) {
        if !reason.is_empty() {
            self.said().reason = reason;
        }
    }

    /// When to report what has been lost since the last line. None: nothing has.
    pub fn next_report(&self, counts: &Counts) -> Option<Instant> {
        let said = self.said();
        let lost = counts.lost() > said.lost;
        lost.then(|| said.at.map_or_else(Instant::now, |at| at + INTERVAL))
    }

    pub fn losses_are_due(&self, counts: &Counts, now: Instant) -> bool {
        let said = self.said();
        counts.lost() > said.lost && said.at.is_none_or(|at| now >= at + INTERVAL)
    }

    pub fn report_losses(&self, counts: &Counts, now: Instant) {
        let reason = {
            let mut said = self.said();
            (said.lost, said.at) = (counts.lost(), Some(now));
            // Lines have the counts of the whole process, so it is still the reason of some.
            said.reason.clone()
        };
        let instance = &self.instance;
        let (dropped, rejected, given_up) =
            (counts.dropped(), counts.rejected(), counts.given_up());
        tracing::warn!(instance, dropped, rejected, given_up, reason, "spans were lost");
    }

    /// The last line: it has the counts of the whole process, if any span was lost.
    pub fn report_rest(&self, counts: &Counts) {
        if counts.lost() > 0 {
            self.report_losses(counts, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn losses_are_reported_at_once_and_then_once_a_minute() {
        let (log, counts) = (Log::new(String::new(), String::new()), Counts::default());
        let now = Instant::now();
        assert!(!log.losses_are_due(&counts, now) && log.next_report(&counts).is_none());
        counts.dropped.fetch_add(1, Relaxed);
        assert!(log.losses_are_due(&counts, now) && log.next_report(&counts).is_some());
        log.reason("too large".to_owned());
        log.report_losses(&counts, now);
        assert_eq!(log.said().reason, "too large", "the last line has it, too");
        let later = now + INTERVAL;
        assert!(!log.losses_are_due(&counts, later) && log.next_report(&counts).is_none());
        counts.rejected.fetch_add(1, Relaxed);
        assert!(!log.losses_are_due(&counts, later - Duration::from_millis(1)));
        assert!(log.losses_are_due(&counts, later));
        assert_eq!(log.next_report(&counts), Some(later));
    }
}
