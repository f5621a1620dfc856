//! How a call reaches the first process of its group, if that is healthy, and another one if not.
//!
//! Why: `docker kill service-b`, as typed, should hit the process that works. The server can prefer
//! a connection (`poll://any@service-b/service-b`), but only by its id and without a fallback: for
//! as long as there is such a connection, all messages go to it. The connection of a frozen process
//! stays for ever, and that of a process that was cut off stays until the kernel gives it up, so a
//! call would wait for a dead process while a healthy one is idle.
//!
//! How: the call is sent to any process of the group, with the hint that the first one should act
//! ([`Address::first`]). The first process is the one whose instance is named like the group.
//!
//! - A process that is not the first one and gets a fresh task reads its promise. If that has the
//!   hint, the process creates a messenger: a promise with the id `{task id}.hand-over`, which the
//!   server sends to the first process only. It waits a moment, and then acquires the task itself.
//!   If the first process was faster, the acquire is refused, like any other that comes too late.
//! - The first process reads the task's id out of the messenger's id, and acquires that task. Nobody
//!   acquires the messenger. It times out before the server would repeat its message.
//!
//! Only a fresh task (version 0) is handed over. A task that was acquired before is resumed, or taken
//! over, by any process.
//!
//! What it costs: a process that is not the first one reads the promise of each fresh task that it
//! gets. Each call that is handed over costs another promise and a refused acquire. While there is no
//! first process, or it is frozen, a call with the hint starts later by [`MOMENT`] if another process
//! gets it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep};
use wire::{
    Address, Exchange, Pairs, PromiseValue, Request,
    operation::{Get, PromiseCreate},
    tag,
};

/// How long the first process has to acquire a task, and how long a messenger lives: less than the
/// server's retry time-out, so that its message is sent once.
const MOMENT: Duration = Duration::from_millis(300);

/// What follows the task's id in the id of a messenger. No promise of the SDK has such an id.
const SUFFIX: &str = ".hand-over";

/// A process of a group that hands calls over.
pub(crate) struct HandOver {
    /// The layer below the one that traces: a messenger is no call, and has neither a context nor
    /// a span.
    next: Arc<dyn Exchange>,
    is_first: bool,
    /// The target of a call that the first process should get.
    hint: String,
    /// The address of the first process.
    first: String,
    /// Cloned by each offer that is under way.
    offers: Arc<()>,
}

impl HandOver {
    /// For the process `instance` of `group`.
    pub fn new(next: Arc<dyn Exchange>, group: &str, instance: &str) -> Self {
        Self {
            next,
            is_first: instance == group,
            hint: Address::first(group).to_string(),
            first: Address::only(group, group).to_string(),
            offers: Arc::default(),
        }
    }

    /// The task that is passed on to this process by a messenger with this id.
    pub fn task_of<'a>(&self, messenger: &'a str) -> Option<&'a str> {
        messenger.strip_suffix(SUFFIX).filter(|_| self.is_first)
    }

    /// The offers that are under way.
    pub fn count(&self) -> usize {
        Arc::strong_count(&self.offers) - 1
    }

    /// Offers a fresh task to the first process, if its call asks for that, and gives it a moment.
    /// Returns whether it did. Whatever goes wrong means no: this process runs the task.
    pub async fn offer(&self, id: &str) -> bool {
        let _under_way = self.offers.clone();
        let offered = !self.is_first && self.is_asked_for(id).await && self.send(id).await;
        if offered {
            sleep(MOMENT).await;
        }
        offered
    }

    /// Whether the first process should get this call. Not if the promise is settled: then its task
    /// only has to be ended.
    async fn is_asked_for(&self, id: &str) -> bool {
        let get = Request::new("promise.get", &Get { id: id.into() });
        let answer = self.next.exchange(get.until(Instant::now() + MOMENT)).await;
        answer.is_ok_and(|answer| {
            let promise = answer.promise().filter(|promise| promise.is_pending());
            promise.is_some_and(|promise| promise.tags.get(tag::TARGET) == Some(&self.hint))
        })
    }

    /// Creates the messenger. False: it has timed out, because the server was slow, or sent this
    /// task before.
    async fn send(&self, id: &str) -> bool {
        let end = SystemTime::now() + MOMENT;
        let messenger = PromiseCreate {
            id: format!("{id}{SUFFIX}").into(),
            timeout_at: end.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64,
            param: PromiseValue::default(),
            // Without a tag that names the flow: it is none of its promises.
            tags: Pairs::from_iter([(tag::TARGET, self.first.clone())]),
        };
        let create = Request::new("promise.create", &messenger);
        let answer = self.next.exchange(create.until(Instant::now() + MOMENT)).await;
        answer.is_ok_and(|answer| answer.promise().is_some_and(|promise| promise.is_pending()))
    }
}
