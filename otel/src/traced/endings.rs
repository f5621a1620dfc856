//! How a run ends: suspended, fulfilled, rejected, released or fenced.

use std::{sync::Arc, time::Duration};

use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tokio::{task::JoinHandle, time::timeout};
use wire::{
    Answer, AnswerBody, Operation, Pairs, Promise, PromiseState, Request, TaskState, operation::Get,
};

use super::{Answered, Inner, lost::Asked, marks::Mark};
use crate::{
    attributes::{self as key, Subject},
    context,
    run_spans::{Outcome, StepOf},
};

/// How long the end of a run waits for the steps that end with it.
const MOMENT: Duration = Duration::from_millis(200);

impl Inner {
    /// `task.suspend` ends a run, unless it is answered 300.
    pub(super) async fn suspend(self: &Arc<Self>, request: Request) -> Answered {
        let Operation::TaskSuspend(suspend) = request.operation() else { unreachable!() };
        let (id, version) = (suspend.id.to_string(), suspend.version);
        let run = self.runs.context(&id).unwrap_or_default();
        let answer = self.send(request, &run).await?;
        match answer.status() {
            200 => self.end(&id, version, Outcome::Suspended),
            409 if answer.repeated && self.suspended(&id, version).await => {
                self.end(&id, version, Outcome::Suspended);
            }
            409 => {
                self.fenced(&id, version, false).await;
            }
            _ => {}
        }
        Ok(answer)
    }

    /// Whether an earlier attempt of a suspend, whose answer was lost, took effect: a task that
    /// lost its lease instead is pending and was not resumed.
    async fn suspended(&self, id: &str, version: i64) -> bool {
        if !self.observes() {
            return false;
        }
        let get = Request::new("task.get", &Get { id: id.into() });
        let Ok(answer) = self.next.exchange(get).await else { return false };
        let AnswerBody::Task(task) = answer.body() else { return false };
        task.version == version && (task.state == TaskState::Suspended || task.resumes > 0)
    }

    /// `task.fulfill`: the end of an invocation, if this run settled the promise.
    pub(super) async fn fulfill(self: &Arc<Self>, mut request: Request) -> Answered {
        let Operation::TaskFulfill(fulfill) = request.operation() else { unreachable!() };
        let (id, version) = (fulfill.id.to_string(), fulfill.version);
        request.add_headers(&Pairs::from_iter([(key::HEADER_SETTLER, self.settler(version))]));
        let run = self.runs.context(&id).unwrap_or_default();
        let mut under_way = self.watch(Some(Asked::Fulfill { id: id.clone(), version }));
        let answer = self.send(request, &run).await;
        match &answer {
            // An earlier attempt may have taken effect: `under_way` stays until the promise tells.
            Ok(answer) if answer.status() == 409 => {
                if self.fenced(&id, version, answer.repeated).await {
                    under_way.forget();
                }
            }
            _ => under_way.note(&answer),
        }
        let answer = answer?;
        if let (200, Some(promise)) = (answer.status(), answer.promise()) {
            closed(self.settled(&id, version, promise)).await;
        }
        Ok(answer)
    }

    /// `promise.settle` by a client: the end of an invocation that somebody else runs, such as a cancel.
    pub(super) async fn settle(self: &Arc<Self>, mut request: Request) -> Answered {
        let Operation::PromiseSettle(settle) = request.operation() else { unreachable!() };
        let id = settle.id.to_string();
        // The server answers alike whether this request settled the promise or another one.
        // No version of a run looks like this.
        let mark = RandomIdGenerator::default().new_span_id();
        let settler = format!("{} client-{mark}", self.instance);
        if self.observes() {
            request.add_headers(&Pairs::from_iter([(key::HEADER_SETTLER, settler.clone())]));
        }
        let mut under_way = self.watch(Some(Asked::Settle { id, settler: settler.clone() }));
        let answer = self.next.exchange(request).await;
        under_way.note(&answer);
        if let Some(promise) = answer.as_ref().ok().and_then(Answer::promise) {
            self.settled_by_client(&settler, promise);
        }
        answer
    }

    /// A promise that the request with this mark may have settled.
    pub(super) fn settled_by_client(&self, settler: &str, promise: &Promise) {
        let ours = promise.value.header(key::HEADER_SETTLER) == Some(settler);
        if !ours || promise.group().is_none() {
            return;
        }
        let subject = Subject::of(promise);
        self.metrics.invocation(&subject, promise);
        if let (Some(spans), Some(parent)) = (&self.spans, context::of_promise(promise)) {
            spans.promises.invocation(&parent, subject, promise, None);
        }
    }

    /// What the value of a promise names as its settler.
    pub(super) fn settler(&self, version: i64) -> String {
        format!("{} {version}", self.instance)
    }

