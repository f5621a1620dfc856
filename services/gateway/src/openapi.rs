//! Writes `openapi.json`, the description of this interface, from the types of this crate, the table of
//! flows, and problems as they are answered.
//!
//! A test does, and fails if the file is not what it would write. So the executable has the text and
//! nothing that makes it.

mod parts;
mod problems;

use std::{collections::BTreeMap, path::Path};

use axum::http::StatusCode;
use flows::{FLOWS, Flow, MOST_FAILURES};
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Components, Content, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, Paths, Ref, RefOr,
        Response, Schema, Type,
        example::ExampleBuilder,
        header::Header,
        path::{Operation, OperationBuilder},
        schema::{AnyOfBuilder, Object, ObjectBuilder, SchemaType},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use wire::PromiseState;

use self::{
    parts::{durations, header, ids, in_path, operation, query, text},
    problems::{Answered, COMMON, answered, common, problems},
};
use crate::{
    crash::Crashed,
    held::Held,
    inspect::Inspection,
    request::{DURATIONS, IDS, KEY},
    routes::{Pending, Success},
    stats::Recent,
};

const DOCUMENT: &str = include_str!("../openapi.json");

/// Set to write `openapi.json` instead of comparing it.
const UPDATE: &str = "ASYNC_RPC_UPDATE";

const STATES: [PromiseState; 5] = [
    PromiseState::Pending,
    PromiseState::Resolved,
    PromiseState::Rejected,
    PromiseState::RejectedCanceled,
    PromiseState::RejectedTimedout,
];

/// The schema of a state.
pub fn state() -> Object {
    let states = STATES.map(PromiseState::as_str);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(states)).build()
}

/// The schema of a state, or of none.
pub fn state_or_null() -> Object {
    let states = STATES.map(|state| Value::from(state.as_str()));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(states.into_iter().chain([Value::Null])))
        .build()
}

/// The document in the making.
struct Generator {
    answers: Vec<Answered>,
    components: Components,
    paths: Paths,
}

impl Generator {
    async fn new() -> Self {
        let mut answers = Vec::new();
        for problem in problems() {
            answers.push(answered(problem).await);
        }
        let mut components = Components::new();
        components.schemas.insert("Problem".to_owned(), common().into());
        for problem in &answers {
            components.schemas.insert(problem.name.to_owned(), problem.schema().into());
        }
        Self { answers, components, paths: Paths::new() }
    }

