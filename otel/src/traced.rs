//! The layer that traces: it writes contexts into promises, and emits the spans of what it sees.

mod creations;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry::Context;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::{
    Answer, AnswerBody, Exchange, ExchangeError, Message, MessageBody, Operation, Pairs, Promise,
    PromiseState, Request, Task, TaskState,
    operation::{FencedAction, Get},
    tag,
};

use crate::{
    Telemetry, attributes as key, context,
    emit::Emitter,
    promise_spans::PromiseSpans,
    run_spans::{OpenRuns, Outcome, Run},
    steps::Steps,
};

/// A process that awaits a promise reports its time-out if that was not longer ago than this.
const RECENT: Duration = Duration::from_secs(10);

type Answered = Result<Answer, ExchangeError>;

/// A layer that passes everything on to the next one, writes the trace context into each promise
/// that is created through it, and emits the spans of what it sees. It keeps nothing that it cannot
/// derive from requests and answers.
///
/// Layers that repeat requests belong below it: repeats then carry the same ids, and it sees the
/// real outcome. Clones share everything.
#[derive(Clone)]
pub struct Traced(Arc<Inner>);

struct Inner {
    next: Arc<dyn Exchange>,
    /// `None`: tracing is off. Contexts travel all the same.
    spans: Option<Spans>,
    instance: String,
    runs: OpenRuns,
    steps: Steps,
}

struct Spans {
    emitter: Arc<Emitter>,
    promises: PromiseSpans,
}

impl Traced {
    /// The layer above `next`.
    pub fn new(next: Arc<dyn Exchange>, telemetry: &Telemetry) -> Self {
        let instance = telemetry.identity().instance.clone();
        let emitter = telemetry.emitter();
        let spans = emitter.clone().map(|emitter| Spans {
            promises: PromiseSpans::new(emitter.clone(), &instance),
            emitter,
        });
        let runs = OpenRuns::new(emitter, &instance);
        Self(Arc::new(Inner { next, spans, instance, runs, steps: Steps::default() }))
    }

    /// The trace id of the run of `task` in this process, in hexadecimal digits.
    pub fn trace_id(&self, task: &str) -> Option<String> {
        self.0.runs.context(task).as_ref().and_then(context::trace_id_of)
    }

    /// Names the step with this promise id, which runs now. Its span is made when it is settled.
    pub fn name_step(&self, promise: &str, name: &str) {
        if self.0.spans.is_some() {
            self.0.steps.name(promise, name);
        }
    }

    /// Reports a failed attempt of a step that runs now: an event on its span.
    pub fn step_failed(&self, promise: &str, kind: &str, message: &str) {
        if self.0.spans.is_some() {
            self.0.steps.failed(promise, kind, message);
        }
    }

    /// Looks at a message of the server.
    pub fn observe(&self, message: &Message) {
        if let MessageBody::Unblock(promise) = message.body() {
            self.0.awaited(promise);
        }
    }
}

#[async_trait::async_trait]
impl Exchange for Traced {
    async fn exchange(&self, request: Request) -> Answered {
        let inner = &self.0;
        match request.operation() {
            Operation::PromiseCreate(_) | Operation::TaskCreate(_) => {
                let caller = (Context::current(), tracing::Span::current());
                let inner = inner.clone();
                // In a task of its own: a caller that goes away drops this future, but neither the
                // creation nor its span may be dropped.
                let created = tokio::spawn(async move { inner.create(request, caller).await });
                created.await.unwrap_or_else(|error| {
                    Err(ExchangeError::Withheld(format!("the request was aborted: {error}")))
                })
            }
            Operation::TaskAcquire(_) => inner.acquire(request).await,
            Operation::TaskFence(_) => inner.fence(request).await,
            Operation::TaskSuspend(_) => inner.suspend(request).await,
            Operation::TaskFulfill(_) => inner.fulfill(request).await,
            Operation::TaskRelease(_) => inner.release(request).await,
            Operation::TaskHeartbeat(_) => inner.heartbeat(request).await,
            Operation::RegisterListener(_) => {
                let answer = inner.next.exchange(request).await?;
                if let Some(promise) = answer.promise() {
                    inner.awaited(promise);
                }
                Ok(answer)
            }
            _ => inner.next.exchange(request).await,
        }
    }
}

impl Inner {
    /// Sends a request. At debug level it has a span of its own, a child of `parent`.
    async fn send(&self, request: Request, parent: &Context) -> Answered {
        let span = tracing::debug_span!(
            target: key::REQUEST_TARGET,
            "request",
            otel.name = request.kind(),
            otel.kind = "client"
        );
        if !span.is_disabled() {
            // It fails for a span that no OpenTelemetry layer sees: then there is no parent to set.
            let _ = span.set_parent(parent.clone());
        }
        self.next.exchange(request).instrument(span).await
    }

