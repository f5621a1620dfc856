//! The layer that traces: it writes contexts into promises, and emits the spans of what it sees.

mod creations;
mod endings;
mod lost;
mod marks;
mod user_code;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, SystemTime},
};

use opentelemetry::Context;
use tokio::time::Instant;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::{
    Answer, AnswerBody, Exchange, ExchangeError, Message, MessageBody, Operation, Pairs, Promise,
    PromiseState, Request, Task, TaskState,
    operation::{FencedAction, Get},
    tag,
};

use self::{creations::Caller, lost::Asked, marks::Mark};
pub use self::{
    marks::released_mark,
    user_code::{TracedFunction, TracedStep},
};
use crate::{
    Telemetry,
    attributes::{self as key, Subject},
    context,
    emit::Emitter,
    metrics::Metrics,
    promise_spans::PromiseSpans,
    run_spans::{OpenRuns, Run, StepOf},
    steps::{Note, Steps},
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
    metrics: Metrics,
    stores_baggage: bool,
    runs: OpenRuns,
    steps: Steps,
    /// How many promises are looked up because an answer was lost.
    looked_up: AtomicUsize,
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
        let metrics = telemetry.metrics();
        let runs = OpenRuns::new(emitter, metrics.clone(), &instance);
        let steps = Steps::default();
        let looked_up = AtomicUsize::new(0);
        let stores_baggage = telemetry.stores_baggage();
        Self(Arc::new(Inner {
            next,
            spans,
            metrics,
            instance,
            stores_baggage,
            runs,
            steps,
            looked_up,
        }))
    }

    /// The trace id of the run of `task` in this process, in hexadecimal digits.
    pub fn trace_id(&self, task: &str) -> Option<String> {
        self.0.runs.context(task).as_ref().and_then(context::trace_id_of)
    }

    /// Reports that a step that runs now is retried.
    pub fn step_retried(&self, promise: &str) {
        if self.0.metrics.is_on() {
            let subject = self.0.runs.subject(promise).unwrap_or_default();
            self.0.metrics.step_retried(&subject);
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
                let caller = Caller::of(&request);
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
            Operation::PromiseSettle(_) => inner.settle(request).await,
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
    /// Whether there are spans or metrics of what happens.
    fn observes(&self) -> bool {
        self.spans.is_some() || self.metrics.is_on()
    }

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

    async fn acquire(self: &Arc<Self>, request: Request) -> Answered {
        let Operation::TaskAcquire(acquire) = request.operation() else { unreachable!() };
        let lease = (Instant::now(), lease(acquire.ttl));
        let answer = self.next.exchange(request).await?;
        self.begin(&answer, lease).await;
        Ok(answer)
    }

    /// A run begins, if the answer says so. `lease`: when it was asked for, and its length.
    async fn begin(self: &Arc<Self>, answer: &Answer, lease: (Instant, Duration)) {
        let AnswerBody::Acquired(Task { id, version, state, .. }, promise, preload) = answer.body()
        else {
            return;
        };
        if *state != TaskState::Acquired {
            return;
        }
        let now = SystemTime::now();
        let parent = self.context_of(promise, *version, now).await;
        let mut run = Run::new(*version, promise, parent, now, lease, self.metrics.is_on());
        // The first run takes nothing over. The preload is large: it is read only where it tells.
        if *version > 1
            && self.observes()
            && let Some(preload) = preload
            && let Ok(preload) = serde_json::from_str::<Vec<Promise>>(preload.get())
        {
            let pending = preload.iter().filter(|child| child.is_step() && child.is_pending());
            run.inherit(pending, marks::predecessor(&preload, *version));
            preload.iter().for_each(|child| self.awaited(child));
        }
        // A run that takes over may die before it leaves another trace of itself.
        if run.is_takeover()
            && let Some(branch) = run.branch().map(str::to_owned)
        {
            let (inner, id, version) = (self.clone(), id.to_string(), *version);
            tokio::spawn(async move { inner.leave(Mark::TakenOver, &id, version, branch).await });
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

    async fn fence(self: &Arc<Self>, mut request: Request) -> Answered {
        let Operation::TaskFence(fence) = request.operation() else { unreachable!() };
        let (id, version) = (fence.id.to_string(), fence.version);
        // Names the creator, so that a later run can tell a takeover from a resume, and a reader of
        // promises what ran where.
        let creator = || {
            Pairs::from_iter([
                (key::HEADER_INSTANCE, self.instance.clone()),
                (key::HEADER_VERSION, version.to_string()),
            ])
        };
        let (child, headers, is_step) = match &fence.action {
            FencedAction::Create(create) => {
                let is_step = create.tags.get(tag::SCOPE) == Some("local");
                (create.id.to_string(), Some(creator()), is_step)
            }
            FencedAction::Settle(settle) => (settle.id.to_string(), None, true),
        };
        if let FencedAction::Settle(settle) = &fence.action {
            let headers = self.step_headers(&settle.id, version);
            request.add_headers(&headers);
        }
        let settles = headers.is_none();
        let run = self.runs.context(&id).unwrap_or_default();
        let step = is_step.then_some(child.as_str());
        let prepared = headers.and_then(|more| self.prepare(&mut request, &run, step, more));
        let asked = match &prepared {
            // A step has its span when it is settled.
            Some(_) if is_step => None,
            Some(prepared) => {
                let (id, request) = (child.clone(), request.clone());
                Some(Asked::Creation { id, prepared: prepared.clone(), request })
            }
            None => settles.then(|| Asked::Step { task: id.clone(), id: child.clone(), version }),
        };
        if is_step && !settles && self.observes() {
            self.runs.step_begun(&id, &child);
        }
        let mut under_way = self.watch(asked);
        let answer = self.send(request, &run).await;
        under_way.note(&answer);
        let answer = answer?;
        if answer.status() == 200 {
            self.runs.confirm_lease(&id, version);
        }
        if answer.promise().is_some_and(|promise| !promise.is_pending()) {
            self.runs.step_ended(&id, &child);
        }
        match (answer.status(), answer.promise()) {
            (200, Some(promise)) => match prepared {
                Some(prepared) if prepared.created(promise) => {
                    self.created(&prepared, promise, SystemTime::now());
                }
                _ if settles => self.settled_step(&id, promise),
                _ => {}
            },
            (409, _) => {
                self.fenced(&id, version, false).await;
            }
            _ => {}
        }
        Ok(answer)
    }

    /// What a settled step tells about the run that settled it.
    fn step_headers(&self, step: &str, version: i64) -> Pairs<'static> {
        let mut headers = Pairs::from_iter([(key::HEADER_SETTLER, self.settler(version))]);
        if let Some((begun, failures)) = self.steps.progress(step) {
            headers.set(key::HEADER_BEGUN, begun.to_string());
            if failures > 0 {
                headers.set(key::HEADER_FAILURES, failures.to_string());
            }
        }
        headers
    }

    fn settled_step(&self, task: &str, promise: &Promise) {
        let note = self.steps.take(&promise.id);
        if promise.is_step()
            && let Some(step) = self.runs.step(task, &promise.id)
        {
            self.step_ended(&step, promise, note);
        }
    }

    fn step_ended(&self, step: &StepOf, promise: &Promise, note: Note) {
        self.metrics.step_settled(&step.subject, promise);
        if let Some(spans) = &self.spans {
            spans.promises.step(step, promise, note);
        }
    }

    async fn heartbeat(&self, request: Request) -> Answered {
        let Operation::TaskHeartbeat(heartbeat) = request.operation() else { unreachable!() };
        let tasks: Vec<(String, i64)> =
            heartbeat.tasks.iter().map(|task| (task.id.to_string(), task.version)).collect();
        let sent = Instant::now();
        let answer = self.next.exchange(request).await?;
        if answer.status() == 200 {
            tasks.iter().for_each(|(id, version)| self.runs.heartbeat(id, *version, sent));
        }
        Ok(answer)
    }

    /// A promise that is awaited here. If it timed out, its awaiter reports its end.
    fn awaited(&self, promise: &Promise) {
        if promise.state == PromiseState::RejectedTimedout && promise.group().is_some() {
            let settled = context::time(promise.settled_at.unwrap_or_default());
            if SystemTime::now().duration_since(settled).unwrap_or_default() < RECENT {
                self.timed_out(promise);
            }
        }
    }

    fn timed_out(&self, promise: &Promise) {
        let subject = Subject::of(promise);
        self.metrics.invocation(&subject, promise);
        if let Some(spans) = &self.spans {
            spans.promises.timed_out(subject, promise);
        }
    }
}

/// A lease as requests have it, in milliseconds.
fn lease(ttl: i64) -> Duration {
    Duration::from_millis(ttl.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests;