    /// A response with a JSON body.
    fn json<T: ToSchema>(&mut self, description: &str) -> Response {
        let mut schemas = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut schemas);
        self.components.schemas.extend(schemas);
        let content = Content::new(Some(Ref::from_schema_name(T::name())));
        Response::builder().description(description).content("application/json", content).build()
    }

    /// Adds the responses of these problems to an operation, and of those that all have: one for each
    /// status.
    fn problems(&mut self, mut operation: OperationBuilder, names: &[&str]) -> OperationBuilder {
        let mut by_status: BTreeMap<StatusCode, Vec<&Answered>> = BTreeMap::new();
        for name in names.iter().chain(&["Unauthorized", "WrongHost", "TooManyRequests"]) {
            let problem = self.answers.iter().find(|problem| problem.name == *name);
            let problem = problem.unwrap_or_else(|| panic!("no problem is called {name}"));
            by_status.entry(problem.status).or_default().push(problem);
        }
        for (status, problems) in by_status {
            let names: Vec<_> = problems.iter().map(|problem| problem.name).collect();
            let name = names.join("Or");
            operation = operation.response(status.as_str(), Ref::from_response_name(&name));
            self.components.responses.insert(name, response(status, &problems).into());
        }
        operation
    }

    fn add(&mut self, method: HttpMethod, path: &str, operation: impl Into<Operation>) {
        self.paths.add_path_operation(path, vec![method], operation);
    }

    fn start(&mut self, flow: &Flow) {
        let (success, pending) = (
            self.json::<Success>(
                "The result; or, for a detached flow, that it is started or done.",
            ),
            self.json::<Pending>("No result yet. The flow continues."),
        );
        let location = Header::builder().schema(Some(text())).description(Some("Its address."));
        let mut pending = pending;
        pending.headers.insert("Location".to_owned(), location.build().into());
        let id = format!("example-{}", flow.name);
        let operation = operation(flow.name, "Start a flow, or find it, and wait for its result")
            .description(Some("Bodies are ignored."))
            .parameter(query(
                "id",
                &format!("The flow's id: {IDS}. By default its name."),
                ids(),
                &*id,
            ))
            .parameter(query(
                "work",
                &format!("How long one function works, in checkpointed steps: {DURATIONS}."),
                durations(),
                "2s",
            ))
            .parameter(query(
                "sleep",
                &format!("The length of a durable timer: {DURATIONS}."),
                durations(),
                "500ms",
            ))
            .parameter(query(
                "fail",
                "How often the last function fails. From 5 on, the flow does.",
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(0))
                    .maximum(Some(MOST_FAILURES))
                    .build(),
                1,
            ))
            .parameter(header(KEY, "Means the same as id.", ids(), &id))
            .parameter(header(
                "Prefer",
                "With respond-async, the answer comes at once, and not with the result.",
                text(),
                "respond-async",
            ))
            .parameter(header(
                "traceparent",
                "A W3C trace context, which is continued.",
                text(),
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ))
            .response("200", success)
            .response("202", pending);
        let names = [
            "InvalidParameter",
            "UnreadableRequest",
            "CrossOrigin",
            "SlowRequest",
            "Canceled",
            "LargeRequest",
            "Conflict",
            "Internal",
            "Failed",
            "Unavailable",
            "Full",
            "Forgotten",
            "TimedOut",
        ];
        let operation = self.problems(operation, &names);
        self.add(HttpMethod::Post, &flow.route(), operation);
    }

    fn flow(&mut self) {
        let path = "/flows/{id}";
        let id = || in_path("id", "The flow's id.", "example-await-chain");
        let response = self.json::<Inspection>("The flow.");
        let mut shown = response.clone();
        shown.description += " For a browser, its page.";
        shown.content.insert("text/html".to_owned(), Content::new(Some(text())).into());
        let get = operation("flow", "The state of a flow and of each of its calls")
            .parameter(id())
            .response("200", shown);
        let names = ["InvalidParameter", "UnreadableRequest", "NoFlow", "Internal", "Unavailable"];
        let get = self.problems(get, &names);
        self.add(HttpMethod::Get, path, get);
        let events = Response::builder()
            .description("An event `state` whenever there is news, until the flow has ended.")
            .content("text/event-stream", Content::new(Some(text())));
        let watch = operation("events", "What happens in a flow, for its page, as it happens")
            .parameter(id())
            .parameter(header(
                "Last-Event-ID",
                "The id of the last event that is known.",
                text(),
                "0",
            ))
            .response("200", events);
        let watch = self.problems(watch, &[&names[..], &["Full"]].concat());
        self.add(HttpMethod::Get, "/flows/{id}/events", watch);
        let delete = operation("cancel", "Cancel a flow; one that has ended stays as it is")
            .parameter(id())
            .response("200", response);
        let delete = self.problems(delete, &[&names[..], &["CrossOrigin"]].concat());
        self.add(HttpMethod::Delete, path, delete);
    }

    fn crash(&mut self) {
        let response = self.json::<Crashed>("The process is dead.");
        let operation = operation("crash", "Kill a process by a message to it and no other")
            .description(Some("Only if NODE_CRASH_BUTTON is set."))
            .parameter(in_path("group", "The name that its replicas share.", "service-b"))
            .parameter(in_path("instance", "Its unique name.", "service-b-replica"))
            .response("200", response);
        let names = [
            "InvalidParameter",
            "UnreadableRequest",
            "CrossOrigin",
            "NoService",
            "NoRoute",
            "Internal",
            "Alive",
            "Unavailable",
            "Silent",
        ];
        let operation = self.problems(operation, &names);
        self.add(HttpMethod::Post, "/instances/{group}/{instance}/crash", operation);
    }

    fn others(&mut self) {
        let recent = self.json::<Recent>("What this gateway has counted.");
        let stats = operation("stats", "How many flows were started and have ended lately");
        let stats = self.problems(stats.response("200", recent), &[]);
        self.add(HttpMethod::Get, "/stats", stats);
        let plain = |description: &str| {
            Response::builder()
                .description(description)
                .content("text/plain", Content::new(Some(text())))
        };
        let health = operation("healthz", "Whether the process is alive");
        self.add(HttpMethod::Get, "/healthz", health.response("200", plain("It is.")));
        let ready = operation("readyz", "Whether the Resonate Server sends messages")
            .response("200", plain("It does."))
            .response("503", plain("It does not."));
        self.add(HttpMethod::Get, "/readyz", ready);
        let content = Content::new(Some(ObjectBuilder::new().schema_type(Type::Object).build()));
        let itself = Response::builder().description("It.").content("application/json", content);
        let document = operation("openapi", "This document");
        let document = self.problems(document.response("200", itself), &[]);
        self.add(HttpMethod::Get, "/openapi.json", document);
    }

    fn document(mut self) -> OpenApi {
        FLOWS.iter().for_each(|flow| self.start(flow));
        self.flow();
        self.crash();
        self.others();
        for (name, scheme) in [("bearer", HttpAuthScheme::Bearer), ("basic", HttpAuthScheme::Basic)]
        {
            let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build());
            self.components.add_security_scheme(name, scheme);
        }
        // One of the two, or none at all: whether the gateway asks for a token is a setting.
        let none = SecurityRequirement::default();
        let schemes =
            ["bearer", "basic"].map(|name| SecurityRequirement::new::<_, _, &str>(name, []));
        let info = InfoBuilder::new()
            .title("Async RPC gateway")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(
                "Starts flows as durable promises, waits for their results, shows and cancels them. \
                 Any other path is answered with 404 (NoRoute), any other method with 405 (Method).",
            ));
        OpenApiBuilder::new()
            .info(info)
            .paths(self.paths)
            .components(Some(self.components))
            .security(Some([none].into_iter().chain(schemes)))
            .build()
    }
}

