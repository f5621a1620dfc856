//! Runs against a gateway that answers what a test wants.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use clap::{Args, FromArgMatches};
use flows::Flow;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;

/// How often each id was asked for, and the answer to the request with this method and path, when
/// its id is asked for the nth time.
type Script = fn(&'static Flow, &str, usize) -> Response;

#[derive(Clone)]
struct Gateway {
    script: Script,
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

/// The right answer to a `POST`.
pub fn right(flow: &'static Flow, id: &str) -> Response {
    Json(json!({"message": flow.message(), "id": id, "reconnected": false})).into_response()
}

/// What `GET /flows/{id}` shows of a detached flow.
fn end(id: &str, state: &str) -> Response {
    let invocation = json!({"state": state});
    let (flow, result) = ("detached-chain", Value::Null);
    Json(json!({"id": id, "flow": flow, "state": state, "result": result,
        "invocations": [invocation, invocation, invocation]}))
    .into_response()
}

/// Answers a request by the script. A `GET` about a flow has no flow in its path: all are detached.
async fn answer(
    State(gateway): State<Gateway>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let (flow, id) = match path.strip_prefix("flows/") {
        Some(id) => (None, id),
        None => (Flow::by_name(path), query["id"].as_str()),
    };
    let count = {
        let mut asked = gateway.asked.lock().unwrap();
        let count = asked.entry(format!("{} {id}", request.method())).or_default();
        *count += 1;
        *count
    };
    match flow {
        Some(flow) => (gateway.script)(flow, id, count),
        None if count == 1 => end(id, "pending"),
        None if id.ends_with("-2") => end(id, "rejected"),
        None => end(id, "resolved"),
    }
}

/// Runs with these options against a gateway that answers by `script`.
async fn run_with(script: Script, arguments: &[&str]) -> Value {
    let gateway = Gateway { script, asked: Arc::default() };
    let routes = Router::new()
        .route("/readyz", get(async || "ready"))
        .route("/stats", get(async || "{}"))
        .fallback(answer)
        .with_state(gateway);
    let (url, _server) = serve(routes).await;
    let summary = run(settings(&url, arguments), pending()).await.unwrap();
    let json = serde_json::from_str::<Value>(&summary.json()).unwrap();
    let is_bad = json["wrong"] != 0 || json["lost"] != 0;
    assert_eq!(summary.result().is_err(), is_bad, "the exit code says it too: {json}");
    json
}

/// Serves these routes for as long as the returned tasks are kept. Returns their address, too.
pub async fn serve(routes: Router) -> (String, JoinSet<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, routes).await });
    (url, tasks)
}

pub fn settings(gateway: &str, arguments: &[&str]) -> Settings {
    let command = Settings::augment_args(clap::Command::new("load"));
    let usual = ["load", "--gateway", gateway, "--work=0", "--sleep=0", "--fail=0"];
    let matches = command.get_matches_from(usual.iter().chain(arguments));
    Settings::from_arg_matches(&matches).unwrap()
}

/// The gateway takes a token as a password.
fn with_password(url: &str) -> String {
    url.replace("http://", "http://user:s3cret@")
}

const DETACHED: &str = "--flows=detached-chain";
const AWAITED: &str = "--flows=await-chain,fan-out-workflow";

#[tokio::test]
async fn right_answers_are_counted_and_timed() {
    let summary = run_with(|flow, id, _| right(flow, id), &["--for=300ms", AWAITED]).await;
    let flows = summary["flows"].as_u64().unwrap();
    assert!(flows > 8, "{summary}");
    assert_eq!((&summary["right"], &summary["wrong"]), (&json!(flows), &json!(0)), "{summary}");
    assert_eq!(summary["by_flow"].as_object().unwrap().len(), 2, "{summary}");
    let latency = &summary["latency_ms"];
    assert!(latency["p50"].as_f64().unwrap() > 0.0, "{summary}");
    assert!(latency["max"].as_f64() >= latency["p99"].as_f64(), "{summary}");
}

#[tokio::test]
async fn a_wrong_answer_is_counted_and_shown() {
    let wrong: Script = |flow, id, _| match id.ends_with("-3") {
        true => Json(json!({"message": 4, "id": id})).into_response(),
        false => right(flow, id),
    };
    let summary = run_with(wrong, &["--for=300ms", AWAITED]).await;
    assert_eq!((&summary["wrong"], &summary["lost"]), (&json!(1), &json!(0)), "{summary}");
    let problem = summary["problems"][0].as_str().unwrap();
    assert!(problem.starts_with("wrong: POST /"), "{problem}");
    assert!(problem.contains("200 {") && problem.contains("\"message\":4"), "{problem}");
}

#[tokio::test]
async fn a_request_that_is_refused_for_now_is_sent_again_with_the_same_id() {
    let busy: Script = |flow, id, count| match count {
        1 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response(),
        _ => right(flow, id),
    };
    let summary = run_with(busy, &["--for=100ms", AWAITED]).await;
    assert_eq!(summary["retried"], summary["flows"], "{summary}");
    assert_eq!(summary["right"], summary["flows"], "{summary}");
}

