//! One operation.

use super::state::{Core, Message};
use crate::{operation::Operation, reply::Reply};

impl Core {
    /// Applies an operation at `now`, in Unix milliseconds.
    pub(crate) fn apply(&mut self, now: i64, operation: Operation) -> (Reply, Vec<Message>) {
        self.run_due(now);
        let reply = match operation {
            Operation::PromiseGet(get) => self.promise_get(&get.id),
            Operation::PromiseCreate(promise) => self.promise_create(now, promise),
            Operation::PromiseSettle(settlement) => self.promise_settle(now, settlement),
            Operation::RegisterCallback(wait) => {
                self.register_callback(now, &wait.awaited, &wait.awaiter)
            }
            Operation::RegisterListener { awaited, address } => {
                self.register_listener(&awaited, address)
            }
            Operation::PromiseSearch(search) => self.promise_search(&search),
            Operation::TaskGet(get) => self.task_get(&get.id),
            Operation::TaskCreate { pid, ttl, promise } => {
                self.task_create(now, pid.into_owned(), ttl, promise)
            }
            Operation::TaskAcquire(acquire) => self.task_acquire(now, acquire),
            Operation::TaskRelease(task) => self.task_release(now, &task),
            Operation::TaskFulfill { version, settlement } => {
                self.task_fulfill(now, version, settlement)
            }
            Operation::TaskSuspend(suspend) => self.task_suspend(&suspend),
            Operation::TaskFence { fence, corr_id } => self.task_fence(now, fence, &corr_id),
            Operation::TaskHeartbeat(heartbeat) => self.task_heartbeat(now, &heartbeat),
            Operation::TaskSearch(search) => self.task_search(&search),
        };
        (reply, std::mem::take(&mut self.out))
    }
}
