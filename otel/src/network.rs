//! The SDK's [`Network`], with a trace in it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{SpanContext, SpanKind, Status, TraceContextExt},
};
use resonate_sdk::{error::Result, prelude::Network};
use serde_json::json;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    Telemetry,
    attributes::{self as key},
    context::{self, Headers},
    emit::{Emitter, Finished},
    runs::{Outcome, Run, Runs},
    setup::Identity,
    steps::Steps,
    wire::{self, Acquired, Answer, Fenced, OnePromise, Promise},
};

/// An awaiter that sees a timed-out promise reports it if that was not longer ago than this.
const RECENT: Duration = Duration::from_secs(10);

/// Clocks that differ by more are worth a line in the log.
const CLOCK_DIFFERENCE: Duration = Duration::from_millis(100);

const TIMED_OUT: &str = "rejected_timedout";

/// A network that passes everything on to another one, writes the trace context into each promise
/// that is created through it, and emits the spans of what it sees.
pub struct Traced {
    inner: Arc<dyn Network>,
    shared: Arc<Shared>,
}

/// What outlives one request.
struct Shared {
    inner: Arc<dyn Network>,
    /// `None`: tracing is off, contexts travel all the same.
    emitter: Option<Arc<Emitter>>,
    identity: Identity,
    runs: Arc<Runs>,
    steps: Steps,
    clocks_compared: AtomicBool,
}

impl Traced {
    /// Wraps `inner`. A network that repeats requests belongs inside: repeats then carry the same
    /// ids.
    pub fn new(inner: Arc<dyn Network>, telemetry: &Telemetry) -> Self {
        let emitter = telemetry.emitter();
        let identity = telemetry.identity().clone();
        let shared = Shared {
            runs: Arc::new(Runs::new(emitter.clone(), &identity)),
            inner: inner.clone(),
            emitter,
            identity,
            steps: Steps::default(),
            clocks_compared: AtomicBool::new(false),
        };
        Self { inner, shared: Arc::new(shared) }
    }

    /// The trace id of the run of `task` in this process, in hexadecimal digits.
    pub fn trace_id(&self, task: &str) -> Option<String> {
        self.shared.runs.context(task).as_ref().and_then(trace_id_of)
    }

    /// Names the step with this promise id, which runs now. Its span is made when it is settled.
    pub fn name_step(&self, promise: &str, name: &str) {
        if self.shared.emitter.is_some() {
            self.shared.steps.name(promise, name);
        }
    }

    /// Tells of a failed attempt of a step that runs now: an event on its span.
    pub fn step_failed(&self, promise: &str, kind: &str, message: &str) {
        if self.shared.emitter.is_some() {
            self.shared.steps.failed(promise, kind, message);
        }
    }
}

/// The trace id that the headers of a promise carry, in hexadecimal digits.
pub fn trace_id(headers: &Headers) -> Option<String> {
    context::extract(headers).as_ref().and_then(trace_id_of)
}

fn trace_id_of(context: &Context) -> Option<String> {
    let span = context.span();
    span.span_context().is_valid().then(|| span.span_context().trace_id().to_string())
}

/// The context of a promise that is about to be created, and its span if that is made.
struct Prepared {
    headers: Headers,
    body: String,
    parent: Context,
    span: Option<SpanContext>,
    start: SystemTime,
}

impl Shared {
    fn attributes(&self, promise: &Promise) -> Vec<KeyValue> {
        let mut attributes = vec![KeyValue::new(key::PROMISE_ID, promise.id.clone())];
        attributes
            .extend(promise.function().map(|function| KeyValue::new(key::FUNCTION, function)));
        attributes.extend(promise.group().map(|group| KeyValue::new(key::GROUP, group.to_owned())));
        attributes
    }

    /// Gives a promise that is created under `parent` its context.
    fn prepare(&self, parent: Context, body: &str, path: &str, more: Headers) -> Option<Prepared> {
        let span =
            self.emitter.as_ref().map(|emitter| emitter.child(&parent, "rpc", &SpanKind::Producer));
        let context =
            span.clone().map_or_else(|| parent.clone(), |span| context::child_of(&parent, span));
        let mut headers = context::inject(&context);
        headers.extend(more);
        if headers.is_empty() {
            return None;
        }
        let body = wire::with_headers(body, path, &headers)?;
        Some(Prepared { headers, body, parent, span, start: SystemTime::now() })
    }

