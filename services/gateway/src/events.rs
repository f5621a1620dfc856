//! `GET /flows/{id}/events`: what happens in a flow, as server-sent events, for its page.
//!
//! Each event `state` holds all that is to be drawn; a flow of 600 steps too is a few kilobytes. Its id
//! names that state: a client that comes back with the id of the current one gets nothing until there is
//! news.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{FutureExt, stream};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    app::App,
    problem::Problem,
    request,
    timeline::{Published, Viewer},
};

/// A client that hears nothing for longer than twice this should connect again.
const PING: Duration = Duration::from_secs(5);

/// One client.
struct Client {
    viewer: Viewer,
    app: App,
    /// The state that it has.
    has: Option<String>,
    /// What it gets first.
    first: Option<Published>,
    ended: bool,
    _permits: [OwnedSemaphorePermit; 2],
}

/// Handles `GET /flows/{id}/events`.
pub async fn events(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(id) =
        id.map_err(|rejection| Problem::Unreadable(rejection.status(), rejection.body_text()))?;
    let id = request::id("id", &id)?;
    // A viewer takes a connection, like a request that waits.
    let permit = |of: &std::sync::Arc<tokio::sync::Semaphore>| of.clone().try_acquire_owned();
    let (Ok(viewer), Ok(room)) = (permit(&app.viewers), permit(&app.room)) else {
        return Err(Problem::Full);
    };
    let permits = [viewer, room];
    let mut viewer = app.watchers.watch(&id)?;
    let first = match viewer.next().await {
        Some(Published::Unknown) | None => return Err(Problem::NoFlow(id)),
        Some(Published::Failed(error)) => return Err(Problem::from(&*error)),
        first => first,
    };
    // Browsers send the header only if they connect again by themselves.
    let query = query.unwrap_or_default();
    let has = form_urlencoded::parse(query.as_bytes());
    let has = has.into_owned().find(|(name, _)| name == "last-event-id").map(|(_, id)| id);
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let has = header.or(has);
    let client = Client { viewer, app, has, first, ended: false, _permits: permits };
    let events = stream::unfold(client, async |mut client| {
        let event = client.next().await?;
        Some((Ok::<_, Infallible>(event), client))
    });
    let keep_alive = KeepAlive::new().interval(PING).event(Event::default().event("ping").data(""));
    // Some proxies would collect the events.
    let unbuffered =
        [(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))];
    Ok((unbuffered, Sse::new(events).keep_alive(keep_alive)).into_response())
}

impl Client {
    /// The next event. None: nothing comes after the last one.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let published = match self.first.take() {
                Some(first) => first,
                None if self.ended => return None,
                None => {
                    let mut stopping = self.app.stopping.clone();
                    let stop = stopping.wait_for(|stopping| *stopping).map(|_| false);
                    let changed = tokio::select! {
                        biased;
                        stop = stop => stop,
                        changed = self.viewer.changed() => changed,
                    };
                    if !changed {
                        return None;
                    }
                    self.viewer.next().await?
                }
            };
            let Published::State { id, json, complete, ahead } = published else { return None };
            self.ended = complete;
            if self.has.as_deref() == Some(&*id) {
                continue;
            }
            let now = crate::timeline::own_clock() + ahead;
            let text = format!("{{\"now\":{now},\"state\":{json}}}");
            self.has = Some(id.to_string());
            return Some(Event::default().event("state").id(&*id).data(text));
        }
    }
}
