//! Who settled a promise, if an answer of the server is lost: a proxy loses it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Path,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::join;
use serde_json::Value;
use testkit::{Server, Stopped, process, until};
use tokio::{net::TcpListener, sync::watch};

use crate::observed::{Observed, PLAIN, trace_of};

testkit::on_each_server!(
    a_settlement_whose_answer_is_lost_is_seen_as_ones_own,
    a_settlement_by_somebody_else_is_not_taken_for_ones_own,
);

/// What the proxy does to the first `task.fulfill`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The request takes effect, and its answer is lost.
    LoseAnswer,
    /// The request is lost, and all later ones wait until the proxy is released.
    Hold,
}

/// A proxy in front of the Resonate Server, for one process.
struct Proxy {
    address: SocketAddr,
    release: watch::Sender<bool>,
    fulfills: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start(server: &str, fault: Fault) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (release, released) = watch::channel(false);
        let fulfills = Arc::new(AtomicUsize::new(0));
        let forward = {
            let (client, server, fulfills) = (client.clone(), server.to_owned(), fulfills.clone());
            async move |body: Bytes| -> Response {
                let request: Value = serde_json::from_slice(&body).unwrap();
                let is_fulfill = request["kind"] == "task.fulfill";
                let first = is_fulfill && fulfills.fetch_add(1, Ordering::SeqCst) == 0;
                let lost = StatusCode::INTERNAL_SERVER_ERROR.into_response();
                if first && fault == Fault::Hold {
                    return lost;
                }
                if fault == Fault::Hold && fulfills.load(Ordering::SeqCst) > 0 {
                    let _ = released.clone().wait_for(|released| *released).await;
                }
                let request = client.post(&server).header("content-type", "application/json");
                let answer = forwarded(request.body(body).send().await);
                if first { lost } else { answer }
            }
        };
        let server = server.to_owned();
        let poll = async move |Path((group, id)): Path<(String, String)>| -> Response {
            forwarded(client.get(format!("{server}/poll/{group}/{id}")).send().await)
        };
        let app = Router::new().route("/", post(forward)).route("/poll/{group}/{id}", get(poll));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, release, fulfills }
    }
}

fn forwarded(answer: reqwest::Result<reqwest::Response>) -> Response {
    match answer {
        Ok(answer) => {
            let kind = answer.headers().get(CONTENT_TYPE).cloned();
            let mut response = Response::new(Body::empty());
            *response.status_mut() = answer.status();
            response.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, kind)));
            *response.body_mut() = Body::from_stream(answer.bytes_stream());
            response
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// A system whose only service-c process reaches the server through a proxy.
async fn start(server: Server, fault: Fault) -> (Observed, Proxy) {
    let system = Observed::start(server, &[("NODE_LEASE", "1s")]).await;
    for instance in ["service-c", "service-c-replica"] {
        process::signal(system.pid(instance), "TERM");
        system.exit_line(instance).await;
    }
    let proxy = Proxy::start(&system.server_url, fault).await;
    let url = format!("http://{}", proxy.address);
    system.start_process("service-c-proxied", &["service-c", "--server", &url], &[]).await;
    (system, proxy)
}

async fn a_settlement_whose_answer_is_lost_is_seen_as_ones_own(server: Server) -> Stopped {
    let (system, proxy) = start(server, Fault::LoseAnswer).await;
    let answer = system.http().post("/await-chain?id=own").await;
    answer.expect_message(3);
    expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=own group=service-a
            service-a: foo [internal] promise=own group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=own group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=own.0 group=service-b
              service-b: bar [internal] promise=own.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=own.0 group=service-b outcome=fulfilled
              service-b: rpc baz [producer] promise=own.0.0 group=service-c
                service-c: baz [internal] promise=own.0.0 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=own.0.0 group=service-c outcome=fulfilled
    ");
    assert_eq!(proxy.fulfills.load(Ordering::SeqCst), 2, "the request was repeated");
    system.stop().await
}

async fn a_settlement_by_somebody_else_is_not_taken_for_ones_own(server: Server) -> Stopped {
    let (system, proxy) = start(server, Fault::Hold).await;
    let http = system.http();
    let request = http.post("/await-chain?id=other");
    let other = async {
        until(&system.log, "the repeated request", async || {
            (proxy.fulfills.load(Ordering::SeqCst) == 2).then_some(())
        })
        .await;
        let arguments = ["service-c", "--server", &system.server_url];
        system.start_process("service-c-replica", &arguments, &[]).await;
        until(&system.log, "a settlement by another process", async || {
            system.resonate().settled("other.0.0").await.then_some(())
        })
        .await;
        proxy.release.send_replace(true);
    };
    let (answer, ()) = join!(request, other);
    answer.expect_message(3);
    let spans = expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=other group=service-a
            service-a: foo [internal] promise=other group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=other group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=other.0 group=service-b
              service-b: bar [internal] promise=other.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=other.0 group=service-b outcome=fulfilled
              service-b: rpc baz [producer] promise=other.0.0 group=service-c
                service-c: baz [internal] promise=other.0.0 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=other.0.0 group=service-c outcome=fenced,fulfilled ERROR the lease was lost, or the promise is settled
    ");
    let settled = spans.iter().find(|span| span.name == "baz").unwrap();
    assert_eq!(settled.instance(), "service-c-replica");
    system.stop().await
}
