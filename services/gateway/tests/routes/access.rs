//! Who may ask: tokens, names and rates.

use std::net::SocketAddr;

use axum::{
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http::{Request, Response, request::Builder},
};
use gateway::Gateway;
use serde_json::Value;
use tower::ServiceExt;

use crate::gateway_with;

const TOKEN: &str = "0123456789abcdef-token";

/// "any name:" and the token, as a browser sends it.
const BASIC: &str = "Basic YW55IG5hbWU6MDEyMzQ1Njc4OWFiY2RlZi10b2tlbg==";

async fn send(gateway: &Gateway, request: Builder) -> Response<Body> {
    gateway.routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

/// The problem that an answer with this status tells.
async fn problem(response: Response<Body>, status: u16) -> String {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["status"], status, "{body}");
    body["detail"].as_str().unwrap().to_owned()
}

/// All routes but those of health checks, and one that is not there.
const ROUTES: [(&str, &str); 11] = [
    ("POST", "/await-chain?work=6"),
    ("GET", "/"),
    ("GET", "/page/settings.json"),
    ("GET", "/page/home.js"),
    ("GET", "/flows/x"),
    ("GET", "/flows/x/events"),
    ("DELETE", "/flows/x"),
    ("POST", "/instances/service-b/x/crash"),
    ("GET", "/stats"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
];

#[tokio::test]
async fn each_route_but_health_checks_asks_for_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let gateway = gateway_with(&["--tokens-file", path.to_str().unwrap()]).await;
    let request = |(method, path): (&str, &str)| Request::builder().method(method).uri(path);
    for route in ROUTES {
        for (authorization, what) in [
            (None, "the gateway asks for a token"),
            (Some("Bearer 0123456789abcdef-other"), "this token is not one of the gateway's"),
            (Some("Basic YW55OmFueQ=="), "this token is not one of the gateway's"),
        ] {
            let mut request = request(route);
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            let response = send(&gateway, request).await;
            let challenges: Vec<_> =
                response.headers().get_all("www-authenticate").iter().collect();
            assert_eq!(challenges.len(), 2, "{route:?}");
            assert!(challenges[0] == "Bearer realm=\"async-rpc\"", "{challenges:?}");
            assert!(challenges[1].to_str().unwrap().starts_with("Basic realm="), "{challenges:?}");
            let detail = problem(response, 401).await;
            assert!(detail.starts_with(what), "{route:?}: {detail}");
        }
        for authorization in [&format!("Bearer {TOKEN}"), BASIC] {
            let request = request(route).header("authorization", authorization);
            let status = send(&gateway, request).await.status();
            assert_ne!(status, 401, "{route:?}");
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(send(&gateway, Request::get(path)).await.status(), 200, "{path}");
    }
    problem(send(&gateway, Request::post("/healthz")).await, 405).await;
}

#[tokio::test]
async fn a_token_that_is_new_in_the_file_is_known_at_once_and_one_that_is_gone_soon_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let gateway = gateway_with(&["--tokens-file", path.to_str().unwrap()]).await;
    let status = async |token: &str| {
        let request = Request::get("/stats").header("authorization", format!("Bearer {token}"));
        send(&gateway, request).await.status().as_u16()
    };
    let next = "fedcba9876543210-token";
    assert_eq!((status(TOKEN).await, status(next).await), (200, 401));
    std::fs::write(&path, format!("{TOKEN}\n{next}\n")).unwrap();
    assert_eq!((status(TOKEN).await, status(next).await), (200, 200));
    std::fs::write(&path, format!("{next}\n")).unwrap();
    let gone = async {
        while status(TOKEN).await != 401 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("it is gone");
    assert_eq!(status(next).await, 200);
}

#[tokio::test]
async fn a_client_that_sends_too_many_requests_waits_and_others_do_not() {
    let options = ["--rate-limit=1", "--rate-burst=3"];
    let gateway = gateway_with(&options).await;
    let ask = async |gateway: &Gateway, client: [u8; 4], forwarded: &str, path: &str| {
        let client = SocketAddr::from((client, 4711));
        let request = Request::get(path).header("x-forwarded-for", forwarded);
        send(gateway, request.extension(ConnectInfo(client))).await
    };
    let mut refused = None;
    for n in 0..10 {
        // What a client says about itself does not count.
        let response = ask(&gateway, [10, 0, 0, 1], &format!("1.1.1.{n}"), "/stats").await;
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("a limit");
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&seconds), "{seconds}");
    let detail = problem(refused, 429).await;
    assert!(detail.starts_with("too many requests from this address"), "{detail}");
    assert_eq!(ask(&gateway, [10, 0, 0, 2], "", "/stats").await.status(), 200);
    for _ in 0..10 {
        assert_eq!(ask(&gateway, [10, 0, 0, 1], "", "/healthz").await.status(), 200);
    }

    let gateway = gateway_with(&[&options[..], &["--proxies=1"]].concat()).await;
    for n in 0..10 {
        let response = ask(&gateway, [10, 0, 0, 1], &format!("6.6.6.6, 1.1.1.{n}"), "/stats").await;
        assert_eq!(response.status(), 200, "a client of a proxy that the operator has named");
    }
}

#[tokio::test]
async fn a_name_that_is_not_the_gateways_is_refused() {
    let gateway = gateway_with(&["--hosts=a.example"]).await;
    let ask = async |path: &str, host: &str| {
        send(&gateway, Request::get(path).header("host", host)).await
    };
    for (method, path) in ROUTES {
        let request =
            Request::builder().method(method).uri(path).header("host", "evil.example:5000");
        let detail = problem(send(&gateway, request).await, 403).await;
        assert!(detail.starts_with("\"evil.example\" is not a name of this gateway"), "{detail}");
    }
    for host in ["a.example", "localhost:5000", "127.0.0.1:5000"] {
        assert_eq!(ask("/stats", host).await.status(), 200, "{host}");
    }
    // Whoever checks health may use any name.
    assert_eq!(ask("/healthz", "evil.example").await.status(), 200);
}
