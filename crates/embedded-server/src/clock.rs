//! The server's time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The longest sleep by the system's time, which can jump: a machine was suspended, or somebody has set
/// its clock.
const LONGEST: Duration = Duration::from_secs(1);

/// Where the server takes its time from.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Source);

#[derive(Debug, Clone, Copy)]
enum Source {
    /// The system's time, as that of all clients.
    System,
    /// Unix milliseconds at a moment. From then on it is tokio's time.
    Virtual(i64, Instant),
    #[cfg(test)]
    Set(&'static std::sync::atomic::AtomicI64),
}

impl Clock {
    /// The system's time: clients say by it when a promise times out.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows this time now, given as a Unix time, and from then on follows tokio's. Where that
    /// is paused, the server lives in virtual time.
    pub fn starting_at(unix: Duration) -> Self {
        Self(Source::Virtual(millis(unix), Instant::now()))
    }

    /// A clock that shows these Unix milliseconds.
    #[cfg(test)]
    pub fn set_by(unix: &'static std::sync::atomic::AtomicI64) -> Self {
        Self(Source::Set(unix))
    }

    /// The time in Unix milliseconds.
    pub(crate) fn now(&self) -> i64 {
        match self.0 {
            Source::System => {
                millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
            }
            Source::Virtual(unix, start) => unix.saturating_add(millis(start.elapsed())),
            #[cfg(test)]
            Source::Set(unix) => unix.load(std::sync::atomic::Ordering::Relaxed),
        }
    }

    /// How long to sleep at `now` for what is due then, before it is time to look at this clock again.
    pub(crate) fn sleep(&self, now: i64, due: i64) -> Duration {
        let sleep = Duration::from_millis(due.saturating_sub(now).max(0).unsigned_abs());
        match self.0 {
            Source::Virtual(..) => sleep,
            _ => sleep.min(LONGEST),
        }
    }
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_is_virtual_where_tokios_is() {
        let clock = Clock::starting_at(Duration::from_secs(5));
        assert_eq!(clock.now(), 5_000);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now(), 3_605_000);
        assert_eq!(clock.sleep(5_000, 3_605_000), Duration::from_secs(3_600));
    }
}
