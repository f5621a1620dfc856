//! What each request tells: which promise was created, which run began or ended, who settled what.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanKind, TraceContextExt},
};
use resonate_sdk::{error::Result, prelude::Network};
use serde_json::json;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    attributes as key,
    context::{self, Headers},
    emit::Emitter,
    runs::{Outcome, Run, Runs},
    setup::Identity,
    steps::Steps,
    wire::{self, Acquired, Answer, Fenced, OnePromise, Promise},
};

/// An awaiter that sees a timed-out promise reports it if that was not longer ago than this.
const RECENT: Duration = Duration::from_secs(10);

/// The target of the spans of single requests to the Resonate Server.
pub(crate) const REQUESTS: &str = "resonate_otel::request";

/// The state of a promise whose time was over before anybody settled it.
pub(crate) const TIMED_OUT: &str = "rejected_timedout";

/// Sees every request and answer of a process, and emits spans.
pub(crate) struct Observer {
    pub inner: Arc<dyn Network>,
    /// `None`: tracing is off, contexts travel all the same.
    pub emitter: Option<Arc<Emitter>>,
    pub identity: Identity,
    pub runs: Arc<Runs>,
    pub steps: Steps,
    pub clocks_compared: AtomicBool,
}

/// The context of a promise that is about to be created, and its span if that is made.
pub(crate) struct Prepared {
    headers: Headers,
    body: String,
    pub parent: Context,
    pub span: Option<SpanContext>,
    pub start: SystemTime,
}

impl Observer {
    /// Gives a promise that is created under `parent` its context.
    fn prepare(&self, parent: Context, body: &str, more: Headers) -> Option<Prepared> {
        let span =
            self.emitter.as_ref().map(|emitter| emitter.child(&parent, "rpc", &SpanKind::Producer));
        let context =
            span.clone().map_or_else(|| parent.clone(), |span| context::child_of(&parent, span));
        let mut headers = context::inject(&context);
        headers.extend(more);
        if headers.is_empty() {
            return None;
        }
        let body = wire::with_headers(body, &headers)?;
        Some(Prepared { headers, body, parent, span, start: SystemTime::now() })
    }

    /// Sends a request. At debug level it has a span of its own, under the same parent as what it
    /// is about; that of a call is only made once the answer tells that it is one.
    async fn ask(&self, kind: &str, body: String, parent: &Context) -> Result<String> {
        let span = tracing::debug_span!(target: REQUESTS, "request", otel.name = kind, otel.kind = "client");
        if !span.is_disabled() {
            // It fails for a span that is no OpenTelemetry span: then there is no parent to set.
            let _ = span.set_parent(parent.clone());
        }
        self.inner.send(body).instrument(span).await
    }

    /// `promise.create`, outside of a run: by a client, under its current span.
    pub async fn create(
        &self,
        body: String,
        parent: Context,
        request: tracing::Span,
    ) -> Result<String> {
        let Some(prepared) = self.prepare(parent, &body, Headers::new()) else {
            return self.inner.send(body).await;
        };
        let answer = self.ask("promise.create", prepared.body.clone(), &prepared.parent).await?;
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
    pub async fn create_task(
        &self,
        data: &str,
        body: String,
        parent: Context,
        request: tracing::Span,
    ) -> Result<String> {
        let task: wire::CreateTask = serde_json::from_str(data)?;
        let Some(prepared) = self.prepare(parent, &body, Headers::new()) else {
            return self.inner.send(body).await;
        };
        let answer = self.ask("task.create", prepared.body.clone(), &prepared.parent).await?;
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

    pub async fn acquire(&self, data: &str, body: String) -> Result<String> {
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
            self.emit_received(emitter, promise, name, root.clone(), now);
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

    pub async fn fence(&self, data: &str, body: String) -> Result<String> {
        let task: wire::Task = serde_json::from_str(data)?;
        let (id, version) = (&*task.id, task.version);
        let creates = task.action.as_ref().is_some_and(|action| action.kind == "promise.create");
        let run = self.runs.context(id).unwrap_or_default();
        let prepared = creates
            .then(|| {
                // Who creates a step is known again by whoever takes over.
                let step = task.action.as_ref().is_some_and(wire::Action::is_step);
                let origin = step.then(|| {
                    [
                        (key::HEADER_INSTANCE.to_owned(), self.identity.instance.clone()),
                        (key::HEADER_VERSION.to_owned(), version.to_string()),
                    ]
                });
                self.prepare(run.clone(), &body, origin.map(Headers::from).unwrap_or_default())
            })
            .flatten();
        let body = prepared.as_ref().map_or(body, |prepared| prepared.body.clone());
        let answer = self.ask("task.fence", body, &run).await?;
        let Ok(wire::Status { head }) = serde_json::from_str(&answer) else { return Ok(answer) };
        match head.status {
            200 => {
                if let Ok(Answer { data: Fenced { action }, .. }) = serde_json::from_str(&answer) {
                    let promise = action.data.promise;
                    match prepared {
                        Some(prepared) if is_ours(&prepared.headers, &promise) => {
                            self.emit_created(prepared, &promise)
                        }
                        None if !creates => self.emit_step(id, &promise),
                        _ => {}
                    }
                }
            }
            409 => self.fenced(id, version).await,
            _ => {}
        }
        Ok(answer)
    }

    /// `task.suspend` ends a run, unless it is answered 300.
    pub async fn suspend(&self, data: &str, body: String) -> Result<String> {
        let task: wire::Task = serde_json::from_str(data)?;
        let run = self.runs.context(&task.id).unwrap_or_default();
        let answer = self.ask("task.suspend", body, &run).await?;
        let Ok(wire::Status { head }) = serde_json::from_str(&answer) else { return Ok(answer) };
        match head.status {
            200 => self.end(&task.id, task.version, Outcome::Suspended),
            409 => self.fenced(&task.id, task.version).await,
            _ => {}
        }
        Ok(answer)
    }

    /// `task.fulfill`: the end of an invocation, if it was this run that settled the promise.
    pub async fn fulfill(&self, data: &str, body: String) -> Result<String> {
        let task: wire::Task = serde_json::from_str(data)?;
        let (id, version) = (&*task.id, task.version);
        let settler = format!("{} {version}", self.identity.instance);
        let mark = Headers::from([(key::HEADER_SETTLER.to_owned(), settler.clone())]);
        let marked = self.emitter.as_ref().and_then(|_| wire::with_headers(&body, &mark));
        let run = self.runs.context(id).unwrap_or_default();
        let answer = self.ask("task.fulfill", marked.unwrap_or(body), &run).await?;
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
        if let (true, Some(emitter)) = (outcome != Outcome::Fenced, &self.emitter) {
            let context = emitter.child(&run, "", &SpanKind::Consumer);
            self.emit_invocation(emitter, &promise, &run, context, Some(version));
        } else if promise.state == TIMED_OUT {
            self.emit_timed_out(&promise);
        }
        self.end(id, version, outcome);
        Ok(answer)
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
    pub fn look_at_awaited(&self, json: &str) {
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

    pub async fn release(&self, data: &str, body: String) -> Result<String> {
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

    pub async fn heartbeat(&self, data: &str, body: String) -> Result<String> {
        let heartbeat: wire::Heartbeat = serde_json::from_str(data)?;
        let answer = self.inner.send(body).await?;
        for task in heartbeat.tasks {
            self.runs.heartbeat(&task.id, task.version);
        }
        Ok(answer)
    }
}

pub(crate) fn context_in(promise: &Promise) -> Option<Context> {
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
