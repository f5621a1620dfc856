//! Tasks that this process could not run: how often, and how long it waits before it releases one.

use std::{collections::HashMap, sync::Mutex, time::Duration};

/// Failed tasks that are remembered at most.
const MOST: usize = 10_000;

/// A task that is released comes back at once, so a task that nobody can run would make a hot loop.
pub(super) struct Failures {
    counts: Mutex<HashMap<String, u32>>,
    longest: Duration,
}

impl Failures {
    /// `longest`: the delay does not grow beyond this. It must end within the lease.
    pub fn new(longest: Duration) -> Self {
        Self { counts: Mutex::default(), longest }
    }

    /// Counts a failure of the task `id`: how many there were in a row, and how long to wait before
    /// the task is released.
    pub fn count(&self, id: &str) -> (u32, Duration) {
        let mut counts = self.counts.lock().expect("no holder of this lock panics");
        // Tasks that ended elsewhere leave their counts behind.
        if counts.len() >= MOST {
            counts.clear();
        }
        let count = counts.entry(id.to_owned()).or_default();
        *count += 1;
        let delay = Duration::from_millis(50) * 2_u32.saturating_pow((*count).min(16));
        (*count, delay.min(self.longest))
    }

    /// The task does well, or is rejected.
    pub fn forget(&self, id: &str) {
        let mut counts = self.counts.lock().expect("no holder of this lock panics");
        if !counts.is_empty() {
            counts.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_until_the_task_does_well() {
        let failures = Failures::new(Duration::from_millis(300));
        let delay = |id| failures.count(id).1.as_millis();
        assert_eq!([delay("x"), delay("x"), delay("x")], [100, 200, 300]);
        assert_eq!(delay("y"), 100);
        failures.forget("x");
        assert_eq!(failures.count("x").0, 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let failures = Failures::new(Duration::ZERO);
        (0..=MOST).for_each(|n| {
            failures.count(&n.to_string());
        });
        assert_eq!(failures.counts.lock().unwrap().len(), 1);
    }
}