    /// The span of a promise that was created: its call, or its timer. A step has its own, later.
    fn emit_created(&self, prepared: Prepared, promise: &Promise) {
        let (Some(emitter), Some(context)) = (&self.emitter, prepared.span) else { return };
        let end = SystemTime::now();
        self.compare_clocks(prepared.start, context::time(promise.created_at), end);
        let (name, kind, start, end) = if promise.is_timer() {
            let length =
                Duration::from_millis((promise.timeout_at - promise.created_at).max(0) as u64);
            let due = context::time(promise.timeout_at);
            (
                format!("sleep {length:?}"),
                SpanKind::Internal,
                context::time(promise.created_at),
                due,
            )
        } else if let Some(function) = promise.function().filter(|_| !promise.is_local()) {
            (format!("rpc {function}"), SpanKind::Producer, prepared.start, end)
        } else {
            return;
        };
        emitter.emit(Finished {
            name: name.into(),
            kind,
            context,
            parent: prepared.parent.span().span_context().span_id(),
            start,
            end,
            attributes: self.attributes(promise),
            events: Vec::new(),
            status: Status::Unset,
        });
    }

    fn compare_clocks(&self, sent: SystemTime, server: SystemTime, answered: SystemTime) {
        let ahead = server.duration_since(answered).unwrap_or_default();
        let behind = sent.duration_since(server).unwrap_or_default();
        let difference = ahead.max(behind);
        if difference > CLOCK_DIFFERENCE && !self.clocks_compared.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?difference,
                "the clocks of this process and of the Resonate Server differ: spans of both do not fit together to the millisecond"
            );
        }
    }

    /// `promise.create`, outside of a run: by a client, under its current span.
    async fn create(
        &self,
        body: String,
        parent: Context,
        request: tracing::Span,
    ) -> Result<String> {
        let Some(prepared) = self.prepare(parent, &body, "/data/param", Headers::new()) else {
            return self.inner.send(body).await;
        };
        let answer = self.inner.send(prepared.body.clone()).await?;
        if let Ok(Answer { head, data: OnePromise { promise } }) = serde_json::from_str(&answer)
            && head.status == 200
        {
            match is_ours(&prepared.headers, &promise) {
                true => self.emit_created(prepared, &promise),
                false => link(&request, &promise),
            }
        }
        Ok(answer)
    }

    /// `task.create`: a promise and, at once, its first run in this process.
    async fn create_task(
        &self,
        data: &str,
        body: String,
        parent: Context,
        request: tracing::Span,
    ) -> Result<String> {
        let task: wire::CreateTask = serde_json::from_str(data)?;
        let Some(prepared) = self.prepare(parent, &body, "/data/action/data/param", Headers::new())
        else {
            return self.inner.send(body).await;
        };
        let answer = self.inner.send(prepared.body.clone()).await?;
        if let Ok(Answer { head, data }) = serde_json::from_str::<Answer<Acquired>>(&answer)
            && head.status == 200
        {
            match is_ours(&prepared.headers, &data.promise) {
                true => self.emit_created(prepared, &data.promise),
                false => link(&request, &data.promise),
            }
            self.begin(data, task.ttl).await;
        }
        Ok(answer)
    }

    async fn acquire(&self, data: &str, body: String) -> Result<String> {
        let task: wire::Task = serde_json::from_str(data)?;
        let answer = self.inner.send(body).await?;
        if let Ok(Answer { head, data }) = serde_json::from_str::<Answer<Acquired>>(&answer)
            && head.status == 200
        {
            self.begin(data, task.ttl).await;
        }
        Ok(answer)
    }

    /// A run begins.
    async fn begin(&self, acquired: Acquired<'_>, ttl: u64) {
        let Acquired { task, promise, preload } = acquired;
        let now = SystemTime::now();
        let parent = self.context_of(&promise, task.version, now).await;
        let mut run = Run::new(task.version, &promise, parent, now, Duration::from_millis(ttl));
        // The first run takes nothing over. The preload is large: it is read only where it tells.
        if task.version > 1
            && self.emitter.is_some()
            && let Some(preload) = preload
            && let Ok(preload) = serde_json::from_str::<Vec<Promise>>(preload.get())
        {
            run.inherit(preload.iter().filter(|step| step.is_local() && step.state == "pending"));
            for timed_out in
                preload.iter().filter(|child| child.state == TIMED_OUT && child.group().is_some())
            {
                let settled = context::time(timed_out.settled_at.unwrap_or_default());
                if now.duration_since(settled).unwrap_or_default() < RECENT {
                    self.emit_timed_out(timed_out);
                }
            }
        }
        self.runs.begin(&task.id, run);
    }

    /// The context that the promise carries; for one that was made by a client without tracing,
    /// that of its parent, or else one that every process derives alike.
    async fn context_of(&self, promise: &Promise, version: i64, now: SystemTime) -> Context {
        if let Some(context) = context_in(promise) {
            return context;
        }
        let Some(emitter) = &self.emitter else { return Context::new() };
        if let Some(parent) =
            promise.tags.get("resonate:parent").filter(|parent| **parent != promise.id)
            && let Some(context) = self.get(parent).await.as_ref().and_then(context_in)
        {
            return context;
        }
        let name = format!("received {}", promise.function().unwrap_or_default());
        let trace = context::derived_trace_id(&promise.id, promise.created_at);
        let span = context::derived_span_id("received", &promise.id, promise.created_at);
        let root = emitter.root(trace, span, &name, &SpanKind::Consumer);
        if version == 1 {
            emitter.emit(Finished {
                name: name.into(),
                kind: SpanKind::Consumer,
                context: root.clone(),
                parent: opentelemetry::SpanId::INVALID,
                start: context::time(promise.created_at),
                end: now,
                attributes: self.attributes(promise),
                events: Vec::new(),
                status: Status::Unset,
            });
        }
        context::child_of(&Context::new(), root)
    }

    async fn get(&self, id: &str) -> Option<Promise> {
        let head = json!({"corrId": "otel", "version": "2026-04-01"});
        let body = json!({"kind": "promise.get", "head": head, "data": {"id": id}}).to_string();
        let answer = self.inner.send(body).await.ok()?;
        let Answer { head, data: OnePromise { promise } } = serde_json::from_str(&answer).ok()?;
        (head.status == 200).then_some(promise)
    }

    async fn fence(&self, data: &str, body: String) -> Result<String> {
        let task: wire::Task = serde_json::from_str(data)?;
        let (id, version) = (&*task.id, task.version);
        let creates = task.action.as_ref().is_some_and(|action| action.kind == "promise.create");
        let parent = self.runs.context(id).unwrap_or_default();
        let prepared = creates
            .then(|| {
                let origin = [
                    (key::HEADER_INSTANCE, self.identity.instance.clone()),
                    (key::HEADER_VERSION, version.to_string()),
                ];
                let origin = origin.map(|(name, value)| (name.to_owned(), value)).into();
                self.prepare(parent, &body, "/data/action/data/param", origin)
            })
            .flatten();
        let answer = self
            .inner
            .send(prepared.as_ref().map_or(body, |prepared| prepared.body.clone()))
            .await?;
        let Ok(wire::Status { head }) = serde_json::from_str(&answer) else { return Ok(answer) };
        match head.status {
            200 => {
                if let Ok(Answer { data: Fenced { action }, .. }) = serde_json::from_str(&answer) {
                    let promise = action.data.promise;
                    match prepared {
                        Some(prepared) if is_ours(&prepared.headers, &promise) => {
                            self.emit_created(prepared, &promise)
                        }
                        Some(_) => {}
                        None => self.emit_step(id, &promise),
                    }
                }
            }
            409 => self.fenced(id, version).await,
            _ => {}
        }
        Ok(answer)
    }

    /// A step that this process has settled: from its creation, by whichever process, until now.
    fn emit_step(&self, task: &str, promise: &Promise) {
        let note = self.steps.take(&promise.id);
        let (Some(emitter), true) = (&self.emitter, promise.is_local()) else { return };
        let Some((run, taken_over)) = self.runs.step(task, &promise.id) else { return };
        let parent = run.span().span_context().clone();
        // The id was chosen by who created the step, so that there is one span however often it ran.
        let context = match context_in(promise) {
            Some(context) => emitter.sibling(&parent, context.span().span_context().span_id()),
            None => emitter.child(&run, "step", &SpanKind::Internal),
        };
        let mut attributes = vec![
            KeyValue::new(key::PROMISE_ID, promise.id.clone()),
            KeyValue::new(key::PROMISE_STATE, promise.state.clone()),
        ];
        if taken_over {
            attributes.push(KeyValue::new(key::TAKEOVER, true));
        }
        let status = match promise.state.as_str() {
            "resolved" => Status::Unset,
            _ => Status::error(note.error.or_else(|| promise.error()).unwrap_or_default()),
        };
        emitter.emit(Finished {
            name: note.name.unwrap_or_else(|| "step".to_owned()).into(),
            kind: SpanKind::Internal,
            context,
            parent: parent.span_id(),
            start: context::time(promise.created_at),
            end: context::time(promise.settled_at.unwrap_or(promise.created_at)),
            attributes,
            events: note.events,
            status,
        });
    }

    /// `task.suspend` ends a run, unless it is answered 300.
    async fn suspend(&self, data: &str, body: String) -> Result<String> {
        let task: wire::Task = serde_json::from_str(data)?;
        let answer = self.inner.send(body).await?;
        let Ok(wire::Status { head }) = serde_json::from_str(&answer) else { return Ok(answer) };
        match head.status {
            200 => self.end(&task.id, task.version, Outcome::Suspended),
            409 => self.fenced(&task.id, task.version).await,
            _ => {}
        }
        Ok(answer)
    }

    /// `task.fulfill`: the end of an invocation, if it was this run that settled the promise.
    async fn fulfill(&self, data: &str, body: String) -> Result<String> {
        let task: wire::Task = serde_json::from_str(data)?;
        let (id, version) = (&*task.id, task.version);
        let settler = format!("{} {version}", self.identity.instance);
        let mark = Headers::from([(key::HEADER_SETTLER.to_owned(), settler.clone())]);
        let marked = self
            .emitter
            .as_ref()
            .and_then(|_| wire::with_headers(&body, "/data/action/data/value", &mark));
        let answer = self.inner.send(marked.unwrap_or(body)).await?;
        let Ok(wire::Status { head }) = serde_json::from_str(&answer) else { return Ok(answer) };
        if head.status == 409 {
            self.fenced(id, version).await;
        }
        if head.status != 200 {
            return Ok(answer);
        }
        let Ok(Answer { data: OnePromise { promise }, .. }) = serde_json::from_str(&answer) else {
            return Ok(answer);
        };
        // A repeat is answered with the promise too, whoever settled it: the mark tells.
        let outcome = match (
            promise.value.header(key::HEADER_SETTLER) == Some(&settler),
            promise.state.as_str(),
        ) {
            (false, _) => Outcome::Fenced,
            (true, "resolved") => Outcome::Fulfilled,
            (true, _) => Outcome::Rejected,
        };
        if let (true, Some(emitter), Some(run)) =
            (outcome != Outcome::Fenced, &self.emitter, self.runs.context(id))
        {
            let context = emitter.child(&run, "", &SpanKind::Consumer);
            self.emit_invocation(emitter, &promise, &run, context, Some(version));
        } else if promise.state == TIMED_OUT {
            self.emit_timed_out(&promise);
        }
        self.end(id, version, outcome);
        Ok(answer)
    }

    fn emit_invocation(
        &self,
        emitter: &Emitter,
        promise: &Promise,
        parent: &Context,
        context: SpanContext,
        version: Option<i64>,
    ) {
        let mut attributes = self.attributes(promise);
        attributes.push(KeyValue::new(key::PROMISE_STATE, promise.state.clone()));
        attributes.extend(version.map(|version| KeyValue::new(key::TASK_VERSION, version)));
        let status = match promise.state.as_str() {
            "resolved" => Status::Unset,
            TIMED_OUT => Status::error("timed out"),
            _ => Status::error(promise.error().unwrap_or_default()),
        };
        emitter.emit(Finished {
            name: promise.function().unwrap_or_else(|| "invocation".to_owned()).into(),
            kind: SpanKind::Consumer,
            context,
            parent: parent.span().span_context().span_id(),
            start: context::time(promise.created_at),
            end: context::time(promise.settled_at.unwrap_or(promise.created_at)),
            attributes,
            events: Vec::new(),
            status,
        });
    }

    /// Nobody settles a promise that times out. Whoever notices emits its invocation, with an id
    /// that follows from the promise: a rare second one is recognised as the same.
    fn emit_timed_out(&self, promise: &Promise) {
        let (Some(emitter), Some(parent)) = (&self.emitter, context_in(promise)) else { return };
        let span = context::derived_span_id("timed out", &promise.id, promise.created_at);
        let context = emitter.sibling(parent.span().span_context(), span);
        self.emit_invocation(emitter, promise, &parent, context, None);
    }

    /// A promise that is awaited here. If it timed out, its awaiter is who reports its end.
    fn awaited(&self, promise: &Promise) {
        let settled = context::time(promise.settled_at.unwrap_or_default());
        let recent = SystemTime::now().duration_since(settled).unwrap_or_default() < RECENT;
        if promise.state == TIMED_OUT && promise.group().is_some() && recent {
            self.emit_timed_out(promise);
        }
    }

    /// An answer or message with one promise that is awaited here.
    fn look_at_awaited(&self, json: &str) {
        // Most are of no interest, and need not be parsed.
        if self.emitter.is_some()
            && json.contains(TIMED_OUT)
            && let Ok(wire::Awaited { data }) = serde_json::from_str(json)
        {
            self.awaited(&data.promise);
        }
    }

    /// The task is no longer ours: somebody else runs it, or its promise timed out.
    async fn fenced(&self, id: &str, version: i64) {
        self.end(id, version, Outcome::Fenced);
        if self.emitter.is_some()
            && let Some(promise) = self.get(id).await
            && promise.state == TIMED_OUT
        {
            self.emit_timed_out(&promise);
        }
    }

    async fn release(&self, data: &str, body: String) -> Result<String> {
        let task: wire::Task = serde_json::from_str(data)?;
        let answer = self.inner.send(body).await;
        let released = answer.as_ref().is_ok_and(|answer| {
            serde_json::from_str::<wire::Status>(answer)
                .is_ok_and(|answer| answer.head.status == 200)
        });
        // Refused: there was nothing to release any more.
        self.end(
            &task.id,
            task.version,
            if released { Outcome::Released } else { Outcome::Fenced },
        );
        answer
    }

    fn end(&self, id: &str, version: i64, outcome: Outcome) {
        if self.runs.end(id, version, outcome) && outcome != Outcome::Suspended {
            self.steps.forget(id);
        }
    }

    async fn heartbeat(&self, data: &str, body: String) -> Result<String> {
        let heartbeat: wire::Heartbeat = serde_json::from_str(data)?;
        let answer = self.inner.send(body).await?;
        for task in heartbeat.tasks {
            self.runs.heartbeat(&task.id, task.version);
        }
        Ok(answer)
    }
}