    async fn acquire(&self, request: Request) -> Answered {
        let Operation::TaskAcquire(acquire) = request.operation() else { unreachable!() };
        let lease = lease(acquire.ttl);
        let answer = self.next.exchange(request).await?;
        self.begin(&answer, lease).await;
        Ok(answer)
    }

    /// A run begins, if the answer says so.
    async fn begin(&self, answer: &Answer, lease: Duration) {
        let AnswerBody::Acquired(Task { id, version, state, .. }, promise, preload) = answer.body()
        else {
            return;
        };
        if *state != TaskState::Acquired {
            return;
        }
        let now = SystemTime::now();
        let parent = self.context_of(promise, *version, now).await;
        let mut run = Run::new(*version, promise, parent, now, lease);
        // The first run takes nothing over. The preload is large: it is read only where it tells.
        if *version > 1
            && self.spans.is_some()
            && let Some(preload) = preload
            && let Ok(preload) = serde_json::from_str::<Vec<Promise>>(preload.get())
        {
            run.inherit(preload.iter().filter(|step| step.is_step() && step.is_pending()));
            preload.iter().for_each(|child| self.awaited(child));
        }
        self.runs.begin(id, run);
    }

    /// The context that the promise carries. A promise that a client without tracing made has that
    /// of its parent, or else one that every process derives alike.
    async fn context_of(&self, promise: &Promise<'_>, version: i64, now: SystemTime) -> Context {
        if let Some(context) = context::of_promise(promise) {
            return context;
        }
        let Some(spans) = &self.spans else { return Context::new() };
        if let Some(parent) = promise.tags.get(tag::PARENT).filter(|parent| *parent != promise.id)
            && let Some(answer) = self.get(parent).await
            && let Some(context) = answer.promise().and_then(context::of_promise)
        {
            return context;
        }
        spans.promises.received(promise, version == 1, now)
    }

    /// The answer to `promise.get`, if there is one.
    async fn get(&self, id: &str) -> Option<Answer> {
        let get = Request::new("promise.get", &Get { id: id.into() });
        self.next.exchange(get).await.ok()
    }

    async fn fence(&self, mut request: Request) -> Answered {
        let Operation::TaskFence(fence) = request.operation() else { unreachable!() };
        let (id, version) = (fence.id.to_string(), fence.version);
        // Names the creator of a step, so that a later run can tell a takeover from a resume.
        let headers = match &fence.action {
            FencedAction::Create(create) if create.tags.get(tag::SCOPE) == Some("local") => {
                Some(Pairs::from_iter([
                    (key::HEADER_INSTANCE, self.instance.clone()),
                    (key::HEADER_VERSION, version.to_string()),
                ]))
            }
            FencedAction::Create(_) => Some(Pairs::default()),
            FencedAction::Settle(_) => None,
        };
        let settles = headers.is_none();
        let run = self.runs.context(&id).unwrap_or_default();
        let prepared = headers.and_then(|more| self.prepare(&mut request, &run, more));
        let answer = self.send(request, &run).await?;
        match (answer.status(), answer.promise()) {
            (200, Some(promise)) => match prepared {
                Some(prepared) if prepared.created(promise) => self.created(prepared, promise),
                _ if settles => self.settled_step(&id, promise),
                _ => {}
            },
            (409, _) => self.fenced(&id, version).await,
            _ => {}
        }
        Ok(answer)
    }

    fn settled_step(&self, task: &str, promise: &Promise) {
        let note = self.steps.take(&promise.id);
        if let Some(spans) = &self.spans
            && promise.is_step()
            && let Some((run, taken_over)) = self.runs.step(task, &promise.id)
        {
            spans.promises.step(&run, promise, note, taken_over);
        }
    }

    /// `task.suspend` ends a run, unless it is answered 300.
    async fn suspend(&self, request: Request) -> Answered {
        let Operation::TaskSuspend(suspend) = request.operation() else { unreachable!() };
        let (id, version) = (suspend.id.to_string(), suspend.version);
        let run = self.runs.context(&id).unwrap_or_default();
        let answer = self.send(request, &run).await?;
        match answer.status() {
            200 => self.end(&id, version, Outcome::Suspended),
            409 if answer.repeated && self.suspended(&id, version).await => {
                self.end(&id, version, Outcome::Suspended);
            }
            409 => self.fenced(&id, version).await,
            _ => {}
        }
        Ok(answer)
    }

