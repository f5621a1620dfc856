//! The SDK's [`Network`], with a trace in it.

use std::sync::{Arc, atomic::AtomicBool};

use opentelemetry::{Context, trace::TraceContextExt};
use resonate_sdk::{
    error::{Error, Result},
    prelude::Network,
};

use crate::{
    Telemetry,
    context::{self, Headers},
    observer::Observer,
    runs::Runs,
    steps::Steps,
    wire,
};

/// A network that passes everything on to another one, writes the trace context into each promise
/// that is created through it, and emits the spans of what it sees.
pub struct Traced {
    inner: Arc<dyn Network>,
    observer: Arc<Observer>,
}

impl Traced {
    /// Wraps `inner`. A network that repeats requests belongs inside: repeats then carry the same
    /// ids.
    pub fn new(inner: Arc<dyn Network>, telemetry: &Telemetry) -> Self {
        let emitter = telemetry.emitter();
        let identity = telemetry.identity().clone();
        let observer = Observer {
            runs: Arc::new(Runs::new(emitter.clone(), &identity)),
            inner: inner.clone(),
            emitter,
            identity,
            steps: Steps::default(),
            clocks_compared: AtomicBool::new(false),
        };
        Self { inner, observer: Arc::new(observer) }
    }

    /// The trace id of the run of `task` in this process, in hexadecimal digits.
    pub fn trace_id(&self, task: &str) -> Option<String> {
        self.observer.runs.context(task).as_ref().and_then(trace_id_of)
    }

    /// Names the step with this promise id, which runs now. Its span is made when it is settled.
    pub fn name_step(&self, promise: &str, name: &str) {
        if self.observer.emitter.is_some() {
            self.observer.steps.name(promise, name);
        }
    }

    /// Tells of a failed attempt of a step that runs now: an event on its span.
    pub fn step_failed(&self, promise: &str, kind: &str, message: &str) {
        if self.observer.emitter.is_some() {
            self.observer.steps.failed(promise, kind, message);
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
        let observer = &self.observer;
        match kind.as_str() {
            "promise.create" | "task.create" => {
                let (parent, span) = (Context::current(), tracing::Span::current());
                let observer = observer.clone();
                // In a task of its own: a caller that goes away drops this future, and must drop
                // neither the creation nor its span.
                let created = tokio::spawn(async move {
                    match kind.as_str() {
                        "promise.create" => observer.create(body, parent, span).await,
                        _ => observer.create_task(&data, body, parent, span).await,
                    }
                });
                created.await.map_err(|error| Error::JoinError(error.to_string()))?
            }
            "task.acquire" => observer.acquire(&data, body).await,
            "task.fence" => observer.fence(&data, body).await,
            "task.suspend" => observer.suspend(&data, body).await,
            "task.fulfill" => observer.fulfill(&data, body).await,
            "task.release" => observer.release(&data, body).await,
            "task.heartbeat" => observer.heartbeat(&data, body).await,
            "promise.register_listener" => {
                let answer = self.inner.send(body).await?;
                observer.look_at_awaited(&answer);
                Ok(answer)
            }
            _ => self.inner.send(body).await,
        }
    }

    fn recv(&self, callback: Box<dyn Fn(String) + Send + Sync>) {
        let observer = self.observer.clone();
        self.inner.recv(Box::new(move |message| {
            observer.look_at_awaited(&message);
            callback(message);
        }));
    }

    fn target_resolver(&self, target: &str) -> String {
        self.inner.target_resolver(target)
    }
}
