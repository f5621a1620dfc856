//! The layer that knows runs: what may be sent under a lease, and what a repeat's answer means.

mod acquire;
mod hand_over;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use wire::{
    Answer, Exchange, ExchangeError, Operation, PromiseValue, Request, call,
    envelope::Action,
    operation::{
        FencedAction, Get, PromiseSettle, SettleState, TaskFulfill, TaskHeartbeat, TaskRef,
    },
    origin,
};

pub(super) use self::hand_over::HandOver;
use super::{
    leases::{Abandoned, Leases},
    poison::Failures,
};
use crate::config::Config;

/// How often in a row a run may end in neither a result nor a suspension before its promise is
/// rejected.
const RELEASES: u32 = 5;

/// A request that is not answered for this many leases, while heartbeats are, costs its run.
const UNANSWERED_LEASES: u32 = 3;

type Answered = Result<Answer, ExchangeError>;

fn withheld(reason: Abandoned) -> ExchangeError {
    ExchangeError::Withheld(reason.to_string())
}

/// The layer that knows the runs of this process.
pub(crate) struct Runs {
    next: Arc<dyn Exchange>,
    leases: Arc<Leases>,
    group: String,
    instance: String,
    /// The functions that this process can run.
    functions: Vec<&'static str>,
    drain: Duration,
    draining: AtomicBool,
    /// Most runs that are held at once.
    max_runs: usize,
    /// Whether the log says that this process is at its bound.
    full: AtomicBool,
    failures: Failures,
    /// In a group that hands calls over.
    hand_over: Option<HandOver>,
    /// Runs that were lost because the server was unreachable.
    lost: Mutex<Vec<(String, i64)>>,
}

impl Runs {
    pub fn new(
        next: Arc<dyn Exchange>,
        config: &Config,
        max_runs: usize,
        group: &str,
        instance: &str,
        functions: Vec<&'static str>,
        hand_over: Option<HandOver>,
    ) -> Self {
        Self {
            next,
            leases: Arc::default(),
            group: group.to_owned(),
            instance: instance.to_owned(),
            functions,
            drain: config.drain,
            draining: AtomicBool::new(false),
            max_runs,
            full: AtomicBool::new(false),
            failures: Failures::new(config.lease / 2),
            hand_over,
            lost: Mutex::default(),
        }
    }

    /// The runs that this process holds.
    pub fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// Takes the tasks whose runs were lost because the server was unreachable, as (id, version).
    /// The server's own message for such a task may have been sent while this process was cut off,
    /// and comes again after the server's retry time-out only, so they are worth asking for.
    pub fn take_lost(&self) -> Vec<(String, i64)> {
        std::mem::take(&mut self.lost.lock().expect("no holder of this lock panics"))
    }

