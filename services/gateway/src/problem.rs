//! Errors as clients see them: `application/problem+json` (RFC 9457).

use axum::{
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use problem_details::ProblemDetails;
use serde_json::{Map, Value, json};

use crate::{flow::Flow, ids::Ids};

/// Why a request is not answered with a result.
#[derive(Debug)]
pub enum Problem {
    /// A query parameter or header cannot be used; nothing was started.
    Parameter {
        /// Its name.
        parameter: String,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The body could not be read in time or is not complete.
    Body(StatusCode, String),
    /// The id is in use for something else.
    Conflict {
        /// The flow's id.
        id: String,
        /// In which way.
        detail: String,
    },
    /// The function failed for good.
    Failed {
        /// The flow.
        flow: Flow,
        /// Its ids.
        ids: Ids,
        /// The function's own message.
        error: String,
    },
    /// The flow's time is over.
    TimedOut {
        /// The flow.
        flow: Flow,
        /// Its ids.
        ids: Ids,
    },
    /// The Resonate Server is out of reach.
    Unavailable(String),
    /// There is no such flow.
    NoFlow(String),
    /// There is no such route.
    NoRoute(String),
    /// The route is there, the method is not.
    Method(String),
    /// What should not happen. The text goes to the log, not to the client.
    Internal(String),
}

impl Problem {
    fn parts(self) -> (StatusCode, String, Value) {
        let anew = |flow: Flow| {
            format!(
                "the id keeps this outcome: start anew with another one, POST /{}?id=…",
                flow.name()
            )
        };
        match self {
            Self::Parameter { parameter, value, allowed } => {
                let detail = format!("{parameter}={value:?} cannot be used: {allowed}");
                (
                    StatusCode::BAD_REQUEST,
                    detail,
                    json!({"parameter": parameter, "value": value, "allowed": allowed}),
                )
            }
            Self::Body(status, detail) => (status, detail, json!({})),
            Self::Conflict { id, detail } => {
                (StatusCode::UNPROCESSABLE_ENTITY, detail, json!({"id": id}))
            }
            Self::Failed { flow, ids, error } => {
                let detail = format!("{} failed: {error}; {}", flow.name(), anew(flow));
                let mut members = json!(ids);
                members["error"] = error.into();
                (StatusCode::BAD_GATEWAY, detail, members)
            }
            Self::TimedOut { flow, ids } => {
                let detail = format!("{} was not done in its time; {}", flow.name(), anew(flow));
                (StatusCode::GATEWAY_TIMEOUT, detail, json!(ids))
            }
            Self::Unavailable(detail) => (StatusCode::SERVICE_UNAVAILABLE, detail, json!({})),
            Self::NoFlow(id) => {
                let detail =
                    format!("there is no flow {id}; start one with POST /await-chain?id={id}");
                (StatusCode::NOT_FOUND, detail, json!({"id": id}))
            }
            Self::NoRoute(path) => {
                let detail = format!(
                    "{path} is no route; there are POST /await-chain, /detached-chain, /fan-out-workflow and GET /flows/{{id}}"
                );
                (StatusCode::NOT_FOUND, detail, json!({}))
            }
            Self::Method(method) => {
                (StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not allowed here"), json!({}))
            }
            Self::Internal(text) => {
                tracing::error!(error = text, "request failed");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "an error of the gateway; its log says more".to_owned(),
                    json!({}),
                )
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, detail, members) = self.parts();
        let members: Map<String, Value> = members.as_object().cloned().unwrap_or_default();
        let problem =
            ProblemDetails::from_status_code(status).with_detail(detail).with_extensions(members);
        let mut response = problem.into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
