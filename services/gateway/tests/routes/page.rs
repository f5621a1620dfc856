//! What a browser gets: pages, their files and headers, and the events of a flow.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, Response},
};
use futures_util::StreamExt;
use gateway::Gateway;
use serde_json::Value;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::gateway_with;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn gateway() -> Gateway {
    gateway_with(&[]).await
}

async fn send(gateway: &Gateway, request: axum::http::request::Builder) -> Response<Body> {
    gateway.routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Starts the flow `id` without waiting for it.
async fn start(gateway: &Gateway, id: &str) {
    let request = Request::post(format!("/await-chain?id={id}&work=6s"));
    let response = send(gateway, request.header("prefer", "respond-async"));
    let response = timeout(Duration::from_secs(10), response).await.expect("an answer at once");
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["location"], format!("/flows/{id}"));
}

#[tokio::test]
async fn every_file_that_a_page_names_is_there_and_nothing_comes_from_elsewhere() {
    let gateway = gateway().await;
    for page in ["/", "/flows/x"] {
        let response = send(&gateway, Request::get(page).header("accept", BROWSER)).await;
        assert_eq!(response.status(), 200, "{page}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let html = text(response).await;
        assert!(!html.contains("://") || html.contains("http://127.0.0.1:5000"), "{html}");
        assert!(!html.contains("style=") && !html.contains("<style"), "inline style in {page}");
        for part in html.split("<script").skip(1) {
            assert!(part.starts_with(" type=\"module\" src=\"/page/"), "inline script in {page}");
        }
        let links = html.split(['"']).filter(|part| part.starts_with("/page/"));
        for link in links.chain(["/page/common.js"]) {
            let response = send(&gateway, Request::get(link)).await;
            assert_eq!(response.status(), 200, "{link}");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{link}");
        }
    }
}

#[tokio::test]
async fn files_are_compressed_and_sent_once() {
    let gateway = gateway().await;
    let request = || Request::get("/page/style.css").header("accept-encoding", "gzip");
    let response = send(&gateway, request()).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let tag = response.headers()["etag"].clone();
    let again = send(&gateway, request().header("if-none-match", &tag)).await;
    assert_eq!(again.status(), 304);
    assert_eq!(text(again).await, "");
    let changed = send(&gateway, request().header("if-none-match", "W/\"another\"")).await;
    assert_eq!(changed.status(), 200);
}

#[tokio::test]
async fn one_address_is_a_page_for_a_browser_and_json_for_others() {
    let gateway = gateway().await;
    start(&gateway, "x").await;
    for (path, accept, expected) in [
        ("/flows/x", Some(BROWSER), "text/html; charset=utf-8"),
        ("/flows/x", Some("*/*"), "application/json"),
        ("/flows/x", None, "application/json"),
        ("/flows/x.json", Some(BROWSER), "application/json"),
    ] {
        let request =
            accept.into_iter().fold(Request::get(path), |it, value| it.header("accept", value));
        let response = send(&gateway, request).await;
        assert_eq!(response.headers()["content-type"], expected, "{path} {accept:?}");
        let vary: Vec<_> = response.headers().get_all("vary").iter().collect();
        assert!(vary.iter().any(|vary| *vary == "accept"), "{path} {accept:?}: {vary:?}");
    }
}

#[tokio::test]
async fn the_pages_know_the_table_of_flows_and_the_commands_that_start_what_is_down() {
    let gateway = gateway_with(&["--group-start-command", "docker start x-{group}"]).await;
    let settings = json(&gateway, "/page/settings.json").await;
    assert_eq!(settings["jaeger"], Value::Null);
    assert_eq!(settings["group_start"], "docker start x-{group}");
    for (flow, shown) in flows::FLOWS.iter().zip(settings["flows"].as_array().unwrap()) {
        assert_eq!(shown["route"], flow.route());
        assert_eq!(shown["functions"].as_array().unwrap().len(), flow.functions.len());
    }
}

async fn json(gateway: &Gateway, path: &str) -> Value {
    let text = text(send(gateway, Request::get(path)).await).await;
    serde_json::from_str(&text).unwrap()
}

/// How many flows the gateway has seen start or end: `started`, `succeeded` or `failed`.
async fn counted(gateway: &Gateway, name: &str) -> u64 {
    let slots = json(gateway, "/stats").await["slots"].take();
    slots.as_array().unwrap().iter().map(|slot| slot[name].as_u64().unwrap()).sum()
}

async fn until_counted(gateway: &Gateway, name: &str, count: u64) {
    let reached = async {
        while counted(gateway, name).await < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), reached).await.unwrap_or_else(|_| panic!("{count} {name}"));
}

