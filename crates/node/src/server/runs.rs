//! The layer that knows runs: what may be sent under a lease, and what a repeat's answer means.
//!
//! | part | what it knows |
//! | --- | --- |
//! | `acquire` | what happens before a run begins: room, drain, lost answers, tasks that cannot run |
//! | `drain` | how a process that stops ends its runs |
//! | `hand_over` | how a call reaches the first process of its group |
//! | `in_place` | how a run waits for its calls without being suspended |
//! | `heartbeats` | how leases are renewed |
//! | `timeouts` | the time-outs of calls and steps |
//! | `changed` | functions that were changed while a flow runs |
//!
//! The table of runs is in `leases`, what they know of their calls in `calls`, and the tasks that
//! this process could not run in `poison`.

mod acquire;
mod changed;
mod drain;
mod hand_over;
mod heartbeats;
mod in_place;
mod timeouts;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32},
    },
    time::Duration,
};

use resonate_otel::Metrics;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use wire::{
    Answer, AnswerBody, Exchange, ExchangeError, Operation, Promise, PromiseState, PromiseValue,
    Request, call,
    envelope::Action,
    operation::{FencedAction, Get, PromiseSettle, SettleState, TaskFulfill},
    tag,
};

pub(super) use self::hand_over::HandOver;
use super::{
    Settlements,
    leases::{Abandoned, Leases},
    pid,
    poison::Failures,
};
use crate::{config::ServiceSettings, memory};

/// What a run takes at most. 426 runs that were taken over at once were too many for 64 MiB.
const BYTES_OF_A_RUN: usize = 160 << 10;

/// How often in a row a run may end in neither a result nor a suspension before its promise is
/// rejected.
const RELEASES: u32 = 5;

type Answered = Result<Answer, ExchangeError>;

/// Why a run loses its lease that cannot renew it because of this error.
fn lost_by(error: &ExchangeError) -> Abandoned {
    match error {
        ExchangeError::Unauthorized { .. } => Abandoned::Unauthorized,
        _ => Abandoned::Unreachable,
    }
}

fn withheld(reason: Abandoned) -> ExchangeError {
    ExchangeError::Withheld(reason.to_string())
}

/// The layer that knows the runs of this process.
pub(crate) struct Runs {
    next: Arc<dyn Exchange>,
    leases: Arc<Leases>,
    group: String,
    instance: String,
    /// The pid with which this process holds tasks.
    pid: String,
    /// Whether the log says that another process has this one's name.
    twin_reported: AtomicBool,
    /// The functions that this process can run.
    functions: Vec<&'static str>,
    drain: Duration,
    draining: watch::Sender<bool>,
    /// Most runs that are held at once.
    max_runs: usize,
    /// Whether the log says that this process is at its bound.
    full: AtomicBool,
    failures: Failures,
    /// Tasks whose acquire took effect without an answer.
    lost_acquires: Failures,
    /// How many acquires in a row were not answered.
    unanswered: AtomicU32,
    /// Whether the server takes one heartbeat for runs of several flows.
    mixes_flows: AtomicBool,
    /// How long a run that waits for calls stays open.
    suspend_after: Duration,
    /// The calls that runs wait for in place.
    settlements: Settlements,
    /// In a group that hands calls over.
    hand_over: Option<HandOver>,
    metrics: Metrics,
    /// Runs that were lost because the server was unreachable, or refused the token.
    lost: Mutex<Vec<(String, i64)>>,
}

impl Runs {
    pub fn new(
        next: Arc<dyn Exchange>,
        settings: &ServiceSettings,
        group: &str,
        instance: &str,
        functions: Vec<&'static str>,
        hand_over: Option<HandOver>,
        metrics: Metrics,
    ) -> Self {
        Self {
            next,
            leases: Arc::default(),
            group: group.to_owned(),
            instance: instance.to_owned(),
            pid: pid::unique(instance),
            twin_reported: AtomicBool::new(false),
            functions,
            drain: settings.node.drain,
            draining: watch::Sender::new(false),
            max_runs: settings.max_runs.unwrap_or_else(|| memory::bound(BYTES_OF_A_RUN)),
            full: AtomicBool::new(false),
            failures: Failures::new(settings.node.lease / 2),
            lost_acquires: Failures::new(settings.node.lease / 2),
            unanswered: AtomicU32::new(0),
            mixes_flows: AtomicBool::new(true),
            suspend_after: settings.suspend_after,
            settlements: Settlements::default(),
            hand_over,
            metrics,
            lost: Mutex::default(),
        }
    }

    /// The runs that this process holds.
    pub fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// The pid with which this process holds tasks.
    pub fn pid(&self) -> &str {
        &self.pid
    }

    /// The calls that runs wait for in place.
    pub fn settlements(&self) -> &Settlements {
        &self.settlements
    }

    /// Takes the tasks whose runs were lost because the server was unreachable, or refused the token,
    /// as (id, version).
    /// The server's own message for such a task may have been sent while this process was cut off,
    /// and comes again after the server's retry time-out only, so they are worth asking for.
    pub fn take_lost(&self) -> Vec<(String, i64)> {
        std::mem::take(&mut self.lost.lock().expect("no holder of this lock panics"))
    }

