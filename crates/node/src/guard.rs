//! What the runtime puts around each function.

use std::{marker::PhantomData, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use resonate_sdk::{
    error::Result,
    prelude::{Durable, DurableKind, ExecutionEnv},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::Instrument;

use crate::{errors, step::Runtime};

/// The target of the span that names promise and run in log lines. Traces have other spans for that.
pub(crate) const TARGET: &str = "node::run";

/// Wraps a function: its log lines name promise and run, and a panic or invalid arguments reject
/// the promise. Without that, its task would come back for ever.
pub(crate) struct Guarded<D, Args, T>(D, PhantomData<fn(Args) -> T>);

impl<D, Args, T> Guarded<D, Args, T> {
    pub fn new(function: D) -> Self {
        Self(function, PhantomData)
    }
}

impl<D: Copy, Args, T> Clone for Guarded<D, Args, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Copy, Args, T> Copy for Guarded<D, Args, T> {}

impl<D, Args, T> Durable<Value, T> for Guarded<D, Args, T>
where
    D: Durable<Args, T> + Copy,
    Args: DeserializeOwned + Send + 'static,
    T: Send + 'static,
{
    const NAME: &'static str = D::NAME;
    const KIND: DurableKind = D::KIND;

    async fn execute(&self, env: ExecutionEnv<'_>, args: Value) -> Result<T> {
        let (promise, runtime) = match env {
            ExecutionEnv::Function(info) => (info.id(), info.get_dependency::<Runtime>()),
            ExecutionEnv::Workflow(ctx) => (ctx.id(), ctx.get_dependency::<Runtime>()),
        };
        let span = tracing::info_span!(
            target: TARGET,
            "run",
            instance = runtime.instance,
            function = D::NAME,
            promise,
            version = runtime.leases.version(promise),
        );
        let run = async {
            let args = decode(args).map_err(|error| {
                errors::application(format!("invalid arguments for {}: {error}", D::NAME))
            })?;
            tracing::debug!("run started");
            match AssertUnwindSafe(self.0.execute(env, args)).catch_unwind().await {
                Ok(result) => result.map_err(errors::plain),
                Err(panic) => {
                    Err(errors::application(format!("{} panicked: {}", D::NAME, text(&*panic))))
                }
            }
        };
        // The span is within the context, so that its log lines are too.
        runtime.traced.in_function(promise, run.instrument(span)).await
    }
}

/// Reads the arguments of a call. A single one is in an array if the caller passed a tuple, as the
/// SDKs of other languages always do, and bare if it was passed to the Rust SDK as it is.
fn decode<Args: DeserializeOwned>(args: Value) -> serde_json::Result<Args> {
    if let Some([single]) = args.as_array().map(Vec::as_slice)
        && let Ok(args) = serde_json::from_value(single.clone())
    {
        return Ok(args);
    }
    serde_json::from_value(args)
}

/// The message of a panic.
fn text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_single_argument_is_read_bare_and_in_an_array() {
        assert_eq!(decode::<i64>(json!(5)).unwrap(), 5);
        assert_eq!(decode::<i64>(json!([5])).unwrap(), 5);
        assert_eq!(decode::<Vec<i64>>(json!([5])).unwrap(), [5]);
        assert_eq!(decode::<Vec<i64>>(json!([[5]])).unwrap(), [5]);
        assert_eq!(decode::<(i64, String)>(json!([5, "x"])).unwrap(), (5, "x".to_owned()));
        assert!(decode::<i64>(json!(["x"])).is_err());
    }
}
