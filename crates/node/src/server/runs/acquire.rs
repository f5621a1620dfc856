//! What happens before a run begins: room, drain, lost answers, and tasks that cannot be run.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep};
use wire::{
    AnswerBody, ExchangeError, Operation, Promise, Request, Task,
    call::{self, Call},
    operation::Get,
};

use super::{super::instance_of, Abandoned, Answered, HandOver, Runs, withheld};

/// How often a process acquires a task whose function it does not know before it rejects it: while
/// a new version is rolled out, another process of the group may know the function.
pub(super) const UNKNOWN_FUNCTION_RUNS: u32 = 5;

/// How many acquires in a row are not answered before the log says so.
pub(super) const UNANSWERED_ACQUIRES: u32 = 3;

impl Runs {
    pub async fn acquire(&self, request: Request) -> Answered {
        let Operation::TaskAcquire(acquire) = request.operation() else { unreachable!() };
        let (id, version) = (acquire.id.to_string(), acquire.version);
        let lease = Duration::from_millis(acquire.ttl.try_into().unwrap_or_default());
        // The SDK heartbeats by task id: two runs of a task in one process would end each other's. The
        // server announces the task again while the body of an abandoned run still runs here.
        if !self.leases.wait_for_end_of(&id).await {
            return Err(ExchangeError::Withheld("the task was announced again".to_owned()));
        }
        self.check_ready(&id)?;
        let mut offered = false;
        if version == 0
            && let Some(hand_over) = &self.hand_over
        {
            offered = hand_over.offer(&id).await;
            self.check_ready(&id)?;
        }
        // A drain waits for it. The server announces a task again while it is slow to answer.
        let Some(_acquiring) = self.leases.acquiring(&id) else {
            return Err(ExchangeError::Withheld("the task is being acquired already".to_owned()));
        };
        let sent = Instant::now();
        let answer = self.next.exchange(request).await;
        self.report(&answer);
        let answer = answer?;
        // A task that was offered to another process is refused because that one has it.
        if answer.status() == 409 && (answer.repeated || !offered) {
            self.release_if_ours(&id, version + 1).await;
        }
        let AnswerBody::Acquired(task, promise, _) = answer.body() else { return Ok(answer) };
        let sent = answer.sent.unwrap_or(sent);
        if *self.draining.borrow() {
            self.release_task(&id, task.version, None).await;
            return Err(withheld(Abandoned::Draining));
        }
        if sent.elapsed() >= lease {
            // This process was frozen meanwhile, and another one may have the task.
            self.release_task(&id, task.version, Some(Instant::now())).await;
            return Err(withheld(Abandoned::Expired));
        }
        match self.function_of(promise) {
            Ok(function) if self.functions.contains(&function.as_str()) => {
                self.lost_acquires.forget(&id);
                self.leases.begin(&id, task.version, sent, lease);
                self.leases.set_promise_timeout(&id, task.version, promise.timeout_at);
                Ok(answer)
            }
            Ok(function) => Err(self.give_up(&id, task.version, &function).await),
            Err(message) => Err(self.reject(&id, task.version, "unreadable_call", message).await),
        }
    }

    /// A process that is draining, or at its bound, leaves a task alone: another one takes it, or the
    /// server announces it again.
    fn check_ready(&self, id: &str) -> Result<(), ExchangeError> {
        if *self.draining.borrow() {
            return Err(withheld(Abandoned::Draining));
        }
        // A task that is offered to another process may have to be run here.
        let offers = self.hand_over.as_ref().map_or(0, HandOver::count);
        if self.leases.count() + offers < self.max_runs {
            self.full.store(false, Ordering::Relaxed);
            return Ok(());
        }
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(promise = id, max_runs = self.max_runs, "no room for another run");
        }
        Err(ExchangeError::Withheld(format!("this process holds {} runs", self.max_runs)))
    }

    /// Logs once that acquires in a row are not answered. The message stream may be up all the same, and
    /// then nothing else says why no run begins here.
    fn report(&self, answer: &Answered) {
        match answer {
            Ok(_) => {
                if self.unanswered.swap(0, Ordering::Relaxed) >= UNANSWERED_ACQUIRES {
                    tracing::info!("the Resonate Server lets this process acquire tasks again");
                }
            }
            Err(error) => {
                if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 == UNANSWERED_ACQUIRES {
                    tracing::warn!(%error, "this process cannot acquire tasks");
                }
            }
        }
    }

    /// The function that a promise calls. Everything in its parameter is read, as the SDK does: it gives
    /// a task up in silence if it cannot.
    fn function_of(&self, promise: &Promise) -> Result<String, String> {
        let call = call::decode_value::<serde_json::Value>(promise.param.data());
        let call =
            call.and_then(|call| Ok(serde_json::from_value::<Call<serde_json::Value>>(call)?));
        call.map(|call| call.func).map_err(|error| {
            format!("the parameter of this promise is not a function call: {error}")
        })
    }

    /// After an acquire was refused: if an earlier attempt took the task, or a proxy sent the request
    /// twice, the preload in that answer is lost, so the task is released at once rather than by its
    /// lease.
    pub async fn release_if_ours(&self, id: &str, version: i64) {
        let ours = self.look_for_twin(id, version - 1).await == Some(version);
        if ours && self.leases.version(id) != Some(version) {
            // It comes back at once, and what loses one answer may lose the next.
            let (count, delay) = self.lost_acquires.count(id);
            if count > 1 {
                sleep(delay).await;
            }
            tracing::info!(promise = id, version, "released a task whose acquire answer was lost");
            self.release_task(id, version, None).await;
        }
    }

    /// Asks who holds a task. Returns its version if this process does. `version` is one that this
    /// process held or saw: if a later one is held under this instance's name by another process,
    /// both are alive, and the log says so, once.
    pub async fn look_for_twin(&self, id: &str, version: i64) -> Option<i64> {
        let get = Request::new("task.get", &Get { id: id.into() });
        let answer = self.next.exchange(get).await.ok()?;
        let AnswerBody::Task(Task { version: held, pid: Some(pid), .. }) = answer.body() else {
            return None;
        };
        if *pid == self.pid {
            return Some(*held);
        }
        let is_twin = *held > version && instance_of(pid) == self.instance;
        if is_twin && !self.twin_reported.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                instance = self.instance,
                promise = id,
                "another process has this instance's name; give each its own NODE_INSTANCE"
            );
        }
        None
    }

    /// Releases a task whose function this process does not know, and rejects it in the end.
    async fn give_up(&self, id: &str, version: i64, function: &str) -> ExchangeError {
        let message = format!("no function {function:?} in group {}", self.group);
        let (count, delay) = self.failures.count(id);
        if count >= UNKNOWN_FUNCTION_RUNS {
            self.failures.forget(id);
            let advice = "check the caller's target, or whether the group runs an older version";
            let message = format!("{message}; {advice}");
            return self.reject(id, version, "unknown_function", message).await;
        }
        tracing::warn!(
            promise = id,
            version,
            function,
            "unknown function; releasing the task in case another process knows it"
        );
        sleep(delay).await;
        self.release_task(id, version, None).await;
        ExchangeError::Withheld(message)
    }
}
