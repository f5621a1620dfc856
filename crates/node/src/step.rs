//! One checkpointed piece of work inside a function.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use resonate_otel::{Traced, TracedStep};
use resonate_sdk::{
    error::Result,
    prelude::{Context, Durable, DurableKind, ExecutionEnv},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{config::Config, recorded, server::Leases};

/// What every function of this process can reach, as a dependency of the SDK.
pub(crate) struct Runtime {
    pub instance: String,
    pub leases: Arc<Leases>,
    pub traced: Traced,
    pub attempts: usize,
    pub retry_delay: Duration,
    pub retry_max_delay: Duration,
}

impl Runtime {
    pub fn new(config: &Config, instance: &str, leases: Arc<Leases>, traced: Traced) -> Self {
        Self {
            instance: instance.to_owned(),
            leases,
            traced,
            attempts: config.attempts,
            retry_delay: config.retry_delay,
            retry_max_delay: config.retry_max_delay,
        }
    }
}

/// The delays between the attempts of a step: one less than there are attempts. Jitter makes each up to
/// twice as long.
fn backoff(attempts: usize, first: Duration, longest: Duration) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(first.min(longest))
        .with_max_delay(longest)
        .with_max_times(attempts - 1)
        .with_jitter()
        .build()
}

/// Runs `body` as a step called `name`. Its result is stored, and no later run of the function runs
/// it again. A step that is interrupted runs again from its start.
///
/// `body` gets the number of the attempt, from 1. A failed attempt is retried after a delay that
/// doubles, with jitter (`NODE_ATTEMPTS`, `NODE_RETRY_DELAY`, `NODE_RETRY_MAX_DELAY`).
///
/// # Errors
/// The error of the last attempt, which is stored like a result; or the run was abandoned; or
/// another step is recorded in this place, because the function was changed while its flow ran.
pub async fn step<T, F, Fut>(ctx: &Context, name: String, body: F) -> Result<T>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: Fn(u32) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    let done = Arc::new(OnceLock::new());
    let named = TracedStep::new(name.clone(), Named { body, done: done.clone() });
    let stored = ctx.run(named, name.clone()).await;
    // Not before the result is stored: until then the step can run again.
    if let (Ok(_), Some(Done { promise, attempt })) = (&stored, done.get()) {
        let log = async { tracing::info!(step = name, promise, attempt, "step done") };
        ctx.get_dependency::<Runtime>().traced.in_step(promise, log).await;
    }
    recorded::read(&name, stored)
}

/// A body that the SDK can run. The step's name is its argument.
struct Named<F> {
    body: F,
    /// Set when the body has succeeded in this run. A step that an earlier run completed leaves it.
    done: Arc<OnceLock<Done>>,
}

/// A step that succeeded.
struct Done {
    promise: String,
    attempt: u32,
}

impl<T, F, Fut> Durable<String, Value> for Named<F>
where
    T: Serialize + Send,
    F: Fn(u32) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    const NAME: &'static str = "step";
    const KIND: DurableKind = DurableKind::Function;

    async fn execute(&self, env: ExecutionEnv<'_>, name: String) -> Result<Value> {
        let info = env.into_info();
        let runtime = info.get_dependency::<Runtime>();
        let promise = info.id();
        tracing::info!(step = name, promise, "step started");
        let mut delays = backoff(runtime.attempts, runtime.retry_delay, runtime.retry_max_delay);
        let mut attempt = 1;
        loop {
            let error = match (self.body)(attempt).await {
                Ok(value) => {
                    self.done.get_or_init(|| Done { promise: promise.to_owned(), attempt });
                    return recorded::result(&name, &value);
                }
                Err(error) => error,
            };
            runtime.traced.step_failed(promise, &error);
            let Some(delay) = delays.next() else {
                tracing::warn!(step = name, promise, attempt, %error, "step failed, no attempts left");
                return Err(recorded::error(&name, &error));
            };
            tracing::warn!(step = name, promise, attempt, %error, ?delay, "step failed, retrying");
            runtime.traced.step_retried(promise);
            tokio::time::sleep(delay).await;
            attempt += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_and_are_one_less_than_the_attempts() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        let delays: Vec<_> = backoff(7, first, longest).collect();
        assert_eq!(delays.len(), 6);
        assert!(backoff(3, longest * 10, longest).all(|delay| delay <= 2 * longest));
        for (n, delay) in delays.iter().enumerate() {
            let least = (first * 2_u32.pow(n as u32)).min(longest);
            assert!((least..=2 * least).contains(delay), "delay {n}: {delay:?}");
        }
    }
}
