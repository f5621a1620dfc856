//! `POST /instances/{group}/{instance}/crash`: kills a process by a message to it and no other, for
//! demonstrations. The route is there only if `NODE_CRASH_BUTTON` is set.
//!
//! The message is a promise with the address `poll://uni@group/instance`. [`node::crash`] says why the
//! process gets it once. It is no part of a flow: its context is not sampled, so it has no spans.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State, rejection::PathRejection},
    routing::post,
};
use flows::FLOWS;
use node::crash::FUNCTION;
use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    context::FutureExt,
    trace::{SpanContext, TraceContextExt, TraceState},
};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use wire::{Address, PromiseState};

use crate::{
    app::App,
    client::{Client, Run},
    held::Held,
    problem::Problem,
    request,
    settings::Settings,
};

/// A process that is well takes the call within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the gateway looks whether the process has taken the call.
const POLL: Duration = Duration::from_millis(20);

/// A process that holds the call for this long is dead. One that does not have the function releases
/// the call before that.
const CERTAIN: Duration = Duration::from_millis(250);

/// How long the server may take to notice that the call has timed out.
const LATE: Duration = Duration::from_millis(300);

/// The route, if there is one.
pub fn routes(settings: &Settings) -> Router<App> {
    match settings.node.crash_button {
        true => Router::new().route("/instances/{group}/{instance}/crash", post(crash)),
        false => Router::new(),
    }
}

/// 200: the process is dead.
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Crashed {
    /// What has happened.
    message: String,
    /// The name that all replicas of the service share.
    group: String,
    #[serde(flatten)]
    held: Held,
}

async fn crash(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Crashed>, Problem> {
    let Path((group, instance)) =
        path.map_err(|rejection| Problem::Unreadable(rejection.status(), rejection.body_text()))?;
    let instance = request::id("instance", &instance)?;
    if !FLOWS.iter().flat_map(|flow| flow.functions).any(|function| function.group == group) {
        return Err(Problem::NoService(group));
    }
    // Shorter than the lease: the call of a process that has died never goes to another one.
    let patience = PATIENCE.min(app.settings.node.lease * 2 / 3);
    let id = format!("crash-{}", Uuid::new_v4().simple());
    let address = Address::only(&group, &instance);
    let call = app.client.call(&id, FUNCTION, &address, patience).with_context(unsampled());
    call.await?;
    match fate(&app.client, &id, patience).await? {
        Fate::Dead(run, since) => {
            let held = Held::new(&app.settings, &group, run.holder);
            app.watchers.crashed(&group, &held, since.elapsed());
            Ok(Json(Crashed { message: format!("{instance} has crashed"), held, group }))
        }
        Fate::Alive => Err(Problem::Alive(instance)),
        Fate::Silent => Err(Problem::Silent { instance, patience }),
    }
}

/// An unsampled context: no process emits spans for the call.
fn unsampled() -> Context {
    let (trace, span) = Uuid::new_v4().as_u64_pair();
    let trace = TraceId::from(u128::from(trace) << 64 | u128::from(span));
    let span = SpanId::from(span);
    let span = SpanContext::new(trace, span, TraceFlags::NOT_SAMPLED, true, TraceState::NONE);
    Context::new().with_remote_span_context(span)
}

/// What became of the process that was called.
enum Fate {
    /// It took the call at this moment and still holds it: a live process would have released it.
    Dead(Run, Instant),
    /// It has given the call back.
    Alive,
    /// It has not taken the call.
    Silent,
}

/// Waits until it is known what became of the process that the promise `id` calls.
async fn fate(client: &Client, id: &str, patience: Duration) -> Result<Fate, Problem> {
    let end = Instant::now() + patience + LATE;
    let mut taken: Option<(Run, Instant)> = None;
    loop {
        sleep(POLL).await;
        let now = Instant::now();
        let run = client.run(id).await?;
        let Some((first, since)) = &taken else {
            match run {
                Some(run) => taken = Some((run, now)),
                None if now >= end => return Ok(Fate::Silent),
                None => {}
            }
            continue;
        };
        if run.as_ref() == Some(first) {
            if now - *since >= CERTAIN {
                return Ok(Fate::Dead(first.clone(), *since));
            }
            continue;
        }
        let promise = client.get(id).await?;
        return Ok(match promise.as_ref().map(|promise| promise.state) {
            // It was held until then.
            Some(PromiseState::RejectedTimedout) => Fate::Dead(first.clone(), *since),
            _ => Fate::Alive,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use serde_json::{Value, json};
    use wire::scripted::{Reply, Scripted};

    use super::*;

    /// What becomes of a process whose call is in these states at the first looks, and in the last one
    /// from then on: a version means that it is held.
    async fn fate_of(
        states: &'static [Option<i64>],
        promise: &'static str,
    ) -> Result<Fate, Problem> {
        let looks = AtomicUsize::new(0);
        let server = Scripted::new(move |kind, _| {
            if kind == "promise.get" {
                let promise = json!({"id": "x", "state": promise, "timeoutAt": 2, "createdAt": 1});
                return Reply::Answer(200, json!({"promise": promise}));
            }
            let look = looks.fetch_add(1, Ordering::Relaxed);
            let state = states[look.min(states.len() - 1)];
            let mut task: Value = json!({"id": "x", "state": "pending", "version": 0});
            if let Some(version) = state {
                task =
                    json!({"id": "x", "state": "acquired", "version": version, "pid": "b#1-a@h"});
            }
            Reply::Answer(200, json!({"task": task}))
        });
        fate(&Client::new(Arc::new(server)), "x", PATIENCE).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_keeps_the_call_is_dead_and_one_that_gives_it_back_is_not() {
        let start = Instant::now();
        let Ok(Fate::Dead(run, _)) = fate_of(&[None, Some(1)], "pending").await else {
            panic!("it is dead")
        };
        assert_eq!((run.version, run.holder.pid), (1, Some(1)));
        assert!(start.elapsed() < 2 * CERTAIN);
        assert!(matches!(fate_of(&[Some(1), None], "pending").await, Ok(Fate::Alive)));
        assert!(matches!(fate_of(&[Some(1), Some(2)], "pending").await, Ok(Fate::Alive)));
        // The dead hold it until it times out, which is soon if the lease is short.
        assert!(matches!(fate_of(&[Some(1), None], "rejected_timedout").await, Ok(Fate::Dead(..))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_does_not_take_the_call_is_waited_for_less_than_three_seconds() {
        let start = Instant::now();
        assert!(matches!(fate_of(&[None], "pending").await, Ok(Fate::Silent)));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
}