#[tokio::test]
async fn a_request_whose_connection_is_lost_is_sent_again() {
    let breaking: Script = |flow, id, count| match count {
        1 => panic!("ends the connection"),
        _ => right(flow, id),
    };
    let summary = run_with(breaking, &["--for=10ms", AWAITED]).await;
    assert_eq!((&summary["retried"], &summary["right"]), (&json!(8), &json!(8)), "{summary}");
}

#[tokio::test]
async fn a_flow_that_nobody_waits_for_is_looked_at_until_it_has_ended() {
    let summary = run_with(|flow, id, _| right(flow, id), &["--for=10ms", DETACHED]).await;
    // Each is pending at first, and the second flow ends in a way that nobody has asked for.
    let flows = summary["flows"].as_u64().unwrap();
    assert_eq!((&summary["right"], &summary["wrong"]), (&json!(flows - 1), &json!(1)), "{summary}");
    assert!(summary["problems"][0].as_str().unwrap().starts_with("wrong: /flows/"), "{summary}");
    let started: Script = |_, _, _| StatusCode::NOT_FOUND.into_response();
    let summary = run_with(started, &["--for=10ms", DETACHED]).await;
    assert_eq!(summary["wrong"], summary["flows"], "{summary}");
}

#[tokio::test]
async fn a_flow_without_an_end_is_lost() {
    let never: Script =
        |_, _, _| (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "60")]).into_response();
    let arguments = ["--for=10ms", "--patience=100ms", "--concurrency=2"];
    let summary = run_with(never, &arguments).await;
    assert_eq!((&summary["lost"], &summary["flows"]), (&json!(2), &json!(2)), "{summary}");
    assert!(
        summary["problems"][0].as_str().unwrap().starts_with("lost: /flows/load-"),
        "{summary}"
    );
}

#[tokio::test]
async fn a_rate_starts_flows_whether_or_not_earlier_ones_have_ended() {
    let never: Script =
        |_, _, _| (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "60")]).into_response();
    let arguments = ["--rate=100", "--most=5", "--for=200ms", "--patience=1ms"];
    let summary = run_with(never, &arguments).await;
    assert_eq!(summary["flows"], 5, "{summary}");
    let skipped = summary["skipped"].as_u64().unwrap();
    assert!((5..=16).contains(&skipped), "{summary}");
}

#[tokio::test]
async fn without_a_gateway_nothing_is_started() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = run(settings(&with_password(&url), &[]), pending()).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("the gateway at {url} is not ready: ")), "{error}");
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn told_to_stop_it_waits_for_the_flows_that_are_open() {
    let routes = Router::new().route("/readyz", get(async || "ready")).fallback(
        async |Query(query): Query<HashMap<String, String>>, request: Request| {
            let flow = Flow::by_name(request.uri().path().trim_start_matches('/')).unwrap();
            sleep(Duration::from_millis(200)).await;
            right(flow, &query["id"])
        },
    );
    let (url, _server) = serve(routes).await;
    let stop = sleep(Duration::from_millis(50));
    let settings = settings(&with_password(&url), &["--for=1h", AWAITED]);
    let summary = run(settings, stop).await.unwrap();
    let json = serde_json::from_str::<Value>(&summary.json()).unwrap();
    assert_eq!(json["gateway"], url, "no output shows the password");
    assert_eq!((&json["flows"], &json["right"]), (&json!(8), &json!(8)), "{json}");
}

#[tokio::test]
async fn the_token_of_a_file_is_sent_and_one_that_is_missing_or_wrong_ends_the_run_at_once() {
    let answer = async |request: Request| {
        let sent = request.headers().get("authorization").map(|value| value.as_bytes());
        match (sent, request.uri().path()) {
            (Some(b"Bearer s3cret-s3cret-s3cret"), _) | (_, "/readyz") => StatusCode::OK,
            _ => StatusCode::UNAUTHORIZED,
        }
    };
    let (url, _server) = serve(Router::new().fallback(answer)).await;
    let folder = tempfile::tempdir().unwrap();
    let check = async |tokens: Option<&str>| {
        let path = folder.path().join("tokens");
        let option = format!("--token-file={}", path.display());
        tokens.iter().for_each(|text| std::fs::write(&path, text).unwrap());
        let options: &[&str] = if tokens.is_some() { &[&option] } else { &[] };
        match Client::new(&settings(&url, options)) {
            Ok(client) => client.check().await.err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        }
    };
    assert_eq!(check(Some("# one\ns3cret-s3cret-s3cret\nother\n")).await, None);
    let missing = check(None).await.unwrap();
    assert!(
        missing.ends_with("asks for a token; name a file with one by --token-file"),
        "{missing}"
    );
    let path = folder.path().join("tokens").display().to_string();
    for (tokens, expected) in [
        ("other-other-other\n", format!("refuses the token of {path}")),
        ("# none\n", format!("invalid --token-file {path:?}: it is empty")),
    ] {
        let error = check(Some(tokens)).await.unwrap();
        assert!(error.contains(&expected) && !error.contains("other"), "{error}");
    }
}

#[tokio::test]
async fn it_can_be_stopped_while_it_waits_for_a_gateway() {
    // It takes connections, and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = sleep(Duration::from_millis(50));
    let stopped = timeout(Duration::from_secs(20), run(settings(&url, &["--for=1h"]), stop));
    let summary = stopped.await.expect("it stops").unwrap();
    assert_eq!(serde_json::from_str::<Value>(&summary.json()).unwrap()["flows"], 0);
}