    /// The promise of a run is settled: by this run, or by another one, or by its time-out. Returns the
    /// steps that are being closed.
    pub(super) fn settled(
        self: &Arc<Self>,
        id: &str,
        version: i64,
        promise: &Promise,
    ) -> Vec<JoinHandle<()>> {
        // The first of several attempts may have settled it: the header tells.
        let ours = promise.value.header(key::HEADER_SETTLER) == Some(&self.settler(version));
        let outcome = match (ours, promise.state) {
            (true, PromiseState::Resolved) => Outcome::Fulfilled,
            (true, _) => Outcome::Rejected,
            (false, _) => Outcome::Fenced,
        };
        if promise.state == PromiseState::RejectedTimedout {
            self.timed_out(promise);
        } else if ours && let Some((run, subject)) = self.runs.about(id) {
            self.metrics.invocation(&subject, promise);
            if let Some(spans) = &self.spans {
                spans.promises.invocation(&run, subject, promise, Some(version));
            }
        }
        let ended = matches!(
            promise.state,
            PromiseState::RejectedTimedout | PromiseState::RejectedCanceled
        );
        let steps = match ours || ended {
            true => self.close_steps(id, promise, (!ours).then_some(version)),
            false => Vec::new(),
        };
        self.end(id, version, outcome);
        steps
    }

    /// Emits the steps that ran here and will not be settled: the function dropped them, or they
    /// ended with their flow. Other spans may have them as their parent. `last`: only if this was
    /// the last run of the task, because a later run has run the same step.
    fn close_steps(
        self: &Arc<Self>,
        task: &str,
        promise: &Promise,
        last: Option<i64>,
    ) -> Vec<JoinHandle<()>> {
        let close = |(id, step): (String, StepOf)| {
            let note = self.steps.find(&id)?;
            let (inner, end, task) = (self.clone(), promise.settled_at, task.to_owned());
            Some(tokio::spawn(async move {
                if let Some(version) = last
                    && inner.version_of(&task).await.is_some_and(|now| now > version)
                {
                    return;
                }
                let answer = inner.get(&id).await;
                let Some(promise) = answer.as_ref().and_then(Answer::promise) else { return };
                // Another run may have settled it.
                let left = match promise.state {
                    PromiseState::Resolved | PromiseState::Rejected => false,
                    PromiseState::Pending
                    | PromiseState::RejectedTimedout
                    | PromiseState::RejectedCanceled => true,
                };
                if let Some(spans) = inner.spans.as_ref().filter(|_| left) {
                    spans.promises.step(&step, &step_until(promise, end), note);
                }
            }))
        };
        self.runs.open_steps(task).into_iter().filter_map(close).collect()
    }

    /// The version of a task.
    async fn version_of(&self, task: &str) -> Option<i64> {
        let get = Request::new("task.get", &Get { id: task.into() });
        match self.next.exchange(get).await.ok()?.body() {
            AnswerBody::Task(task) => Some(task.version),
            _ => None,
        }
    }

    /// A run was refused: another process runs the task, or the promise is settled. If this run `may`
    /// have settled it, by an attempt whose answer was lost, it ends only when the promise has told
    /// so. Returns whether it has ended.
    pub(super) async fn fenced(self: &Arc<Self>, id: &str, version: i64, may: bool) -> bool {
        if self.observes() {
            let found = self.get(id).await;
            if found.is_none() && may {
                return false;
            }
            let promise = found.as_ref().and_then(Answer::promise);
            if let Some(promise) = promise.filter(|promise| !promise.is_pending()) {
                closed(self.settled(id, version, promise)).await;
            }
        }
        self.end(id, version, Outcome::Fenced);
        true
    }

    pub(super) async fn release(&self, request: Request) -> Answered {
        let Operation::TaskRelease(release) = request.operation() else { unreachable!() };
        let (id, version) = (release.id.to_string(), release.version);
        if let Some(branch) = self.runs.branch_in_a_step(&id, version) {
            self.leave(Mark::Released, &id, version, branch).await;
        }
        let answer = self.next.exchange(request).await;
        // A repeat is refused if an earlier attempt took effect. Any other refusal says that there
        // was nothing left to release.
        let accepted = answer.as_ref().is_ok_and(|answer| answer.status() == 200);
        if !accepted && self.runs.awaits_outcome(&id, version) {
            // Its fulfil may have taken effect. The promise tells.
            return answer;
        }
        let released = accepted || answer.as_ref().is_ok_and(|answer| answer.repeated);
        self.end(&id, version, if released { Outcome::Released } else { Outcome::Fenced });
        answer
    }

    pub(super) fn end(&self, id: &str, version: i64, outcome: Outcome) {
        if self.runs.end(id, version, outcome) {
            self.steps.forget(id, &self.runs.below(id));
        }
    }
}

/// Waits until steps are closed, for a moment: a process that drains ends once its runs have ended.
async fn closed(steps: Vec<JoinHandle<()>>) {
    let all = async {
        for step in steps {
            let _ = step.await;
        }
    };
    if timeout(MOMENT, all).await.is_err() {
        tracing::debug!("steps are closed later");
    }
}

/// A step that ended at `end` at the latest: its span needs an end.
fn step_until<'a>(step: &Promise<'a>, end: Option<i64>) -> Promise<'a> {
    Promise { settled_at: step.settled_at.or(end), ..step.clone() }
}
