//! `GET /flows/{id}`: the state of a flow and of each of its invocations.
//!
//! The ids of all invocations follow from the flow and its options, so each is asked for by its id.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use flows::{Answer, Flow, Options};
use futures_util::future::{try_join, try_join_all};
use node::server::Holder;
use serde::Serialize;
use serde_json::Value;
use wire::{Promise, PromiseState, Task, TaskState};

use crate::{
    app::App,
    client::{self, Client},
    held::Held,
    problem::Problem,
    request,
    trace_link::TraceLink,
};

/// A flow.
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub struct Inspection {
    /// Its id.
    id: String,
    /// Which of the flows it is.
    flow: &'static str,
    /// The state of the flow as a whole.
    #[cfg_attr(test, schema(schema_with = crate::openapi::state))]
    state: PromiseState,
    /// When it was started, in Unix milliseconds.
    created_at: i64,
    /// When it ended, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<i64>,
    /// The result of a flow that went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    /// The error of a flow that did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    trace: TraceLink,
    /// Its calls, callers first.
    invocations: Vec<InspectedInvocation>,
}

/// A call of a function.
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[derive(Serialize)]
struct InspectedInvocation {
    /// The function's name.
    function: &'static str,
    /// The id of its promise.
    id: String,
    /// Null: it has not been called yet.
    #[cfg_attr(test, schema(schema_with = crate::openapi::state_or_null))]
    state: Option<PromiseState>,
    /// It waits for a process to take it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    queued: bool,
    /// The process that holds it now.
    #[serde(flatten)]
    #[cfg_attr(test, schema(value_type = crate::openapi::PerhapsHeld))]
    held: Option<Held>,
}

/// Handles `GET /flows/{id}`.
pub async fn inspect(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Inspection>, Problem> {
    look(&app, &id_of(id)?).await.map(Json)
}

/// The id in a path.
pub fn id_of(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let Path(id) =
        path.map_err(|rejection| Problem::Unreadable(rejection.status(), rejection.body_text()))?;
    request::id("id", &id)
}

/// The first promise of the flow `id`, its flow and its options.
///
/// # Errors
/// There is no such flow, or the server is unreachable.
pub async fn first(
    client: &Client,
    id: &str,
) -> Result<(Promise<'static>, &'static Flow, Options), Problem> {
    let first = client.get(id).await?.ok_or_else(|| Problem::NoFlow(id.to_owned()))?;
    let (flow, options) = client::flow_of(&first).ok_or_else(|| Problem::NoFlow(id.to_owned()))?;
    Ok((first, flow, options))
}

/// Looks at the flow `id`.
///
/// # Errors
/// There is no such flow, or the server is unreachable.
pub async fn look(app: &App, id: &str) -> Result<Inspection, Problem> {
    let client = &app.client;
    let (first, flow, options) = first(client, id).await?;
    let invocations = flow.invocations(id, &options);
    let found = try_join_all(
        invocations.iter().map(|call| try_join(client.get(&call.id), client.task(&call.id, taken))),
    )
    .await?;

    let promises: Vec<_> = found.iter().map(|(promise, _)| promise.as_ref()).collect();
    let outcome = outcome(flow, &first, &promises);
    let state = outcome.map_or(PromiseState::Pending, |promise| promise.state);
    let (result, error) = match (state, outcome) {
        (PromiseState::Pending, _) | (_, None) => (None, None),
        (PromiseState::Resolved, Some(promise)) => (Some(client::value_of(promise)), None),
        (_, Some(promise)) => (None, Some(client::error_of(promise))),
    };
    let settled_at = outcome.and_then(|promise| promise.settled_at);
    let settled_at = settled_at.filter(|_| state != PromiseState::Pending);
    let trace = TraceLink::of(&first, app.settings.jaeger_url.as_deref());
    let invocations = invocations.into_iter().zip(found);
    let invocations = invocations.map(|(call, (promise, task))| {
        let (queued, holder) = now(promise.as_ref(), task);
        InspectedInvocation {
            queued,
            held: holder.map(|holder| Held::new(&app.settings, call.function.group, holder)),
            function: call.function.name,
            id: call.id,
            state: promise.map(|promise| promise.state),
        }
    });
    let invocations = invocations.collect();
    let id = id.to_owned();
    Ok(Inspection {
        id,
        flow: flow.name,
        state,
        created_at: first.created_at,
        settled_at,
        result,
        error,
        trace,
        invocations,
    })
}

/// Whether a task waits for a process, and the process that holds it.
fn taken(task: &Task) -> (bool, Option<Holder>) {
    let holder = task.pid.as_deref().filter(|_| task.state == TaskState::Acquired);
    (task.state == TaskState::Pending, holder.map(Holder::of))
}

/// What `taken` says of the task of a call, if the call has not ended. The two are read by requests of
/// their own, so the task may be the older one.
fn now(promise: Option<&Promise>, task: Option<(bool, Option<Holder>)>) -> (bool, Option<Holder>) {
    task.filter(|_| promise.is_some_and(Promise::is_pending)).unwrap_or_default()
}

/// The promise whose state is the flow's, once the flow that starts with `first` has ended.
///
/// # Errors
/// The server is unreachable.
pub async fn outcome_of(
    client: &Client,
    flow: &Flow,
    first: &Promise<'static>,
    options: &Options,
) -> Result<Option<Promise<'static>>, Problem> {
    let invocations = flow.invocations(&first.id, options);
    let found = try_join_all(invocations.iter().map(|call| client.get(&call.id))).await?;
    let found: Vec<_> = found.iter().map(Option::as_ref).collect();
    Ok(outcome(flow, first, &found).cloned())
}

