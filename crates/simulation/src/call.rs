//! Calls of functions, for main programs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node::{
    config::Config,
    server::{self, ConnectionId},
};
use serde::{Serialize, de::DeserializeOwned};
use wire::{
    Address, Exchange, Pairs, Promise, PromiseState, PromiseValue, Request, call,
    operation::{Get, PromiseCreate},
    tag,
};

use crate::{Process, settings};

/// The first and the longest pause before a result is asked for again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

impl Process {
    /// Calls `function` of `group`, and waits for its result. `args` are its arguments: a tuple.
    ///
    /// # Errors
    /// The error that the function ended with, or that the call timed out.
    pub async fn call<T: DeserializeOwned>(
        &self,
        id: &str,
        group: &str,
        function: &str,
        args: impl Serialize,
    ) -> Result<T, String> {
        let config: Config = settings(&[]);
        let connection = ConnectionId::Instance(self.instance.clone());
        let transport = self.transport.clone();
        let (exchange, _) =
            server::client(&config, &self.instance, connection, transport, &self.telemetry);
        let timeout_at = SystemTime::now() + TIMEOUT;
        let timeout_at = timeout_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let target = Address::any(group).to_string();
        let create = PromiseCreate {
            id: id.into(),
            timeout_at: timeout_at.as_millis() as i64,
            param: PromiseValue { headers: None, data: Some(call::encode(function, &args).into()) },
            tags: Pairs::from_iter([
                (tag::ORIGIN, id),
                (tag::BRANCH, id),
                (tag::PARENT, id),
                (tag::SCOPE, "global"),
                (tag::TARGET, &target),
            ]),
        };
        let create = Request::new("promise.create", &create);
        let get = Request::new("promise.get", &Get { id: id.into() });
        let mut request = create;
        let mut pause = PAUSES.0;
        loop {
            if let Ok(answer) = exchange.exchange(request.clone()).await
                && let Some(promise) = answer.promise()
            {
                if !promise.is_pending() {
                    return result(promise);
                }
                request = get.clone();
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

fn result<T: DeserializeOwned>(promise: &Promise) -> Result<T, String> {
    match promise.state {
        PromiseState::Resolved => {
            call::decode_value(promise.value.data()).map_err(|error| error.to_string())
        }
        state => Err(promise.error().unwrap_or_else(|| state.as_str().to_owned())),
    }
}
