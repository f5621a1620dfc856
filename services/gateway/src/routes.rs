//! The gateway's routes, and what a `POST` does: start a flow, or find it, and wait for its result.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, RawQuery, Request as HttpRequest, State},
    http::{HeaderMap, Method, StatusCode, Uri, header::LOCATION},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use flows::{Answer, FLOWS, Flow};
use node::health;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use wire::{Promise, PromiseState};

use crate::{
    access::{self, Access},
    app::App,
    cancel,
    client::{self, Created},
    conflict, crash, events,
    follow::{Unattended, follow},
    hosts::{self, Hosts},
    inspect, limit, measured, origin, page,
    problem::Problem,
    request::{self, Request},
    span::RequestSpan,
    stats::Event,
    trace_link::{Ids, TraceLink},
};

/// All routes. Those of health checks are open to all clients, whatever `access` asks for.
pub fn routes(app: App, access: Access) -> Router {
    let mut router = Router::new();
    for flow in FLOWS {
        let start_flow = async |State(app): State<App>,
                                RawQuery(query): RawQuery,
                                headers: HeaderMap,
                                request: HttpRequest| {
            let mut span = RequestSpan::begin(&app.tracer, flow, &request);
            let started = async {
                request::read_body(request).await?;
                start(app, flow, &query.unwrap_or_default(), &headers, &mut span).await
            };
            let response = started.await.into_response();
            // If the span is dropped before this, it records that the client hung up.
            span.answered(response.status());
            response
        };
        router = router.route(&flow.route(), post(start_flow));
    }
    let no_method = async |method: Method| Problem::Method(method.to_string());
    router = router
        .route("/flows/{id}/events", get(events::events))
        .merge(page::routes())
        .route("/flows/{id}", delete(cancel::cancel))
        .merge(crash::routes(&app.settings))
        .route("/stats", get(async |State(app): State<App>| app.stats.answer()))
        .fallback(async |uri: Uri| Problem::NoRoute(uri.path().to_owned()))
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(origin::check));
    if let Some(tokens) = access {
        router = router.layer(from_fn_with_state(tokens, access::check));
    }
    router = router.layer(from_fn_with_state(Hosts::of(&app.settings), hosts::check));
    limit::limited(router, &app.settings)
        .merge(health::routes(app.up.clone()).method_not_allowed_fallback(no_method))
        .layer(from_fn_with_state(app.metrics.clone(), measured::measure))
        .layer(DefaultBodyLimit::max(request::LARGEST_BODY))
        .with_state(app)
}

/// 200: the flow's result, or that it was started.
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Success {
    /// The result. A detached flow answers that it is started or done.
    message: Value,
    #[serde(flatten)]
    ids: Ids,
}

/// 202: the flow takes longer than a request waits.
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Pending {
    #[cfg_attr(test, schema(schema_with = crate::openapi::state))]
    state: PromiseState,
    #[serde(flatten)]
    ids: Ids,
}

async fn start(
    app: App,
    flow: &'static Flow,
    query: &str,
    headers: &HeaderMap,
    span: &mut RequestSpan,
) -> Result<Response, Problem> {
    let Request { id, options } = Request::read(query, headers)?;
    let since = Instant::now();
    // Held until the request is answered.
    let Ok(_room) = app.room.try_acquire() else { return Err(Problem::Full) };
    let id = id.unwrap_or_else(|| flow.name.to_owned());
    // A client that hangs up ends this future, but not the creation: the tracing layer runs that in
    // a task of its own.
    let create = app.client.create(flow, &id, &options, app.settings.flow_timeout);
    let Created { promise, reconnected } = span.flow(flow).start(create).await?;
    if reconnected {
        conflict::check(&promise, flow, &id, &options)?;
    } else {
        app.stats.count(Event::Started);
    }
    let trace = TraceLink::of(&promise, app.settings.jaeger_url.as_deref());
    let ids = Ids { id: id.clone(), trace, reconnected };
    // A browser's page shows how the flow goes on, so it does not wait for the result.
    let at_once = request::responds_async(headers);
    let wait = if at_once { Duration::ZERO } else { app.settings.wait };
    let promise = match flow.answer {
        Answer::Result(_) if promise.is_pending() => {
            // Follows the flow if the client hangs up, or the request may not wait until the end.
            let unattended = Unattended::new(&app, flow, promise, options, since, !reconnected);
            match settled(&app, &id, wait).await {
                Wait::Settled(promise) => {
                    unattended.ended();
                    promise
                }
                Wait::Forgotten => {
                    unattended.ended();
                    return Err(Problem::Forgotten(id));
                }
                Wait::Over => {
                    let location = [(LOCATION, format!("/flows/{id}"))];
                    let body = Json(Pending { state: PromiseState::Pending, ids });
                    return Ok((StatusCode::ACCEPTED, location, body).into_response());
                }
            }
        }
        Answer::Result(_) => promise,
        Answer::AtOnce(text) => {
            let outcome = match reconnected {
                true => inspect::outcome_of(&app.client, flow, &promise, &options).await?,
                false => None,
            };
            // Following every flow would often cost more requests than the flow itself.
            if !reconnected && at_once {
                follow(&app, flow, promise, options, since);
            }
            match outcome {
                Some(promise) if promise.state != PromiseState::Resolved => promise,
                ended => {
                    let message = ended.map_or_else(|| text.into(), |_| flow.message_again());
                    return Ok(Json(Success { message, ids }).into_response());
                }
            }
        }
    };
    if !reconnected {
        // Each flow is counted once, however many requests wait for it.
        app.stats.count(Event::end(promise.state));
        app.look_back.ended(&promise, &options, since.elapsed());
    }
    match promise.state {
        PromiseState::Resolved => {
            Ok(Json(Success { message: client::value_of(&promise), ids }).into_response())
        }
        PromiseState::RejectedCanceled => Err(Problem::Canceled { flow, ids }),
        PromiseState::RejectedTimedout => Err(Problem::TimedOut { flow, ids }),
        _ => Err(Problem::Failed { flow, ids, error: client::error_of(&promise) }),
    }
}

/// What a request has waited for.
enum Wait {
    /// The flow's first promise is settled.
    Settled(Promise<'static>),
    /// The server does not know it any more.
    Forgotten,
    /// The request may not wait any longer, or the gateway stops.
    Over,
}

/// Waits for the promise `id` to be settled, as long as a request may wait.
async fn settled(app: &App, id: &str, wait: Duration) -> Wait {
    let mut stopping = app.stopping.clone();
    tokio::select! {
        promise = app.waiters.settlement(id) => promise.map_or(Wait::Forgotten, Wait::Settled),
        () = tokio::time::sleep(wait) => Wait::Over,
        _ = stopping.wait_for(|stopping| *stopping) => Wait::Over,
    }
}
