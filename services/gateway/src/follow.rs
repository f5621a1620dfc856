//! Follows the flows that no request waits for: their request was answered with 202, its client did
//! not ask for the result, or hung up. The page starts such flows.

use flows::{Answer, Flow, Options};
use tokio::{sync::Semaphore, time::Instant};
use wire::{Promise, PromiseState};

use crate::{app::App, stats::Event, waiters::Waiters};

/// Flows that are followed at once: each listens to one promise. The end of a further one is not counted.
static ROOM: Semaphore = Semaphore::const_new(1_000);

/// Counts the end of a flow that this gateway has created at `since`.
pub fn follow(
    app: &App,
    flow: &'static Flow,
    first: Promise<'static>,
    options: Options,
    since: Instant,
) {
    let Ok(room) = ROOM.try_acquire() else { return };
    let app = app.clone();
    tokio::spawn(async move {
        let _room = room;
        let mut stopping = app.stopping.clone();
        tokio::select! {
            end = end(&app.waiters, flow, &first.id, &options) => if let Some(state) = end {
                app.stats.count(Event::end(state));
                app.look_back.ended(&first, &options, since.elapsed());
            },
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    });
}

/// A flow that a request waits for. If this is dropped before [`Self::ended`], the flow is followed.
pub struct Unattended<'a> {
    app: &'a App,
    flow: &'static Flow,
    first: Option<Promise<'static>>,
    options: Options,
    since: Instant,
}

impl<'a> Unattended<'a> {
    /// `counts`: whether this request has created the flow. The end of others is counted elsewhere.
    pub fn new(
        app: &'a App,
        flow: &'static Flow,
        first: Promise<'static>,
        options: Options,
        since: Instant,
        counts: bool,
    ) -> Self {
        Self { app, flow, first: Some(first).filter(|_| counts), options, since }
    }

    /// The request knows how it ended.
    pub fn ended(mut self) {
        self.first = None;
    }
}

impl Drop for Unattended<'_> {
    fn drop(&mut self) {
        if let Some(first) = self.first.take() {
            follow(self.app, self.flow, first, self.options, self.since);
        }
    }
}

/// The state of the flow `id` when it has ended: that of its first promise; or, if nobody awaits that, of the
/// last one, or of the first that fails. None: the server has lost the flow.
async fn end(waiters: &Waiters, flow: &Flow, id: &str, options: &Options) -> Option<PromiseState> {
    let mut calls = flow.invocations(id, options);
    if let Answer::Result(_) = flow.answer {
        calls.truncate(1);
    }
    let mut state = None;
    for call in calls {
        // A function creates the promise of the next one before its own is settled.
        state = Some(waiters.settlement(&call.id).await?.state);
        if state != Some(PromiseState::Resolved) {
            break;
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use node::server::Listener;
    use serde_json::json;
    use wire::scripted::{Reply, Scripted};

    use super::*;
    use crate::client::Client;

    /// How a flow ends whose promises are in these states when they are listened to.
    async fn end_of(flow: &str, states: &[&'static str]) -> Option<PromiseState> {
        let (flow, options) = (Flow::by_name(flow).unwrap(), Options::default());
        let ids = flow.invocations("x", &options).into_iter().map(|call| call.id);
        let states: Vec<_> = ids.zip(states.to_vec()).collect();
        let server = Scripted::new(move |_, data| {
            let Some((id, state)) = states.iter().find(|(id, _)| data["awaited"] == **id) else {
                return Reply::Answer(404, json!("Awaited promise not found"));
            };
            let promise = json!({"id": id, "state": state, "timeoutAt": 2, "createdAt": 1});
            Reply::Answer(200, json!({"promise": promise}))
        });
        let waiters = Waiters::new(Client::new(Arc::new(server)));
        waiters.connected("one");
        end(&waiters, flow, "x", &options).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_detached_flow_ends_with_its_last_function_or_with_one_that_fails() {
        use PromiseState::{Rejected, RejectedCanceled, Resolved};
        let (done, failed) = ("resolved", "rejected");
        assert_eq!(end_of("detached-chain", &[done, done, done]).await, Some(Resolved));
        assert_eq!(end_of("detached-chain", &[done, done, failed]).await, Some(Rejected));
        assert_eq!(
            end_of("detached-chain", &[done, "rejected_canceled"]).await,
            Some(RejectedCanceled)
        );
        assert_eq!(end_of("detached-chain", &[done, done]).await, None, "the server has lost it");
        // The first function waits for the others.
        assert_eq!(end_of("await-chain", &[done]).await, Some(Resolved));
    }
}
