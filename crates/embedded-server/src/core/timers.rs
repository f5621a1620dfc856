//! What happens by itself when it is due.

use wire::TaskState;

use super::state::{Core, Due, Id, Message};

impl Core {
    /// Does what is due at `now`.
    pub(crate) fn tick(&mut self, now: i64) -> Vec<Message> {
        self.run_due(now);
        std::mem::take(&mut self.out)
    }

    /// When [`Core::tick`] is to be called next, in Unix milliseconds.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let timer = self.timers.first().map(|(at, ..)| *at);
        let forget = self.forget.first().map(|(at, _)| *at);
        timer.into_iter().chain(forget).min()
    }

    /// Does what is due at `now`: time-outs of promises first, because they end tasks too.
    pub(super) fn run_due(&mut self, now: i64) {
        self.forget_settled(now);
        let mut promises = Vec::new();
        let mut tasks = Vec::new();
        while self.timers.first().is_some_and(|(at, ..)| *at <= now)
            && let Some((at, due, id)) = self.timers.pop_first()
        {
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

    /// Settles all of them before any task resumes: one whose own promise has timed out must not.
    fn time_out(&mut self, now: i64, ids: Vec<Id>) {
        let expired: Vec<Id> = ids.iter().filter_map(|id| self.expire(now, id)).collect();
        for id in &expired {
            self.wake(now, id);
        }
    }

    /// Announces a pending task again, or takes the lease from an acquired one.
    fn wake_task(&mut self, now: i64, at: i64, due: Due, id: &Id) {
        let Some(task) = self.task_mut(id) else { return };
        if task.timer != Some((at, due)) {
            return; // Another timer of the same time has changed it.
        }
        task.timer = None;
        if matches!(task.state, TaskState::Pending | TaskState::Acquired) {
            self.announce(now, id);
        }
    }

    /// Replaces a task's only timer.
    pub(super) fn arm(&mut self, id: &Id, timer: Option<(i64, Due)>) {
        let Some(task) = self.task_mut(id) else { return };
        if let Some((at, due)) = std::mem::replace(&mut task.timer, timer) {
            self.timers.remove(&(at, due, id.clone()));
        }
        if let Some((at, due)) = timer {
            self.timers.insert((at, due, id.clone()));
        }
    }
}
