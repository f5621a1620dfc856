//! The problems of the interface, as they are answered.

use std::time::Duration;

use axum::{
    body::to_bytes,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use flows::FLOWS;
use serde_json::Value;
use utoipa::openapi::{
    Ref, Schema, Type,
    schema::{AllOfBuilder, Object, ObjectBuilder},
};

use crate::{problem::Problem, request::Request, trace_link::Ids};

/// The name of a problem, and when it is the answer.
fn describe(problem: &Problem) -> (&'static str, &'static str) {
    match problem {
        Problem::Parameter { .. } => {
            ("InvalidParameter", "A parameter or header is invalid; nothing was done.")
        }
        Problem::Unreadable(StatusCode::REQUEST_TIMEOUT, _) => {
            ("SlowRequest", "The request was not complete within 10 s; nothing was started.")
        }
        Problem::Unreadable(StatusCode::PAYLOAD_TOO_LARGE, _) => {
            ("LargeRequest", "The request body is larger than 16 KiB; nothing was started.")
        }
        Problem::Unreadable(..) => {
            ("UnreadableRequest", "The path or the body could not be read; nothing was done.")
        }
        Problem::Conflict { .. } => (
            "Conflict",
            "The id belongs to another flow, or the flow was started with other parameters.",
        ),
        Problem::Failed { .. } => ("Failed", "A function of the flow failed. This is final."),
        Problem::Canceled { .. } => ("Canceled", "The flow was canceled. This is final."),
        Problem::TimedOut { .. } => ("TimedOut", "The flow timed out. This is final."),
        Problem::Unavailable(_) => ("Unavailable", "The Resonate Server is unreachable."),
        Problem::Full => ("Full", "Too many requests are waiting; nothing was started."),
        Problem::Forgotten(_) => ("Forgotten", "The Resonate Server has lost the flow."),
        Problem::CrossOrigin(_) => {
            ("CrossOrigin", "A page of another site has sent the request; nothing was done.")
        }
        Problem::WrongHost(_) => {
            ("WrongHost", "The request is for a name that is not the gateway's; nothing was done.")
        }
        Problem::Unauthorized { .. } => {
            ("Unauthorized", "The gateway asks for a token, and this is none; nothing was done.")
        }
        Problem::TooManyRequests { .. } => {
            ("TooManyRequests", "The client sends too many requests; nothing was done.")
        }
        Problem::NoService(_) => ("NoService", "No service has this name."),
        Problem::Alive(_) => {
            ("Alive", "The process is alive: NODE_CRASH_BUTTON is not set for it.")
        }
        Problem::Silent { .. } => {
            ("Silent", "The process has not answered: it is frozen, busy or gone.")
        }
        Problem::NoFlow(_) => ("NoFlow", "There is no such flow."),
        Problem::NoRoute(_) => ("NoRoute", "There is no such route."),
        Problem::Method(_) => ("Method", "The route does not have this method."),
        Problem::Internal(_) => ("Internal", "A mistake of the gateway; its log says more."),
    }
}

/// One of each.
pub fn problems() -> Vec<Problem> {
    let flow = &FLOWS[0];
    let ids = || Ids::example("example-await-chain");
    let unreadable = |status, detail: &str| Problem::Unreadable(status, detail.to_owned());
    vec![
        Request::read("work=6", &HeaderMap::new()).unwrap_err(),
        unreadable(StatusCode::BAD_REQUEST, "Invalid URL: Cannot parse `%ff` as UTF-8"),
        unreadable(StatusCode::REQUEST_TIMEOUT, "request body was not complete within 10s"),
        unreadable(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request body is larger than 16384 bytes; bodies are ignored",
        ),
        Problem::Conflict {
            id: "example-await-chain".to_owned(),
            detail: "flow \"example-await-chain\" was started without work, not work=8s; choose \
                     another id"
                .to_owned(),
        },
        Problem::Failed {
            flow,
            ids: ids(),
            error: "failed as requested (attempt 5, fail=5)".to_owned(),
        },
        Problem::Canceled { flow, ids: ids() },
        Problem::TimedOut { flow, ids: ids() },
        Problem::Unavailable("the Resonate Server is unreachable: connection refused".to_owned()),
        Problem::Full,
        Problem::Forgotten("example-await-chain".to_owned()),
        Problem::CrossOrigin("http://other.example".to_owned()),
        Problem::WrongHost("other.example".to_owned()),
        Problem::Unauthorized { unknown: false },
        Problem::TooManyRequests { seconds: 1 },
        Problem::NoService("service-z".to_owned()),
        Problem::Alive("service-b".to_owned()),
        Problem::Silent { instance: "service-b".to_owned(), patience: Duration::from_secs(2) },
        Problem::NoFlow("example-unknown".to_owned()),
        Problem::NoRoute("/example".to_owned()),
        Problem::Method("PUT".to_owned()),
        Problem::Internal("example".to_owned()),
    ]
}

/// A problem as it is answered.
pub struct Answered {
    pub name: &'static str,
    pub description: &'static str,
    pub status: StatusCode,
    pub body: Value,
}

pub async fn answered(problem: Problem) -> Answered {
    let (name, description) = describe(&problem);
    let response = problem.into_response();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    Answered { name, description, status, body: serde_json::from_slice(&body).unwrap() }
}

/// The members that every problem has.
pub const COMMON: [&str; 3] = ["status", "title", "detail"];

/// The schema of all problems.
pub fn common() -> Object {
    let text = |text| ObjectBuilder::new().schema_type(Type::String).description(Some(text));
    let status = ObjectBuilder::new().schema_type(Type::Integer);
    ObjectBuilder::new()
        .description(Some("An error, by RFC 9457."))
        .property("status", status.description(Some("The status of the answer.")))
        .property("title", text("The name of the status."))
        .property("detail", text("What is wrong, and what to do."))
        .required("status")
        .required("title")
        .required("detail")
        .build()
}

impl Answered {
    /// Its schema: what it has beyond all problems.
    pub fn schema(&self) -> Schema {
        let mut own = ObjectBuilder::new().description(Some(self.description));
        for (name, value) in self.body.as_object().unwrap() {
            if !COMMON.contains(&name.as_str()) {
                let member = ObjectBuilder::new().schema_type(match value {
                    Value::Bool(_) => Type::Boolean,
                    Value::String(_) => Type::String,
                    other => panic!("{name} of {}: {other}", self.name),
                });
                own = own.property(name, member);
                // Without tracing, there is no trace.
                if !name.starts_with("trace_") {
                    own = own.required(name);
                }
            }
        }
        AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(own).into()
    }
}
