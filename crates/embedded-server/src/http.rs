//! The HTTP routes: `POST /`, `GET /poll/{group}/{id}`, `GET /health` and `GET /ready`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::Stream;

use crate::server::{Events, Server};

pub(crate) fn routes(server: Arc<Server>, max_body: usize) -> Router {
    Router::new()
        .route("/", post(api))
        .route("/poll/{group}/{id}", get(poll))
        .route("/health", get(|| async { StatusCode::OK }))
        .route("/ready", get(|| async { StatusCode::OK }))
        .layer(DefaultBodyLimit::max(max_body))
        .with_state(server)
}

async fn api(State(server): State<Arc<Server>>, body: Bytes) -> Response {
    let (status, body) = server.handle(&body);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

async fn poll(
    State(server): State<Arc<Server>>,
    Path((group, id)): Path<(String, String)>,
) -> Response {
    let Some(events) = server.connect(group, &id) else {
        let reason = "Poll registration at capacity";
        return (StatusCode::SERVICE_UNAVAILABLE, reason).into_response();
    };
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context).map(|event| event.map(Ok))
    }
}
