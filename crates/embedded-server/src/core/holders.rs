//! Who holds a task: it is announced, acquired, resumed, and ends.

use wire::TaskState;

use super::state::{Core, Due, Id, Lease, Message};

impl Core {
    /// Makes a task pending and tells its group: it is new, released or resumed, or its lease expired.
    pub(super) fn announce(&mut self, now: i64, id: &Id) {
        if let Some(task) = self.task_mut(id) {
            task.state = TaskState::Pending;
            task.lease = None;
            let message = task.execute(id);
            self.out.push(message);
            self.pending.insert(id.clone());
            let due = now.saturating_add(self.limits.retry);
            self.arm(id, Some((due, Due::Retry)));
        }
    }

    /// Records which connection a task was announced to; none: there was none.
    pub(crate) fn announced(&mut self, id: &str, connection: Option<u64>) {
        if let Some(task) = self.task_mut(id) {
            task.announced_to = connection;
        }
    }

    /// The pending tasks that were last announced to `connection`; none: to nobody.
    ///
    /// It looks at every pending task: connections come and go rarely.
    pub(crate) fn unanswered(&self, connection: Option<u64>) -> Vec<Message> {
        let tasks = self.pending.iter().filter_map(|id| Some((id, self.task(id)?)));
        tasks
            .filter(|(_, task)| task.announced_to == connection)
            .map(|(id, task)| task.execute(id))
            .collect()
    }

    /// Gives a pending task to a process.
    pub(super) fn acquire(&mut self, now: i64, id: &Id, lease: Lease) {
        let due = now.saturating_add(lease.ttl);
        if let Some(task) = self.task_mut(id) {
            task.state = TaskState::Acquired;
            task.version += 1;
            task.ready.clear();
            task.announced_to = None;
            task.lease = Some(lease);
        }
        self.pending.remove(id);
        self.arm(id, Some((due, Due::Lease)));
    }

    /// Announces a task if it is suspended.
    pub(super) fn resume(&mut self, now: i64, id: &Id) {
        if self.task(id).is_some_and(|task| task.state == TaskState::Suspended) {
            self.announce(now, id);
        }
    }

    /// Ends the task of a settled promise.
    pub(super) fn end_task(&mut self, id: &Id) {
        self.arm(id, None);
        self.pending.remove(id);
        let Some(task) = self.task_mut(id) else { return };
        task.state = TaskState::Fulfilled;
        task.lease = None;
        task.announced_to = None;
        task.ready.clear();
        for awaited in std::mem::take(&mut task.waiting) {
            if let Some(promise) = self.promises.get_mut(&awaited) {
                promise.awaiters.remove(id);
            }
        }
    }
}