#[tokio::test]
async fn the_end_of_a_flow_counts_whose_client_has_hung_up() {
    let gateway = gateway().await;
    let waiting = send(&gateway, Request::post("/await-chain?id=x"));
    tokio::select! {
        response = waiting => panic!("{response:?}"),
        () = until_counted(&gateway, "started", 1) => {}
    }
    assert_eq!(send(&gateway, Request::delete("/flows/x")).await.status(), 200);
    until_counted(&gateway, "failed", 1).await;
}

#[tokio::test]
async fn the_end_of_a_flow_counts_that_no_request_waits_for() {
    let gateway = gateway_with(&["--await", "1ms"]).await;
    let sum = async |name| counted(&gateway, name).await;
    for (n, (flow, prefer)) in [
        ("await-chain", "respond-async"),
        ("detached-chain", "respond-async"),
        ("fan-out-workflow", "return=minimal"),
    ]
    .into_iter()
    .enumerate()
    {
        for _ in 0..2 {
            // The second request finds the flow, which counts once.
            let request = Request::post(format!("/{flow}?id=x{n}")).header("prefer", prefer);
            assert!(send(&gateway, request).await.status().is_success());
        }
        assert_eq!((sum("started").await, sum("failed").await), (n as u64 + 1, n as u64), "{flow}");
        assert_eq!(send(&gateway, Request::delete(format!("/flows/x{n}"))).await.status(), 200);
        until_counted(&gateway, "failed", n as u64 + 1).await;
    }
    assert_eq!((sum("failed").await, sum("succeeded").await), (3, 0));
    assert!(json(&gateway, "/stats").await["since"].as_i64().is_some(), "it has just started");
}

#[tokio::test]
async fn a_call_that_no_process_has_taken_is_queued() {
    let gateway = gateway().await;
    start(&gateway, "x").await;
    let calls = json(&gateway, "/flows/x").await["invocations"].take();
    assert_eq!((&calls[0]["queued"], &calls[1]["queued"]), (&Value::Bool(true), &Value::Null));
}

/// The id and the data of the first event.
async fn first_event(response: Response<Body>) -> Option<(String, Value)> {
    let mut body = response.into_body().into_data_stream();
    let chunk = timeout(Duration::from_secs(1), body.next()).await.ok()??.unwrap();
    let chunk = String::from_utf8(chunk.to_vec()).unwrap();
    let line = |name: &str| {
        let line = chunk.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{chunk}")).trim().to_owned()
    };
    assert_eq!(line("event:"), "state");
    Some((line("id:"), serde_json::from_str(&line("data:")).unwrap()))
}

#[tokio::test]
async fn events_begin_with_the_state_unless_the_client_has_it() {
    let gateway = gateway().await;
    start(&gateway, "x").await;
    let response = send(&gateway, Request::get("/flows/x/events")).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (id, event) = first_event(response).await.unwrap();
    let state = &event["state"];
    assert_eq!((&state["state"], &state["options"]), (&"pending".into(), &"work=6s".into()));
    assert_eq!(state["rows"].as_array().unwrap().len(), 3 + 6);
    assert!(event["now"].as_i64().unwrap() >= state["started"].as_i64().unwrap() - 1_000);

    for has in [id.as_str(), "another"] {
        let header = send(&gateway, Request::get("/flows/x/events").header("last-event-id", has));
        let query = send(&gateway, Request::get(format!("/flows/x/events?last-event-id={has}")));
        for response in [header.await, query.await] {
            assert_eq!(first_event(response).await.is_none(), has == id, "{has}");
        }
    }
    let response = send(&gateway, Request::get("/flows/unknown/events")).await;
    assert_eq!(response.status(), 404);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn the_number_of_viewers_is_bounded() {
    let gateway = gateway_with(&["--max-connections", "16"]).await;
    start(&gateway, "x").await;
    let look = || send(&gateway, Request::get("/flows/x/events"));
    let mut viewers = Vec::new();
    let refused = loop {
        let response = look().await;
        if response.status() != 200 {
            break response;
        }
        viewers.push(response);
        assert!(viewers.len() < 16, "as many as there are connections");
    };
    assert_eq!((refused.status().as_u16(), viewers.len()), (503, 7));
    viewers.pop();
    assert_eq!(look().await.status(), 200);
    // There is room for other requests.
    start(&gateway, "y").await;
}

#[tokio::test]
async fn the_end_of_the_gateway_ends_its_events() {
    let gateway = gateway().await;
    start(&gateway, "x").await;
    let response = send(&gateway, Request::get("/flows/x/events")).await;
    gateway.stop_waiting();
    let end = timeout(Duration::from_secs(3), text(response)).await;
    assert!(end.unwrap().starts_with("event: state"));
}
