//! A service: the name of a group, and the functions that its processes run.

use std::{marker::PhantomData, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use resonate_sdk::{
    error::Result,
    prelude::{Durable, DurableKind, ExecutionEnv, Resonate},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::Instrument;

use crate::{errors, step::Runtime};

type Register = Box<dyn Fn(&Resonate) -> Result<()> + Send + Sync>;

/// A group and its functions.
pub struct Service {
    group: &'static str,
    functions: Vec<(&'static str, Register)>,
}

impl Service {
    /// A service without functions; its processes share the name `group`.
    pub fn new(group: &'static str) -> Self {
        Self { group, functions: Vec::new() }
    }

    /// Adds a function that was written with `#[resonate_sdk::function]`.
    pub fn function<D, Args, T>(mut self, function: D) -> Self
    where
        D: Durable<Args, T> + Copy,
        Args: DeserializeOwned + Send + 'static,
        T: Serialize + Send + 'static,
    {
        let guarded = Guarded(function, PhantomData::<fn(Args) -> T>);
        self.functions.push((D::NAME, Box::new(move |resonate| resonate.register(guarded))));
        self
    }

    /// The name that all its processes share.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// The names of its functions.
    pub fn functions(&self) -> Vec<&'static str> {
        self.functions.iter().map(|(name, _)| *name).collect()
    }

    /// Tells the SDK each function.
    ///
    /// # Errors
    /// A name is there twice.
    pub(crate) fn register(&self, resonate: &Resonate) -> Result<()> {
        self.functions.iter().try_for_each(|(_, register)| register(resonate))
    }
}

/// A function with what the runtime adds to each: its log lines name promise and run, and a panic
/// or arguments that do not decode reject the promise instead of coming back for ever.
struct Guarded<D, Args, T>(D, PhantomData<fn(Args) -> T>);

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
            "run",
            instance = runtime.instance,
            function = D::NAME,
            promise,
            version = runtime.runs.version(promise),
            trace_id = runtime.traced.trace_id(promise),
        );
        let run = async {
            let args = decode(args).map_err(|error| {
                errors::application(format!("the arguments of {} do not decode: {error}", D::NAME))
            })?;
            tracing::debug!("run begins");
            match AssertUnwindSafe(self.0.execute(env, args)).catch_unwind().await {
                Ok(result) => result.map_err(errors::plain),
                Err(panic) => {
                    Err(errors::application(format!("{} panicked: {}", D::NAME, text(&*panic))))
                }
            }
        };
        run.instrument(span).await
    }
}

/// Reads the arguments of a call. A single one stands in a list if the caller gave it as a tuple,
/// as the SDKs of other languages always do, and bare if it was given to the Rust SDK as it is.
fn decode<Args: DeserializeOwned>(args: Value) -> serde_json::Result<Args> {
    if let Some([single]) = args.as_array().map(Vec::as_slice)
        && let Ok(args) = serde_json::from_value(single.clone())
    {
        return Ok(args);
    }
    serde_json::from_value(args)
}

/// What a panic was given as its message.
fn text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_single_argument_is_read_bare_and_in_a_list() {
        assert_eq!(decode::<i64>(json!(5)).unwrap(), 5);
        assert_eq!(decode::<i64>(json!([5])).unwrap(), 5);
        assert_eq!(decode::<Vec<i64>>(json!([5])).unwrap(), [5]);
        assert_eq!(decode::<Vec<i64>>(json!([[5]])).unwrap(), [5]);
        assert_eq!(decode::<(i64, String)>(json!([5, "x"])).unwrap(), (5, "x".to_owned()));
        assert!(decode::<i64>(json!(["x"])).is_err());
    }
}
