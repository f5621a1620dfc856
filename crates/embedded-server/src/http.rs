//! The routes: `POST /`, `GET /poll/{group}/{id}`, `GET /health` and `GET /ready`.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response, Sse},
    routing::{get, post},
};

use crate::server::Server;

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
    headers: HeaderMap,
    Path((group, id)): Path<(String, String)>,
) -> Response {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !server.accepts(authorization.and_then(|value| value.strip_prefix("Bearer "))) {
        return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
    }
    match server.connect(group, &id) {
        // Like the official server, it sends no keep-alive.
        Some(events) => Sse::new(events).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "Poll registration at capacity").into_response(),
    }
}
