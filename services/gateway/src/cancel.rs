//! `DELETE /flows/{id}`: cancels a flow. Every promise of it that is pending is settled as canceled.
//!
//! Callers are canceled first. Settling a promise ends its task, so a canceled function creates no
//! further promises, and the calls that it made do not resume it. Only those are left to cancel.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use flows::{Answer, Flow, Invocation, Options};
use wire::PromiseState;

use crate::{
    app::App,
    client::{self, Client},
    inspect::{self, Inspection},
    problem::Problem,
};

/// Handles `DELETE /flows/{id}`: it answers as `GET` does. A flow that has ended stays as it is.
pub async fn cancel(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Inspection>, Problem> {
    let id = inspect::id_of(id)?;
    // In a task of its own: a client that hangs up does not leave half a flow behind.
    let canceled = tokio::spawn(async move {
        let (first, flow, options) = inspect::first(&app.client, &id).await?;
        let outcome = inspect::outcome_of(&app.client, flow, &first, &options).await?;
        // A gateway that died amid a cancel has left pending promises behind.
        let is_open =
            |state| matches!(state, PromiseState::Pending | PromiseState::RejectedCanceled);
        if outcome.is_none_or(|promise| is_open(promise.state)) {
            tracing::info!(promise = id, "canceling a flow");
            cancel_all(&app.client, flow, &id, &options).await?;
        }
        inspect::look(&app, &id).await.map(Json)
    });
    canceled.await.unwrap_or_else(|error| Err(Problem::Internal(error.to_string())))
}

/// Cancels the promises of the flow `id` that are pending.
async fn cancel_all(
    client: &Client,
    flow: &Flow,
    id: &str,
    options: &Options,
) -> Result<(), client::Error> {
    for call in flow.invocations(id, options) {
        let Some(promise) = client.cancel(&call.id).await? else { continue };
        let is_canceled = promise.state == PromiseState::RejectedCanceled;
        // It has ended meanwhile.
        if !is_canceled && call.id == id && matches!(flow.answer, Answer::Result(_)) {
            return Ok(());
        }
        if is_canceled {
            cancel_checkpoint(client, &call, options).await?;
        }
    }
    Ok(())
}

/// Cancels the step or timer of a function that is pending. A function has one at a time: the last one
/// that it has created.
async fn cancel_checkpoint(
    client: &Client,
    call: &Invocation,
    options: &Options,
) -> Result<(), client::Error> {
    // How many of them exist lies between these.
    let (mut least, mut most) = (0, call.function.checkpoints(options).len());
    while least < most {
        let middle = least + (most - least) / 2;
        match client.get(&format!("{}.{middle}", call.id)).await? {
            Some(_) => least = middle + 1,
            None => most = middle,
        }
    }
    if let Some(last) = least.checked_sub(1) {
        client.cancel(&format!("{}.{last}", call.id)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use serde_json::{Value, json};
    use wire::scripted::{Reply, Scripted};

    use super::*;

    type Promises = Arc<Mutex<BTreeMap<String, &'static str>>>;

    /// A server with these promises, which changes them as it is asked to.
    fn server(promises: &[(&str, &'static str)]) -> (Scripted, Promises) {
        let owned = promises.iter().map(|(id, state)| ((*id).to_owned(), *state));
        let promises: Promises = Arc::new(Mutex::new(owned.collect()));
        let known = promises.clone();
        let scripted = Scripted::new(move |kind, data| {
            let id = data["id"].as_str().unwrap();
            let mut known = known.lock().unwrap();
            let Some(state) = known.get_mut(id) else {
                return Reply::Answer(404, json!("not found"));
            };
            if kind == "promise.settle" && *state == "pending" {
                assert_eq!(data["state"], "rejected_canceled");
                *state = "rejected_canceled";
            }
            let promise = json!({"id": id, "state": *state, "timeoutAt": 2, "createdAt": 1});
            Reply::Answer(200, json!({"promise": promise}))
        });
        (scripted, promises)
    }

    /// Cancels a flow of these promises, and returns the ids in the order in which they were settled.
    async fn canceled(
        flow: &str,
        options: Options,
        promises: &[(&str, &'static str)],
    ) -> (Vec<String>, usize) {
        let (server, promises) = server(promises);
        let client = Client::new(Arc::new(server.clone()));
        let flow = Flow::by_name(flow).unwrap();
        cancel_all(&client, flow, "x", &options).await.unwrap();
        assert!(promises.lock().unwrap().values().all(|state| *state != "pending"));
        let settles = |(kind, _): &(String, Value)| kind == "promise.settle";
        let seen = server.seen();
        let requests = seen.len();
        let id = |(_, data): (String, Value)| data["id"].as_str().unwrap().to_owned();
        (seen.into_iter().filter(settles).map(id).collect(), requests)
    }

    #[tokio::test]
    async fn callers_are_canceled_first_and_then_the_checkpoint_that_is_pending() {
        let options = Options { work: Some(Duration::from_secs(600)), ..Options::default() };
        let mut promises = vec![("x", "pending"), ("x.0", "pending")];
        let done: Vec<String> = (0..399).map(|n| format!("x.0.{n}")).collect();
        promises.extend(done.iter().map(|id| (id.as_str(), "resolved")));
        promises.push(("x.0.399", "pending"));
        let (settled, requests) = canceled("await-chain", options, &promises).await;
        // The last one does not exist.
        assert_eq!(settled, ["x", "x.0", "x.0.399", "x.0.600"]);
        assert!(requests < 20, "{requests}");
    }

    #[tokio::test]
    async fn a_flow_that_ends_meanwhile_stays_as_it_is_unless_nobody_awaits_it() {
        let options = Options::default();
        let (settled, _) = canceled("fan-out-workflow", options, &[("x", "resolved")]).await;
        assert_eq!(settled, ["x"]);
        let quz = Flow::by_name("detached-chain").unwrap().invocations("x", &options)[1].id.clone();
        let promises = [("x", "resolved"), (&*quz, "pending")];
        let (settled, _) = canceled("detached-chain", options, &promises).await;
        assert_eq!(settled[..2], ["x".to_owned(), quz]);
    }
}
