//! How a test ends what it started.
//!
//! A test stops everything itself and asserts that nothing is left. `Drop` only cleans up after a
//! test that failed: it kills, by process id, and asserts nothing.

use crate::{Log, process};

/// Proof that a test has stopped what it started and that nothing was left. Only `stop` makes one.
#[derive(Debug)]
pub struct Stopped(());

impl Stopped {
    /// # Panics
    /// A process whose output goes to `log`, or one that such a process started, still runs.
    pub fn check(log: &Log) -> Self {
        let left = process::left(log);
        assert!(left.is_empty(), "these processes are left: {left:?}\n{log}");
        Self(())
    }

    /// For one of several users of a [`Shared`](crate::Shared) value, who leaves it to the others.
    pub(crate) fn by_another() -> Self {
        Self(())
    }
}

/// What can be stopped.
pub trait Stop {
    /// Stops it.
    ///
    /// # Panics
    /// Something is left.
    fn stop(self) -> impl Future<Output = Stopped>;
}
