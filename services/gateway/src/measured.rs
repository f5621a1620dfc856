//! Counts and times requests: `http.server.request.duration`.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use resonate_otel::Metrics;

/// Health checks are not measured: there are more of them than of anything else.
const UNMEASURED: [&str; 2] = ["/healthz", "/readyz"];

/// A middleware that measures each request.
pub async fn measure(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let is_measured = route.as_ref().is_none_or(|it| !UNMEASURED.contains(&it.as_str()));
    if !metrics.is_on() || !is_measured {
        return next.run(request).await;
    }
    let method = request.method().clone();
    let mut measured = Measured { metrics, method, route, start: Instant::now(), status: None };
    let response = next.run(request).await;
    measured.status = Some(response.status().as_u16());
    response
}

/// A request that is being answered. If its client hangs up, this is dropped before there is a status.
struct Measured {
    metrics: Metrics,
    method: Method,
    route: Option<MatchedPath>,
    start: Instant,
    status: Option<u16>,
}

impl Drop for Measured {
    fn drop(&mut self) {
        let Self { metrics, method, route, start, status } = self;
        let route = route.as_ref().map(MatchedPath::as_str);
        metrics.server_request(method.as_str(), route, *status, start.elapsed());
    }
}
