//! What happens by itself when its time has come.

use super::{Core, Due, Id};
use crate::protocol::TaskState;

impl Core {
    /// Everything due at `now`: time-outs of promises first, because they end tasks too.
    pub(super) fn run_due(&mut self, now: i64) {
        self.forget_settled(now);
        if self.timers.first().is_none_or(|(at, ..)| *at > now) {
            return;
        }
        let mut promises = Vec::new();
        let mut tasks = Vec::new();
        while let Some(timer) = self.timers.pop_first() {
            let (at, due, id) = timer;
            if at > now {
                self.timers.insert((at, due, id));
                break;
            }
            match due {
                Due::Promise => promises.push(id),
                Due::Retry | Due::Lease => tasks.push((at, due, id)),
            }
        }
        self.time_out(now, promises);
        for (at, due, id) in tasks {
            self.wake_task(now, at, due, &id);
        }
    }

    /// All of them end before anything wakes: a task whose own promise timed out must not resume.
    fn time_out(&mut self, now: i64, ids: Vec<Id>) {
        let expired: Vec<Id> = ids.iter().filter_map(|id| self.expire(now, id)).collect();
        for id in &expired {
            self.wake(now, id);
        }
    }

    /// A pending task is announced again; an acquired one loses its lease.
    fn wake_task(&mut self, now: i64, at: i64, due: Due, id: &Id) {
        let Some(task) = self.task_mut(id) else { return };
        if task.timer != Some((at, due)) {
            return; // Another timer of the same moment has changed it.
        }
        task.timer = None;
        if matches!(task.state, TaskState::Pending | TaskState::Acquired) {
            self.announce(now, id);
        }
    }
}
