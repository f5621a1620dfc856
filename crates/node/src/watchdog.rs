//! Notices that the runtime of this process is blocked.
//!
//! Functions and heartbeats share a thread. A step that blocks it (`std::thread::sleep`, a blocking
//! client) stops the heartbeats of every run of the process: their leases expire although the
//! process lives. Only the step itself can be fixed, so the log says what to change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Calls `report` each time that the current runtime does nothing for `limit`, from a thread of its
/// own. The thread ends with the runtime.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn watch(limit: Duration, report: impl Fn() + Send + 'static) -> std::io::Result<()> {
    let alive = Arc::new(AtomicBool::new(true));
    let beat = Arc::downgrade(&alive);
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(limit / 4);
        loop {
            interval.tick().await;
            alive.store(true, Ordering::Relaxed);
        }
    });
    let look = move || {
        let mut blocked = false;
        while let Some(alive) = beat.upgrade() {
            let start = Instant::now();
            #[expect(clippy::disallowed_methods, reason = "this thread is not one of the runtime")]
            thread::sleep(limit);
            // After a much longer sleep the whole process was frozen.
            let frozen = start.elapsed() > 2 * limit;
            let idle = !alive.swap(false, Ordering::Relaxed);
            if idle && !frozen && !blocked {
                report();
            }
            blocked = idle;
        }
    };
    thread::Builder::new().name("watchdog".to_owned()).spawn(look).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test blocks its runtime")]
    async fn a_blocked_runtime_is_reported_once_and_a_waiting_one_is_not() {
        const LIMIT: Duration = Duration::from_millis(300);
        let (report, reports) = mpsc::sync_channel(8);
        watch(LIMIT, move || report.send(()).unwrap()).unwrap();
        tokio::time::sleep(4 * LIMIT).await;
        assert_eq!(reports.try_iter().count(), 0);
        thread::sleep(6 * LIMIT);
        assert_eq!(reports.try_iter().count(), 1);
    }
}