    /// Whether an earlier attempt of a suspend, whose answer was lost, took effect: a task that
    /// lost its lease instead is pending and was not resumed.
    async fn suspended(&self, id: &str, version: i64) -> bool {
        if self.spans.is_none() {
            return false;
        }
        let get = Request::new("task.get", &Get { id: id.into() });
        let Ok(answer) = self.next.exchange(get).await else { return false };
        let AnswerBody::Task(task) = answer.body() else { return false };
        task.version == version && (task.state == TaskState::Suspended || task.resumes > 0)
    }

    /// `task.fulfill`: the end of an invocation, if this run settled the promise.
    async fn fulfill(&self, mut request: Request) -> Answered {
        let Operation::TaskFulfill(fulfill) = request.operation() else { unreachable!() };
        let (id, version) = (fulfill.id.to_string(), fulfill.version);
        if self.spans.is_some() {
            request.add_headers(&Pairs::from_iter([(key::HEADER_SETTLER, self.settler(version))]));
        }
        let run = self.runs.context(&id).unwrap_or_default();
        let answer = self.send(request, &run).await?;
        match (answer.status(), answer.promise()) {
            (200, Some(promise)) => self.settled(&id, version, promise),
            (409, _) => self.fenced(&id, version).await,
            _ => {}
        }
        Ok(answer)
    }

    /// What the value of a promise names as its settler.
    fn settler(&self, version: i64) -> String {
        format!("{} {version}", self.instance)
    }

    /// The promise of a run is settled: by this run, or by another one, or by its time-out.
    fn settled(&self, id: &str, version: i64, promise: &Promise) {
        // The first of several attempts may have settled it: the header tells.
        let ours = promise.value.header(key::HEADER_SETTLER) == Some(&self.settler(version));
        let outcome = match (ours, promise.state) {
            (true, PromiseState::Resolved) => Outcome::Fulfilled,
            (true, _) => Outcome::Rejected,
            (false, _) => Outcome::Fenced,
        };
        if let Some(spans) = &self.spans {
            if promise.state == PromiseState::RejectedTimedout {
                spans.promises.timed_out(promise);
            } else if ours && let Some(run) = self.runs.context(id) {
                spans.promises.invocation(&run, promise, version);
            }
        }
        self.end(id, version, outcome);
    }

    /// A run was refused: another process runs the task, or the promise is settled, perhaps by an
    /// attempt of this run whose answer was lost.
    async fn fenced(&self, id: &str, version: i64) {
        if self.spans.is_some()
            && let Some(answer) = self.get(id).await
            && let Some(promise) = answer.promise().filter(|promise| !promise.is_pending())
        {
            self.settled(id, version, promise);
        }
        self.end(id, version, Outcome::Fenced);
    }

    async fn release(&self, request: Request) -> Answered {
        let Operation::TaskRelease(release) = request.operation() else { unreachable!() };
        let (id, version) = (release.id.to_string(), release.version);
        let answer = self.next.exchange(request).await;
        // A repeat is refused if an earlier attempt took effect. Any other refusal says that there
        // was nothing left to release.
        let released =
            answer.as_ref().is_ok_and(|answer| answer.status() == 200 || answer.repeated);
        self.end(&id, version, if released { Outcome::Released } else { Outcome::Fenced });
        answer
    }

    fn end(&self, id: &str, version: i64, outcome: Outcome) {
        if self.runs.end(id, version, outcome) && outcome != Outcome::Suspended {
            self.steps.forget(id);
        }
    }

    async fn heartbeat(&self, request: Request) -> Answered {
        let Operation::TaskHeartbeat(heartbeat) = request.operation() else { unreachable!() };
        let tasks: Vec<(String, i64)> =
            heartbeat.tasks.iter().map(|task| (task.id.to_string(), task.version)).collect();
        let answer = self.next.exchange(request).await?;
        if answer.status() == 200 {
            tasks.iter().for_each(|(id, version)| self.runs.heartbeat(id, *version));
        }
        Ok(answer)
    }

    /// A promise that is awaited here. If it timed out, its awaiter reports its end.
    fn awaited(&self, promise: &Promise) {
        let Some(spans) = &self.spans else { return };
        if promise.state == PromiseState::RejectedTimedout && promise.group().is_some() {
            let settled = context::time(promise.settled_at.unwrap_or_default());
            if SystemTime::now().duration_since(settled).unwrap_or_default() < RECENT {
                spans.promises.timed_out(promise);
            }
        }
    }
}

/// A lease as requests have it, in milliseconds.
fn lease(ttl: i64) -> Duration {
    Duration::from_millis(ttl.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests;
