//! The server's time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Where the server takes its time from: the system's time when the clock is made, and from then on a
/// monotonic clock. So time neither jumps nor goes back when somebody sets the system's.
///
/// It is tokio's clock. Where tokio's time is paused, the server lives in virtual time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    /// Unix milliseconds at `start`.
    unix: i64,
}

impl Clock {
    /// A clock that shows the system's time now.
    pub fn system() -> Self {
        Self::starting_at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// A clock that shows this time now, given as a Unix time.
    pub fn starting_at(unix: Duration) -> Self {
        Self { start: Instant::now(), unix: millis(unix) }
    }

    /// The time in Unix milliseconds.
    pub(crate) fn now(&self) -> i64 {
        self.unix.saturating_add(millis(self.start.elapsed()))
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
    }
}
