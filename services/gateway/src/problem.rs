//! Errors as HTTP clients see them: `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use flows::Flow;
use problem_details::ProblemDetails;
use serde_json::{Map, Value, json};
use settings::duration;
use wire::ExchangeError;

use crate::{client, trace_link::Ids};

/// How a client may show its token.
const CHALLENGES: [&str; 2] =
    [r#"Bearer realm="async-rpc""#, r#"Basic realm="async-rpc", charset="UTF-8""#];

/// Why a request is not answered with a result.
#[derive(Debug)]
pub enum Problem {
    /// 400: a query parameter or header is invalid. Nothing was started.
    Parameter {
        /// Its name.
        parameter: String,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
        /// What is wrong, in a sentence.
        detail: String,
    },
    /// 400, 408 or 413: the request's path or body could not be read.
    Unreadable(StatusCode, String),
    /// 422: the id belongs to something else.
    Conflict {
        /// The flow's id.
        id: String,
        /// What it belongs to.
        detail: String,
    },
    /// 502: a function of the flow failed.
    Failed {
        /// The flow.
        flow: &'static Flow,
        /// Its ids.
        ids: Ids,
        /// The function's own message.
        error: String,
    },
    /// 409: the flow was canceled.
    Canceled {
        /// The flow.
        flow: &'static Flow,
        /// Its ids.
        ids: Ids,
    },
    /// 504: the flow timed out.
    TimedOut {
        /// The flow.
        flow: &'static Flow,
        /// Its ids.
        ids: Ids,
    },
    /// 503: the Resonate Server is unreachable.
    Unavailable(String),
    /// 503: as many requests wait as this gateway has room for. Nothing was started.
    Full,
    /// 503: the Resonate Server has lost the flow, which it knew a moment ago.
    Forgotten(String),
    /// 403: a page of another site has sent the request.
    CrossOrigin(String),
    /// 403: the request is for a name that is not the gateway's.
    WrongHost(String),
    /// 401: the client has sent no token, or one that is `unknown`.
    Unauthorized {
        /// Whether it has sent one.
        unknown: bool,
    },
    /// 429: the client sends too many requests.
    TooManyRequests {
        /// When it may send the next one.
        seconds: u64,
    },
    /// 404: no service is called like this.
    NoService(String),
    /// 502: a process cannot be crashed.
    Alive(String),
    /// 504: a process did not take the crash.
    Silent {
        /// The process.
        instance: String,
        /// How long it had time.
        patience: Duration,
    },
    /// 404: no such flow.
    NoFlow(String),
    /// 404: no such route.
    NoRoute(String),
    /// 405: the route does not have this method.
    Method(String),
    /// 500: a mistake of the gateway. The text goes to the log, not to the client.
    Internal(String),
}

impl Problem {
    /// What is wrong, for people.
    pub fn detail(self) -> String {
        self.parts().1
    }

    /// Status, detail, and further members of the body.
    fn parts(self) -> (StatusCode, String, Value) {
        match self {
            Self::Parameter { parameter, value, allowed, detail } => {
                let members = json!({"parameter": parameter, "value": value, "allowed": allowed});
                (StatusCode::BAD_REQUEST, detail, members)
            }
            Self::Unreadable(status, detail) => (status, detail, json!({})),
            Self::Conflict { id, detail } => {
                (StatusCode::UNPROCESSABLE_ENTITY, detail, json!({"id": id}))
            }
            Self::Failed { flow, ids, error } => {
                let detail = format!("{} failed: {error}; {}", flow.name, retry(flow));
                let mut members = json!(ids);
                members["error"] = error.into();
                (StatusCode::BAD_GATEWAY, detail, members)
            }
            Self::Canceled { flow, ids } => {
                let detail = format!("{} was canceled; {}", flow.name, retry(flow));
                (StatusCode::CONFLICT, detail, json!(ids))
            }
            Self::TimedOut { flow, ids } => {
                let detail = format!("{} timed out; {}", flow.name, retry(flow));
                (StatusCode::GATEWAY_TIMEOUT, detail, json!(ids))
            }
            Self::Unavailable(detail) => (StatusCode::SERVICE_UNAVAILABLE, detail, json!({})),
            Self::Full => {
                let detail = "too many requests are waiting; nothing was started, try again later";
                (StatusCode::SERVICE_UNAVAILABLE, detail.to_owned(), json!({}))
            }
            Self::Forgotten(id) => {
                let detail =
                    format!("the Resonate Server has lost flow {id}; send the request again");
                (StatusCode::SERVICE_UNAVAILABLE, detail, json!({"id": id}))
            }
            Self::CrossOrigin(origin) => {
                let detail = format!(
                    "a page of {origin} may not change anything here; open this gateway's own page"
                );
                (StatusCode::FORBIDDEN, detail, json!({}))
            }
            Self::WrongHost(host) => {
                let detail = format!(
                    "{host:?} is not a name of this gateway; GATEWAY_HOSTS lists its names"
                );
                (StatusCode::FORBIDDEN, detail, json!({}))
            }
            Self::Unauthorized { unknown } => {
                let what = match unknown {
                    true => "this token is not one of the gateway's",
                    false => "the gateway asks for a token",
                };
                let detail = format!(
                    "{what}; send it as Authorization: Bearer …, or in a browser as the password"
                );
                (StatusCode::UNAUTHORIZED, detail, json!({}))
            }
            Self::TooManyRequests { seconds } => {
                let detail = format!(
                    "too many requests from this address; nothing was started, try again in \
                     {seconds} s"
                );
                (StatusCode::TOO_MANY_REQUESTS, detail, json!({}))
            }
            Self::NoService(group) => {
                let detail = format!("no such service: {group}; a flow's page shows who holds it");
                (StatusCode::NOT_FOUND, detail, json!({"group": group}))
            }
            Self::Alive(instance) => {
                let detail =
                    format!("{instance} has no crash button: set NODE_CRASH_BUTTON for it");
                (StatusCode::BAD_GATEWAY, detail, json!({"instance": instance}))
            }
            Self::Silent { instance, patience } => {
                let patience = duration::format(patience);
                let detail = format!(
                    "{instance} did not answer within {patience}: it is frozen, busy or gone, or no \
                     process is called like this"
                );
                (StatusCode::GATEWAY_TIMEOUT, detail, json!({"instance": instance}))
            }
            Self::NoFlow(id) => {
                let detail = format!("no such flow: {id}; start it with POST /await-chain?id={id}");
                (StatusCode::NOT_FOUND, detail, json!({"id": id}))
            }
            Self::NoRoute(path) => {
                let routes: Vec<_> = flows::FLOWS.iter().map(Flow::route).collect();
                let routes = routes.join(", ");
                let detail =
                    format!("no such route: {path}; try POST {routes} or GET /flows/{{id}}");
                (StatusCode::NOT_FOUND, detail, json!({}))
            }
            Self::Method(method) => {
                let detail = format!("method {method} is not allowed here");
                (StatusCode::METHOD_NOT_ALLOWED, detail, json!({}))
            }
            Self::Internal(text) => {
                tracing::error!(error = text, "request failed");
                let detail = "internal error; see the gateway's log".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, detail, json!({}))
            }
        }
    }
}

