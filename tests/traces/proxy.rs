//! A proxy in front of the Resonate Server, for one process, that loses requests or answers.

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
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

/// What the proxy does to requests of one kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The first one takes effect, and its answer is lost.
    LoseAnswer,
    /// All of them take effect, and their answers are lost until the proxy is released.
    LoseAnswers,
    /// The first one is lost, and all requests after it wait until the proxy is released.
    Hold,
}

/// A proxy.
pub struct Proxy {
    address: SocketAddr,
    release: watch::Sender<bool>,
    faulty: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts a proxy in front of `server`. The fault concerns requests of this kind.
    pub async fn start(server: &str, kind: &'static str, fault: Fault) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (release, released) = watch::channel(false);
        let faulty = Arc::new(AtomicUsize::new(0));
        let forward = {
            let (client, server, faulty) = (client.clone(), server.to_owned(), faulty.clone());
            async move |body: Bytes| -> Response {
                let request: Value = serde_json::from_slice(&body).unwrap();
                let concerned = request["kind"] == kind;
                let first = concerned && faulty.fetch_add(1, Ordering::SeqCst) == 0;
                let lost = StatusCode::INTERNAL_SERVER_ERROR.into_response();
                if first && fault == Fault::Hold {
                    return lost;
                }
                if fault == Fault::Hold && faulty.load(Ordering::SeqCst) > 0 {
                    let _ = released.clone().wait_for(|released| *released).await;
                }
                let request = client.post(&server).header("content-type", "application/json");
                let answer = forwarded(request.body(body).send().await);
                let loses = match fault {
                    Fault::LoseAnswer => first,
                    Fault::LoseAnswers => concerned && !*released.borrow(),
                    Fault::Hold => false,
                };
                if loses { lost } else { answer }
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
        Self { address, release, faulty }
    }

    /// The server as the process behind the proxy sees it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests of the kind have come.
    pub fn requests(&self) -> usize {
        self.faulty.load(Ordering::SeqCst)
    }

    /// Ends the fault.
    pub fn release(&self) {
        self.release.send_replace(true);
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