/// The promise whose state is the flow's: the first one. If nobody awaits that, the flow has ended
/// once all its promises are settled, and the last one counts; or once one failed, for then nothing
/// comes after it. None: the flow has not ended.
fn outcome<'a>(
    flow: &Flow,
    first: &'a Promise<'static>,
    found: &[Option<&'a Promise<'static>>],
) -> Option<&'a Promise<'static>> {
    if let Answer::Result(_) = flow.answer {
        return Some(first);
    }
    let state = |promise: &&Promise| promise.state;
    let failed =
        found.iter().flatten().copied().find(|promise| {
            !matches!(state(promise), PromiseState::Pending | PromiseState::Resolved)
        });
    let resolved =
        |promise: &Option<&Promise>| promise.as_ref().map(state) == Some(PromiseState::Resolved);
    failed.or_else(|| if found.iter().all(resolved) { *found.last()? } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(state: PromiseState) -> Promise<'static> {
        let text = format!(
            r#"{{"id": "x", "state": "{}", "timeoutAt": 2, "createdAt": 1}}"#,
            state.as_str()
        );
        serde_json::from_str::<Promise>(&text).unwrap().into_owned()
    }

    #[test]
    fn nobody_holds_a_call_that_has_ended() {
        for (state, expected) in [(PromiseState::Pending, true), (PromiseState::Resolved, false)] {
            let task = (true, Some(Holder::of("b#1-x@host")));
            let (queued, holder) = now(Some(&promise(state)), Some(task));
            assert_eq!((queued, holder.is_some()), (expected, expected), "{state:?}");
        }
    }

    #[test]
    fn a_detached_flow_ends_with_all_its_functions_or_with_the_first_that_fails() {
        use PromiseState::{Pending, Rejected, Resolved};
        let flow = Flow::by_name("detached-chain").unwrap();
        for (states, expected) in [
            ([Some(Resolved), Some(Pending), None], None),
            ([Some(Resolved), Some(Resolved), Some(Pending)], None),
            // The last function can end before the one that called it has reported its own end.
            ([Some(Resolved), Some(Pending), Some(Resolved)], None),
            ([Some(Resolved), Some(Resolved), Some(Resolved)], Some(Resolved)),
            ([Some(Resolved), Some(Rejected), None], Some(Rejected)),
        ] {
            let found = states.map(|state| state.map(promise));
            let found: Vec<_> = found.iter().map(Option::as_ref).collect();
            let first = found[0].unwrap();
            let outcome = outcome(flow, first, &found).map(|promise| promise.state);
            assert_eq!(outcome, expected, "{states:?}");
        }
    }
}
