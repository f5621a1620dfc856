//! The gateway's HTTP interface.

use std::time::Duration;

use axum::{
    Json, Router,
    body::{Bytes, HttpBody},
    extract::{
        DefaultBodyLimit, FromRequest, Path, RawQuery, Request as HttpRequest, State,
        rejection::PathRejection,
    },
    http::{HeaderMap, Method, StatusCode, Uri, header::LOCATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use axum_tracing_opentelemetry::middleware::OtelAxumLayer;
use futures_util::future::{try_join, try_join_all};
use node::health;
use resonate_sdk::{prelude::PromiseState, types::PromiseRecord};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    client::{self, Client, Created},
    config::Config,
    flow::{Flow, Invocation},
    ids::{Ids, Trace},
    problem::Problem,
    request::{self, Request},
};

/// Bodies are ignored, but for their length.
const LARGEST_BODY: usize = 16 * 1024;

/// A client that sends its body slower than this is not waited for.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the routes share.
#[derive(Clone)]
pub struct App {
    /// The client of the Resonate Server.
    pub client: Client,
    /// The gateway's settings.
    pub config: Config,
    /// Whether the message stream to the server is up.
    pub up: watch::Receiver<bool>,
    /// Whether the gateway is to stop: requests that wait are then answered 202.
    pub stopping: watch::Receiver<bool>,
}

/// All routes.
pub fn app(state: App) -> Router {
    let flow = |flow: Flow| {
        post(
            async move |State(app): State<App>,
                        RawQuery(query): RawQuery,
                        headers: HeaderMap,
                        request: HttpRequest| {
                read_body(request).await?;
                start(app, flow, &query.unwrap_or_default(), &headers).await
            },
        )
    };
    let mut router = Router::new();
    for each in Flow::ALL {
        router = router.route(&format!("/{}", each.name()), flow(each));
    }
    router
        .route("/flows/{id}", get(inspect))
        .layer(OtelAxumLayer::default())
        // Outside of the tracing layer: nobody wants a trace of each health check.
        .merge(health::routes(state.up.clone()))
        .fallback(async |uri: Uri| Problem::NoRoute(uri.path().to_owned()))
        .method_not_allowed_fallback(async |method: Method| Problem::Method(method.to_string()))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(state)
}

async fn read_body(request: HttpRequest) -> Result<(), Problem> {
    let too_large = || {
        let detail = format!("bodies are ignored, and at most {LARGEST_BODY} bytes long");
        Problem::Body(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    // What is announced as too long need not be waited for.
    if request.body().size_hint().lower() > LARGEST_BODY as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(too_large())
        }
        Ok(Err(rejection)) => Err(Problem::Body(rejection.status(), rejection.body_text())),
        Err(_) => Err(Problem::Body(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body was not complete within {BODY_TIMEOUT:?}"),
        )),
    }
}

/// The answer to a request that a flow's result, or its start, was known for.
#[derive(Serialize)]
struct Success {
    message: Value,
    #[serde(flatten)]
    ids: Ids,
}

/// The answer to a request whose flow takes longer than a request waits.
#[derive(Serialize)]
struct Pending {
    state: PromiseState,
    #[serde(flatten)]
    ids: Ids,
}

async fn start(
    app: App,
    flow: Flow,
    query: &str,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let Request { id, options } = Request::read(query, headers)?;
    let id = id.unwrap_or_else(|| flow.name().to_owned());
    // In a task of its own: a client that hangs up ends this future, and must not end the start.
    let create = tokio::spawn({
        let (client, id, timeout) = (app.client.clone(), id.clone(), app.config.flow_timeout);
        // Under the request's span, which is the parent of the call's.
        resonate_otel::in_current_context(async move {
            client.create(flow, &id, options, timeout).await
        })
    });
    let Created { promise, reconnected } =
        create.await.map_err(|error| Problem::Internal(error.to_string()))??;
    let ids = Ids { trace: Trace::of(&promise, &app.config), id: id.clone(), reconnected };
    if flow == Flow::DetachedChain {
        return Ok(Json(Success { message: "detached-chain started".into(), ids }).into_response());
    }
    let Some(promise) = settled(&app, promise).await else {
        let location = [(LOCATION, format!("/flows/{id}"))];
        let body = Json(Pending { state: PromiseState::Pending, ids });
        return Ok((StatusCode::ACCEPTED, location, body).into_response());
    };
    match promise.state {
        PromiseState::Resolved => {
            Ok(Json(Success { message: client::value_of(&promise), ids }).into_response())
        }
        PromiseState::RejectedTimedout => Err(Problem::TimedOut { flow, ids }),
        _ => Err(Problem::Failed { flow, ids, error: client::error_of(&promise) }),
    }
}

/// Waits for a promise to be settled, for as long as a request may wait.
async fn settled(app: &App, promise: PromiseRecord) -> Option<PromiseRecord> {
    if promise.state != PromiseState::Pending {
        return Some(promise);
    }
    let mut stopping = app.stopping.clone();
    tokio::select! {
        promise = app.client.settlement(&promise.id) => Some(promise),
        () = tokio::time::sleep(app.config.wait) => None,
        _ = stopping.wait_for(|stopping| *stopping) => None,
    }
}

/// `GET /flows/{id}`.
#[derive(Serialize)]
struct Inspection {
    id: String,
    flow: &'static str,
    state: PromiseState,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    trace: Trace,
    invocations: Vec<InspectedInvocation>,
}

#[derive(Serialize)]
struct InspectedInvocation {
    function: &'static str,
    id: String,
    /// None: it was not called yet.
    state: Option<PromiseState>,
    /// The process that runs it at this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

async fn inspect(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Inspection>, Problem> {
    let Path(id) =
        id.map_err(|rejection| Problem::Body(rejection.status(), rejection.body_text()))?;
    let id = request::id("id", &id)?;
    let root = app.client.promise(&id).await?.ok_or_else(|| Problem::NoFlow(id.clone()))?;
    let (flow, options) = client::call_of(&root).ok_or_else(|| Problem::NoFlow(id.clone()))?;
    let invocations = flow.invocations(&id, &options);
    let found = try_join_all(
        invocations
            .iter()
            .map(|Invocation { id, .. }| try_join(app.client.promise(id), app.client.holder(id))),
    )
    .await?;

    let trace = Trace::of(&root, &app.config);
    let outcome = outcome(flow, root, found.iter().filter_map(|(promise, _)| promise.as_ref()));
    let state = outcome.as_ref().map_or(PromiseState::Pending, |promise| promise.state.clone());
    let resolved = outcome.as_ref().filter(|_| state == PromiseState::Resolved);
    let failed = outcome
        .as_ref()
        .filter(|_| !matches!(state, PromiseState::Resolved | PromiseState::Pending));
    let inspected =
        |(Invocation { function, id }, (promise, instance)): (_, (Option<PromiseRecord>, _))| {
            InspectedInvocation {
                function,
                id,
                state: promise.map(|promise| promise.state),
                instance,
            }
        };
    Ok(Json(Inspection {
        id,
        flow: flow.name(),
        result: resolved.map(client::value_of),
        error: failed.map(client::error_of),
        trace,
        state,
        invocations: invocations.into_iter().zip(found).map(inspected).collect(),
    }))
}

/// The promise that decides how the flow stands: the first one, or in a detached flow the last
/// one, unless one before it failed and nothing comes after.
fn outcome<'a>(
    flow: Flow,
    root: PromiseRecord,
    found: impl Iterator<Item = &'a PromiseRecord>,
) -> Option<PromiseRecord> {
    if flow != Flow::DetachedChain {
        return Some(root);
    }
    let found: Vec<_> = found.collect();
    let failed = found
        .iter()
        .find(|promise| !matches!(promise.state, PromiseState::Pending | PromiseState::Resolved));
    let last = found.get(2).filter(|promise| promise.state != PromiseState::Pending);
    failed.or(last).map(|promise| (*promise).clone())
}