/// The response with this status, which tells one of these problems.
fn response(status: StatusCode, problems: &[&Answered]) -> Response {
    let schema: RefOr<Schema> = match problems {
        [one] => Ref::from_schema_name(one.name).into(),
        several => {
            let schemas = several.iter().map(|problem| Ref::from_schema_name(problem.name));
            schemas.fold(AnyOfBuilder::new(), AnyOfBuilder::item).into()
        }
    };
    let examples = problems.iter().map(|problem| {
        let example = ExampleBuilder::new().value(Some(problem.body.clone()));
        (problem.name, example.build())
    });
    let content = Content::builder().schema(Some(schema)).examples_from_iter(examples);
    let descriptions: Vec<_> = problems.iter().map(|problem| problem.description).collect();
    let response = Response::builder()
        .description(descriptions.join(" Or: "))
        .content("application/problem+json", content.build());
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).build();
            response.header("Retry-After", Header::new(seconds)).build()
        }
        StatusCode::UNAUTHORIZED => {
            response.header("WWW-Authenticate", Header::new(text())).build()
        }
        _ => response.build(),
    }
}

/// A process that holds a call, if one does: a member of a call that may be missing.
pub struct PerhapsHeld;

impl PartialSchema for PerhapsHeld {
    fn schema() -> RefOr<Schema> {
        let held = Ref::from_schema_name(Held::name());
        AnyOfBuilder::new().item(held).item(ObjectBuilder::new()).into()
    }
}

impl ToSchema for PerhapsHeld {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Held::name().into_owned(), Held::schema()));
    }
}

#[tokio::test]
async fn the_document_is_what_the_code_says() {
    let document = Generator::new().await.document();
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        std::fs::write(file, &text).unwrap();
    } else {
        let command = format!("{UPDATE}=1 cargo test -p gateway --lib openapi");
        assert!(text == DOCUMENT, "openapi.json is not what the code says; write it by: {command}");
    }
    assert!(text.contains("\"openapi\": \"3.1.0\""));
    let document: Value = serde_json::from_str(&text).unwrap();
    for reference in text.split("\"$ref\": \"#").skip(1) {
        let place = reference.split('"').next().unwrap();
        assert!(document.pointer(place).is_some(), "nothing is at {place}");
    }
}

/// Pages and what belongs to them are no part of the interface.
const PAGES: [&str; 3] = ["/", "/page/settings.json", "/page/server.json"];

#[test]
fn every_route_is_in_the_document() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let sources = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let mut routes = 0;
    for source in sources.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(source).unwrap();
        for route in text.split(".route(\"").skip(1) {
            let route = route.split('"').next().unwrap();
            let known = document["paths"].get(route).is_some() || PAGES.contains(&route);
            assert!(known, "{route} is not in openapi.json");
            routes += 1;
        }
    }
    assert!(routes >= 4, "{routes}");
}

#[tokio::test]
async fn each_problem_is_the_answer_of_an_operation() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let paths = document["paths"].to_string() + &document["info"].to_string();
    for problem in problems() {
        let name = answered(problem).await.name;
        assert!(paths.contains(name), "{name}");
    }
    assert_eq!(document["components"]["schemas"]["Problem"]["required"], json!(COMMON));
}