fn context_in(promise: &Promise) -> Option<Context> {
    promise.param.headers.as_ref().and_then(context::extract)
}

/// Whether a promise that came back is the one that was sent with these headers: the server
/// answers alike whether it created or found it.
fn is_ours(sent: &Headers, promise: &Promise) -> bool {
    sent.iter().all(|(name, value)| promise.param.header(name) == Some(value))
}

/// A request that found its flow keeps its own trace, with a link to the flow's.
fn link(request: &tracing::Span, found: &Promise) {
    if let Some(flow) = context_in(found) {
        request.add_link(flow.span().span_context().clone());
        request.set_attribute(key::RECONNECTED, true);
    }
}

#[async_trait::async_trait]
impl Network for Traced {
    fn pid(&self) -> &str {
        self.inner.pid()
    }

    fn group(&self) -> &str {
        self.inner.group()
    }

    fn unicast(&self) -> &str {
        self.inner.unicast()
    }

    fn anycast(&self) -> &str {
        self.inner.anycast()
    }

    async fn start(&self) -> Result<()> {
        self.inner.start().await
    }

    async fn stop(&self) -> Result<()> {
        self.inner.stop().await
    }

    async fn send(&self, body: String) -> Result<String> {
        let request: wire::Request = serde_json::from_str(&body)?;
        let (kind, data) = (request.kind.into_owned(), request.data.get().to_owned());
        let shared = &self.shared;
        match kind.as_str() {
            "promise.create" | "task.create" => {
                let (parent, span) = (Context::current(), tracing::Span::current());
                let shared = shared.clone();
                // In a task of its own: a caller that goes away drops this future, and must drop
                // neither the creation nor its span.
                let created = tokio::spawn(async move {
                    match kind.as_str() {
                        "promise.create" => shared.create(body, parent, span).await,
                        _ => shared.create_task(&data, body, parent, span).await,
                    }
                });
                created
                    .await
                    .map_err(|error| resonate_sdk::error::Error::JoinError(error.to_string()))?
            }
            "task.acquire" => shared.acquire(&data, body).await,
            "task.fence" => shared.fence(&data, body).await,
            "task.suspend" => shared.suspend(&data, body).await,
            "task.fulfill" => shared.fulfill(&data, body).await,
            "task.release" => shared.release(&data, body).await,
            "task.heartbeat" => shared.heartbeat(&data, body).await,
            "promise.register_listener" => {
                let answer = self.inner.send(body).await?;
                shared.look_at_awaited(&answer);
                Ok(answer)
            }
            _ => self.inner.send(body).await,
        }
    }

    fn recv(&self, callback: Box<dyn Fn(String) + Send + Sync>) {
        let shared = self.shared.clone();
        self.inner.recv(Box::new(move |message| {
            shared.look_at_awaited(&message);
            callback(message);
        }));
    }

    fn target_resolver(&self, target: &str) -> String {
        self.inner.target_resolver(target)
    }
}
