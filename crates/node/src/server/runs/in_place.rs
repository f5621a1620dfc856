//! Waiting in place: a run that waits for calls stays open for a moment.
//!
//! Most calls are answered within milliseconds. To suspend the task, to acquire it again and to ask
//! for each call's promise again takes four requests. So the run first listens for the promises that
//! it waits for. If one is settled within `NODE_SUSPEND_AFTER`, the SDK is told what the server tells
//! when it is too late to suspend: status 300 and the promises. The body then runs again in the same
//! run. Else the task is suspended, and no process holds it while it waits.
//!
//! The cost: if the process dies in that time, the takeover waits for the end of its lease.

use std::time::SystemTime;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use wire::{
    Address, Answer, Operation, Promise, Request,
    operation::{RegisterListener, TaskSuspend},
};

use super::{
    super::{Wait, calls::Calls},
    Runs,
};

impl Runs {
    /// The answer to a suspend whose run can continue at once.
    pub(super) async fn wait_in_place(&self, request: &Request) -> Option<Answer> {
        let Operation::TaskSuspend(TaskSuspend { id, version, actions }) = request.operation()
        else {
            unreachable!()
        };
        if self.suspend_after.is_zero() {
            return None;
        }
        let awaited: Vec<String> =
            actions.iter().map(|action| action.data.awaited.to_string()).collect();
        let mut calls = self.leases.take_calls(id, *version).filter(Calls::are_known)?;
        let settled = tokio::select! {
            settled = self.wait_for_one(&mut calls, &awaited) => settled,
            () = self.draining() => false,
        };
        // A process that was frozen may have lost the task: the answer to the suspend shows it.
        if !settled || self.leases.has_expired(id, *version) {
            return None;
        }
        let answer = Answer::local(request, 300, &calls.preload());
        self.leases.put_calls(id, *version, calls);
        Some(answer)
    }

    /// Whether one of the promises `ids` is settled in time.
    async fn wait_for_one(&self, calls: &mut Calls, ids: &[String]) -> bool {
        let (end, wall_end) =
            (Instant::now() + self.suspend_after, SystemTime::now() + self.suspend_after);
        let wait = async {
            let new = ids.iter().filter(|id| !calls.has(id));
            for (promise, wait) in join_all(new.map(|id| self.listen(id)))
                .await
                .into_iter()
                .collect::<Option<Vec<_>>>()?
            {
                calls.add(promise, wait);
            }
            if !calls.can_be_settled(ids, wall_end) {
                return None;
            }
            calls.settled(ids).await;
            Some(())
        };
        matches!(timeout_at(end, wait).await, Ok(Some(())))
    }

    /// Registers a listener for the promise `id`. Returns the promise as it is now.
    async fn listen(&self, id: &str) -> Option<(Promise<'static>, Wait)> {
        let wait = self.settlements.wait(id);
        let address = Address::only(&self.group, &self.instance).to_string();
        let listener = RegisterListener { awaited: id.into(), address: address.into() };
        let request = Request::new("promise.register_listener", &listener);
        let answer = self.next.exchange(request).await.ok()?;
        Some((answer.promise()?.clone().into_owned(), wait))
    }
}