    /// The task that another process passes on to this one by this message.
    pub fn handed_over<'a>(&self, message: &'a str) -> Option<&'a str> {
        self.hand_over.as_ref()?.task_of(message)
    }

    /// Lets each running step end, and waits until every run has ended or was released. Runs that
    /// are left after `NODE_DRAIN` are released in the middle of a step.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        if timeout(self.drain, self.leases.wait_for_end()).await.is_ok() {
            return;
        }
        let release = async |(id, version): (String, i64)| {
            tracing::warn!(
                promise = id,
                version,
                "drain deadline reached: released in the middle of a step, which will run again"
            );
            self.leases.abandon(&id, version, Abandoned::Fenced);
            // One attempt: the process is about to end, and the lease ends anyway.
            self.release_task(&id, version, Some(Instant::now())).await;
        };
        join_all(self.leases.all().into_iter().map(release)).await;
    }

    /// Releases a task on the runtime's own account. `until`: see [`Request::until`].
    async fn release_task(&self, id: &str, version: i64, until: Option<Instant>) {
        let mut request = Request::new("task.release", &TaskRef { id: id.into(), version });
        if let Some(until) = until {
            request = request.until(until);
        }
        if let Err(error) = self.next.exchange(request).await {
            tracing::warn!(promise = id, version, %error, "release failed; the lease will expire");
        }
    }

    /// Settles a promise that no process can run: its task would come back for ever, at once.
    async fn reject(&self, id: &str, version: i64, message: String) -> ExchangeError {
        tracing::error!(promise = id, version, error = message, "promise rejected");
        let data = Some(call::encode_error(&message).into());
        let settle = PromiseSettle {
            id: id.into(),
            state: SettleState::Rejected,
            value: PromiseValue { headers: None, data },
        };
        let action = Action { kind: "promise.settle".into(), head: None, data: settle };
        let fulfill = TaskFulfill { id: id.into(), version, action };
        if let Err(error) = self.next.exchange(Request::new("task.fulfill", &fulfill)).await {
            tracing::warn!(promise = id, version, %error, "reject failed; the lease will expire");
        }
        ExchangeError::Withheld(message)
    }

    async fn fence(&self, mut request: Request) -> Answered {
        let Operation::TaskFence(fence) = request.operation() else { unreachable!() };
        let (id, version) = (fence.id.to_string(), fence.version);
        let creates = matches!(fence.action, FencedAction::Create(_));
        if creates {
            if self.draining.load(Ordering::Relaxed) {
                self.leases.abandon(&id, version, Abandoned::Draining);
            }
            // Only a function that was called by another one has an id that is not its flow's.
            if id.contains('.') {
                request.correct_origin();
            }
        }
        let answer = self.exchange_in_run(&id, version, request).await?;
        if answer.status() == 409 {
            self.abandon(&id, version, Abandoned::Fenced);
        } else if creates && self.leases.has_expired(&id, version) {
            // The answer arrived while this process was frozen. Another process may hold the task, and
            // may have completed the step that would begin now.
            self.abandon(&id, version, Abandoned::Expired);
            return Err(withheld(Abandoned::Expired));
        }
        Ok(answer)
    }

    /// `task.suspend` and `task.fulfill` end a run. A suspend answered with 300 lets it continue.
    async fn finish(&self, id: String, version: i64, request: Request) -> Answered {
        let answer = self.exchange_in_run(&id, version, request.clone()).await?;
        match answer.status() {
            200 => {
                self.leases.end(&id, version);
                self.failures.forget(&id);
            }
            // The first attempt ended this run, or another run did. It is over either way, and the
            // SDK has nothing to release.
            409 if answer.repeated => {
                self.leases.end(&id, version);
                return self.answer_for_ended(&id, request).await;
            }
            409 => self.abandon(&id, version, Abandoned::Fenced),
            _ => {}
        }
        Ok(answer)
    }

    async fn answer_for_ended(&self, id: &str, request: Request) -> Answered {
        if matches!(request.operation(), Operation::TaskSuspend(_)) {
            return Ok(Answer::local(&request, 200, &json!({})));
        }
        let get = self.next.exchange(Request::new("promise.get", &Get { id: id.into() })).await?;
        match get.promise() {
            Some(promise) => Ok(Answer::local(&request, 200, &json!({"promise": promise}))),
            None => Ok(Answer::local(&request, get.status(), get.reason())),
        }
    }

    /// Sends a request of a run, for as long as its lease lasts.
    async fn exchange_in_run(&self, id: &str, version: i64, request: Request) -> Answered {
        let lease = self.leases.check(id, version).map_err(withheld)?;
        let longest = self.leases.lease(id, version).unwrap_or_default() * UNANSWERED_LEASES;
        match timeout(longest, self.next.exchange(request.with_deadline(lease))).await {
            Ok(Err(ExchangeError::TooLarge { bytes })) => {
                self.abandon(id, version, Abandoned::Rejected);
                let message = format!(
                    "a value of {bytes} bytes is too large for the Resonate Server; \
                     store it elsewhere and pass a reference"
                );
                Err(self.reject(id, version, message).await)
            }
            Ok(Err(error)) => {
                self.abandon(id, version, Abandoned::Unreachable);
                Err(error)
            }
            Ok(answer) => answer,
            Err(_) => {
                self.abandon(id, version, Abandoned::Unanswered);
                Err(withheld(Abandoned::Unanswered))
            }
        }
    }

    fn abandon(&self, id: &str, version: i64, reason: Abandoned) {
        if !self.leases.abandon(id, version, reason) {
            return;
        }
        tracing::warn!(promise = id, version, %reason, "run abandoned");
        if reason == Abandoned::Unreachable {
            let mut lost = self.lost.lock().expect("no holder of this lock panics");
            lost.push((id.to_owned(), version));
        }
    }

    /// The SDK releases a task if its run ended in neither a result nor a suspension.
    async fn release(&self, request: Request) -> Answered {
        let Operation::TaskRelease(release) = request.operation() else { unreachable!() };
        let (id, version) = (release.id.to_string(), release.version);
        match self.leases.check(&id, version) {
            Ok(_) => {
                let (count, delay) = self.failures.count(&id);
                if count >= RELEASES {
                    self.failures.forget(&id);
                    let message = "every run ended in neither a result nor a suspension; \
                                   see the log of the process";
                    self.reject(&id, version, message.to_owned()).await;
                    self.leases.end(&id, version);
                    return Ok(Answer::local(&request, 200, &json!({})));
                }
                sleep(delay).await;
                let answer = self.exchange_in_run(&id, version, request).await;
                self.leases.end(&id, version);
                answer
            }
            Err(Abandoned::Draining) => {
                tracing::info!(promise = id, version, "released to another process of the group");
                self.release_task(&id, version, None).await;
                self.leases.end(&id, version);
                Ok(Answer::local(&request, 200, &json!({})))
            }
            // Nothing is held, as far as this process knows. One attempt tells the layers below
            // that the run has ended.
            Err(reason) => {
                self.leases.end(&id, version);
                let local = Answer::local(&request, 409, &reason.to_string());
                let answer = self.next.exchange(request.until(Instant::now())).await;
                Ok(answer.unwrap_or(local))
            }
        }
    }

    /// One request for each flow: servers newer than v0.9.8 refuse to mix them.
    async fn heartbeat(&self, request: Request) -> Answered {
        let Operation::TaskHeartbeat(heartbeat) = request.operation() else { unreachable!() };
        let mut flows: HashMap<&str, (Vec<TaskRef>, Instant)> = HashMap::new();
        for task in &heartbeat.tasks {
            if let Some(ends) = self.leases.wants_heartbeat(&task.id, task.version) {
                let flow = flows.entry(origin(&task.id)).or_insert((Vec::new(), ends));
                flow.0.push(task.clone());
                flow.1 = flow.1.max(ends);
            }
        }
        let renewals =
            flows.into_values().map(|(tasks, ends)| self.renew(&heartbeat.pid, tasks, ends));
        join_all(renewals).await;
        Ok(Answer::local(&request, 200, &json!({})))
    }

    async fn renew(&self, pid: &str, tasks: Vec<TaskRef<'_>>, ends: Instant) {
        let heartbeat = TaskHeartbeat { pid: pid.into(), tasks };
        let request = Request::new("task.heartbeat", &heartbeat).until(ends);
        // Which attempt was answered is not known here; the first one is early enough to be safe.
        let sent = Instant::now();
        let answer = self.next.exchange(request).await;
        for TaskRef { id, version } in &heartbeat.tasks {
            match &answer {
                Ok(answer) if answer.status() == 200 => self.leases.renew(id, *version, sent),
                Ok(answer) => {
                    let (status, reason) = (answer.status(), answer.reason());
                    tracing::warn!(promise = %id, status, reason, "heartbeat refused");
                }
                Err(_) => self.abandon(id, *version, Abandoned::Unreachable),
            }
        }
    }
}

#[async_trait::async_trait]
impl Exchange for Runs {
    async fn exchange(&self, request: Request) -> Answered {
        match request.operation() {
            Operation::TaskAcquire(_) => self.acquire(request).await,
            Operation::TaskFence(_) => self.fence(request).await,
            Operation::TaskSuspend(task) => {
                let (id, version) = (task.id.to_string(), task.version);
                self.finish(id, version, request).await
            }
            Operation::TaskFulfill(task) => {
                let (id, version) = (task.id.to_string(), task.version);
                self.finish(id, version, request).await
            }
            Operation::TaskRelease(_) => self.release(request).await,
            Operation::TaskHeartbeat(_) => self.heartbeat(request).await,
            _ => self.next.exchange(request).await,
        }
    }
}

#[cfg(test)]
mod tests;