fn retry(flow: &Flow) -> String {
    format!("this result is final; retry with a new id, for example POST {}?id=…", flow.route())
}

impl From<&client::Error> for Problem {
    fn from(error: &client::Error) -> Self {
        match error {
            // Clients must not learn where the token is stored.
            client::Error::NoAnswer(ExchangeError::Unauthorized { .. }) => Self::Unavailable(
                "the Resonate Server refuses the gateway's token; see the gateway's log".to_owned(),
            ),
            client::Error::NoAnswer(error) => Self::Unavailable(error.to_string()),
            client::Error::Refused { status: 403, .. } => Self::Unavailable(
                "the gateway's token does not cover this id: its prefix claim allows others"
                    .to_owned(),
            ),
            client::Error::Refused { status: 500.., .. } => Self::Unavailable(error.to_string()),
            client::Error::Refused { .. } => Self::Internal(error.to_string()),
        }
    }
}

impl From<client::Error> for Problem {
    fn from(error: client::Error) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let retry_after = match &self {
            Self::TooManyRequests { seconds } => Some(*seconds),
            Self::Unavailable(_) | Self::Full | Self::Forgotten(_) => Some(2),
            _ => None,
        };
        let (status, detail, members) = self.parts();
        let members: Map<String, Value> = members.as_object().cloned().unwrap_or_default();
        let problem =
            ProblemDetails::from_status_code(status).with_detail(detail).with_extensions(members);
        let mut response = problem.into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            // A browser prompts its user for the first scheme that it supports.
            for challenge in CHALLENGES {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
        }
        response
    }
}
