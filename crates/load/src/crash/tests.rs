//! Crashes through a gateway that does as a test wants.

use std::{future::pending, sync::Mutex};

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    routing::{get, post},
};
use flows::Flow;
use serde_json::{Value, json};

use super::*;
use crate::{
    run::{
        run,
        tests::{right, serve, settings},
    },
    summary::Summary,
};

/// A service of two processes. A look at a flow shows that `service-e` holds it, and after a crash
/// and some more looks, that `service-e-replica` does.
#[derive(Default)]
struct Service {
    /// Whether there is a crash button.
    button: bool,
    /// The routes by which processes were crashed.
    crashed: Vec<String>,
    /// How often a flow was looked at since.
    looks: usize,
}

type Shared = Arc<Mutex<Service>>;

async fn look(State(service): State<Shared>, Path(id): Path<String>) -> Json<Value> {
    let mut service = service.lock().unwrap();
    service.looks += usize::from(!service.crashed.is_empty());
    let instance = if service.looks > 8 { "service-e-replica" } else { "service-e" };
    let mut call = json!({"id": format!("{id}.0"), "state": "pending", "instance": instance});
    if service.button {
        call["crash"] = format!("/instances/service-e/{instance}/crash").into();
    }
    Json(json!({"id": id, "flow": "detached-chain", "state": "pending", "invocations": [call]}))
}

async fn start(Query(query): Query<HashMap<String, String>>) -> axum::response::Response {
    right(Flow::by_name("detached-chain").unwrap(), &query["id"])
}

async fn crash(State(service): State<Shared>, request: Request) {
    service.lock().unwrap().crashed.push(request.uri().path().to_owned());
    // The gateway makes sure that the process is dead.
    sleep(Duration::from_millis(600)).await;
}

/// Runs with these options, and returns the routes of crashes, too.
async fn run_with(button: bool, arguments: &[&str]) -> (Result<Summary, Error>, Vec<String>) {
    let service = Shared::new(Mutex::new(Service { button, ..Service::default() }));
    let routes = Router::new()
        .route("/readyz", get(async || "ready"))
        .route("/stats", get(async || "{}"))
        .route("/flows/{id}", get(look))
        .route("/detached-chain", post(start))
        .fallback(crash)
        .with_state(service.clone());
    let (url, _server) = serve(routes).await;
    let usual = ["--flows=detached-chain", "--concurrency=1", "--patience=1ms", "--crash=100ms"];
    let result = run(settings(&url, &[&usual, arguments].concat()), pending()).await;
    let crashed = service.lock().unwrap().crashed.clone();
    (result, crashed)
}

#[tokio::test]
async fn a_holder_is_crashed_and_its_takeover_counted() {
    let (summary, crashed) = run_with(true, &["--for=1s"]).await;
    let summary: Value = serde_json::from_str(&summary.unwrap().json()).unwrap();
    // The replica is spared: nothing tells that the dead process is back.
    assert_eq!(crashed, ["/instances/service-e/service-e/crash"]);
    assert_eq!((&summary["crashes"], &summary["takeovers"]), (&json!(1), &json!(1)), "{summary}");
    // From the crash on, not from the answer to it.
    assert!(summary["takeover_ms"]["p50"].as_f64() > Some(600.0), "{summary}");
}

#[tokio::test]
async fn without_a_crash_button_it_says_what_to_set() {
    let (result, crashed) = run_with(false, &["--for=1h"]).await;
    let error = result.unwrap_err().to_string();
    assert_eq!(error, "the gateway has no crash button: set NODE_CRASH_BUTTON=true");
    assert!(crashed.is_empty());
}