    /// The task that another process passes on to this one by this message.
    pub fn handed_over<'a>(&self, message: &'a str) -> Option<&'a str> {
        self.hand_over.as_ref()?.task_of(message)
    }

    /// Settles a promise that no process can run: its task would come back at once, again and again.
    async fn reject(
        &self,
        id: &str,
        version: i64,
        reason: &'static str,
        message: String,
    ) -> ExchangeError {
        self.metrics.poison_rejected(&self.group, reason);
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
        let calls = matches!(&fence.action, FencedAction::Create(create) if create.tags.get(tag::SCOPE) == Some("global"));
        if creates {
            if *self.draining.borrow() {
                self.leases.abandon(&id, version, Abandoned::Draining);
            }
            // Only a function that was called by another one has an id that is not its flow's.
            if id.contains('.') {
                request.correct_origin();
            }
        }
        self.inherit_timeout(&id, version, &mut request);
        let asked = request.clone();
        let answer = self.exchange_in_run(&id, version, request).await?;
        if answer.status() == 409 {
            self.abandon_fenced(&id, version).await;
        } else if creates && self.leases.has_expired(&id, version) {
            // The answer arrived while this process was frozen. Another process may hold the task, and
            // may have completed the step that would begin now.
            self.abandon(&id, version, Abandoned::Expired);
            return Err(withheld(Abandoned::Expired));
        } else if let Some(message) =
            answer.promise().and_then(|recorded| changed::mismatch(&asked, recorded))
        {
            self.abandon(&id, version, Abandoned::Rejected);
            return Err(self.reject(&id, version, "changed_function", message).await);
        }
        if calls && let AnswerBody::Fenced(_, Some(preload)) = answer.body() {
            self.leases.remember(&id, version, preload);
        }
        // The SDK would read all steps of the run with each answer, and knows them already. A promise
        // that it finds settled tells that it does not.
        let known = !creates || answer.promise().is_some_and(Promise::is_pending);
        Ok(if known { answer.without_preload(&asked) } else { answer })
    }

    async fn suspend(&self, request: Request) -> Answered {
        let Operation::TaskSuspend(suspend) = request.operation() else { unreachable!() };
        let (id, version) = (suspend.id.to_string(), suspend.version);
        match self.wait_in_place(&request).await {
            Some(answer) => Ok(answer),
            None => self.finish(id, version, request).await,
        }
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
                let answer = self.answer_for_ended(&id, request).await;
                // Not before: the SDK's heartbeats of the next run would end with this one.
                self.leases.end(&id, version);
                return answer;
            }
            409 => self.abandon_fenced(&id, version).await,
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
        match self.next.exchange(request.with_deadline(lease)).await {
            Err(ExchangeError::TooLarge { bytes }) => {
                self.abandon(id, version, Abandoned::Rejected);
                let message = format!(
                    "a value of {bytes} bytes is too large for the Resonate Server; \
                     store it elsewhere and pass a reference"
                );
                Err(self.reject(id, version, "too_large", message).await)
            }
            Err(error @ ExchangeError::Unanswered) => {
                self.abandon(id, version, Abandoned::Unanswered);
                Err(error)
            }
            Err(error) => {
                self.abandon(id, version, lost_by(&error));
                Err(error)
            }
            Ok(answer) => Ok(answer),
        }
    }

    fn abandon(&self, id: &str, version: i64, reason: Abandoned) {
        if !self.leases.abandon(id, version, reason) {
            return;
        }
        tracing::warn!(promise = id, version, %reason, "run abandoned");
        if matches!(reason, Abandoned::Unreachable | Abandoned::Unauthorized) {
            let mut lost = self.lost.lock().expect("no holder of this lock panics");
            lost.push((id.to_owned(), version));
        }
    }

    /// The server has refused a request of this run: another process holds the task, or nobody does.
    async fn abandon_fenced(&self, id: &str, version: i64) {
        if !self.leases.abandon(id, version, Abandoned::Fenced) {
            return;
        }
        let get = Request::new("promise.get", &Get { id: id.into() }).until(Instant::now());
        let answer = self.next.exchange(get).await;
        let state = answer.as_ref().ok().and_then(Answer::promise).map(|promise| promise.state);
        let reason = match state {
            Some(PromiseState::RejectedCanceled) => "fenced: its promise was canceled".to_owned(),
            Some(PromiseState::RejectedTimedout) => "fenced: its promise has timed out".to_owned(),
            _ => Abandoned::Fenced.to_string(),
        };
        tracing::warn!(promise = id, version, reason, "run abandoned");
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
                    self.reject(&id, version, "no_result", message.to_owned()).await;
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
            // Done by the drain.
            Err(Abandoned::Released) => {
                self.leases.end(&id, version);
                Ok(Answer::local(&request, 200, &json!({})))
            }
            // Nothing is held, as far as this process knows. One attempt tells the layers below
            // that the run has ended.
            Err(reason) => {
                self.leases.end(&id, version);
                if reason == Abandoned::Fenced {
                    self.look_for_twin(&id, version).await;
                }
                let local = Answer::local(&request, 409, &reason.to_string());
                let answer = self.next.exchange(request.until(Instant::now())).await;
                Ok(answer.unwrap_or(local))
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
            Operation::TaskSuspend(_) => self.suspend(request).await,
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
