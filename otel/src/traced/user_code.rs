//! Code of the application joins the trace: what it does in a function or a step is below it.

use std::borrow::Cow;

use opentelemetry::{Context, context::FutureExt};
use resonate_sdk::{
    error::{Error, Result},
    prelude::{Durable, DurableKind, ExecutionEnv},
};

use super::Traced;
use crate::context;

impl Traced {
    /// Names the step with this promise id, which runs now. Its span is made when it is settled.
    /// [`TracedStep`] does this.
    pub fn name_step(&self, promise: &str, name: &str) {
        self.0.steps.begun(promise, self.0.spans.is_some().then_some(name));
    }

    /// Reports a failed attempt of a step that runs now: an event on its span. [`TracedStep`] reports
    /// an error that the step returns, if none was reported before.
    pub fn step_failed(&self, promise: &str, error: &Error) {
        match self.0.spans {
            Some(_) => self.0.steps.failed(promise, error_type(error), &message(error)),
            None => self.0.steps.counted(promise),
        }
    }

    /// Runs the body of a function while its context is the active one: the context in the function's
    /// promise. `promise`: its id. Without a context, that of the caller stays active.
    pub async fn in_function<F: Future>(&self, promise: &str, body: F) -> F::Output {
        let context = self.0.runs.enclosing(promise).unwrap_or_else(Context::current);
        body.with_context(context).await
    }

    /// Runs the body of a step while its span is the active one. Each attempt has the same span,
    /// which is made when the step is settled. `promise`: the id of the step.
    pub async fn in_step<F: Future>(&self, promise: &str, body: F) -> F::Output {
        let function = self.0.runs.enclosing(promise).unwrap_or_else(Context::current);
        let context = match self.0.spans {
            Some(_) => context::of_step(&function, promise),
            // There will be no span to be a child of.
            None => function,
        };
        body.with_context(context).await
    }
}

/// What [`Traced`] needs to know of an execution: its promise, and the way to `Traced`, which is a
/// dependency of the SDK.
fn execution(env: ExecutionEnv<'_>) -> (String, std::sync::Arc<Traced>) {
    match env {
        ExecutionEnv::Function(info) => (info.id().to_owned(), info.get_dependency()),
        ExecutionEnv::Workflow(ctx) => (ctx.id().to_owned(), ctx.get_dependency()),
    }
}

/// A function whose body joins the trace: register it in place of the function.
///
/// It finds [`Traced`] among the dependencies of the SDK: pass a clone to `Resonate::with_dependency`.
#[derive(Debug, Clone, Copy)]
pub struct TracedFunction<D>(D);

impl<D> TracedFunction<D> {
    /// Wraps a function that was written with `#[resonate_sdk::function]`.
    pub fn new(function: D) -> Self {
        Self(function)
    }
}

impl<D, Args, T> Durable<Args, T> for TracedFunction<D>
where
    D: Durable<Args, T>,
    Args: Send,
{
    const NAME: &'static str = D::NAME;
    const KIND: DurableKind = D::KIND;

    async fn execute(&self, env: ExecutionEnv<'_>, args: Args) -> Result<T> {
        let (promise, traced) = execution(env);
        traced.in_function(&promise, self.0.execute(env, args)).await
    }
}

/// A step with a name and a context: give it to `ctx.run` in place of the function.
///
/// It finds [`Traced`] among the dependencies of the SDK: pass a clone to `Resonate::with_dependency`.
#[derive(Debug, Clone)]
pub struct TracedStep<D> {
    name: Cow<'static, str>,
    function: D,
}

impl<D> TracedStep<D> {
    /// Wraps `function`. The step's span is called `name`.
    pub fn new(name: impl Into<Cow<'static, str>>, function: D) -> Self {
        Self { name: name.into(), function }
    }
}

impl<D, Args, T> Durable<Args, T> for TracedStep<D>
where
    D: Durable<Args, T>,
    Args: Send,
    T: Send,
{
    const NAME: &'static str = D::NAME;
    const KIND: DurableKind = D::KIND;

    async fn execute(&self, env: ExecutionEnv<'_>, args: Args) -> Result<T> {
        let (promise, traced) = execution(env);
        traced.name_step(&promise, &self.name);
        let result = traced.in_step(&promise, self.function.execute(env, args)).await;
        match &result {
            // A nested workflow waits for something.
            Ok(_) | Err(Error::Suspended) => {}
            Err(_) if traced.0.steps.has_failed(&promise) => {}
            Err(error) => traced.step_failed(&promise, error),
        }
        result
    }
}

/// The type of an error, for traces: the name of its variant.
fn error_type(error: &Error) -> &'static str {
    match error {
        Error::Application { .. } => "resonate_sdk::Error::Application",
        Error::Timeout => "resonate_sdk::Error::Timeout",
        Error::IoError(_) => "resonate_sdk::Error::IoError",
        Error::HttpError(_) => "resonate_sdk::Error::HttpError",
        Error::NetworkError(_) => "resonate_sdk::Error::NetworkError",
        Error::SerializationError(_) => "resonate_sdk::Error::SerializationError",
        _ => "resonate_sdk::Error",
    }
}

/// The message of an error, without what the SDK puts before that of an application each time it
/// passes through a promise.
fn message(error: &Error) -> String {
    let text = error.to_string();
    let mut message = text.as_str();
    while let Some(rest) = message.strip_prefix("application error: ") {
        message = rest;
    }
    message.to_owned()
}
