//! The gateway as a simulated process, and its HTTP clients.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, Response},
};
use gateway::{Gateway, Settings};
use serde_json::Value;
use simulation::Process;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tower::ServiceExt;

type Call = (Request<Body>, oneshot::Sender<Response<Body>>);

/// How long a client waits before it sends a request again.
const RETRY: Duration = Duration::from_millis(300);

/// How long a client waits for an answer before it hangs up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The socket that the gateway listens on, in every life of its process.
#[derive(Clone, Default)]
pub struct Front(Arc<Mutex<Option<mpsc::Sender<Call>>>>);

/// An answer of the gateway.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Front {
    fn listen(&self, calls: Option<mpsc::Sender<Call>>) {
        *self.0.lock().unwrap() = calls;
    }

    /// One life of the gateway.
    pub async fn serve(self, settings: Settings, process: Process) {
        let (sender, mut calls) = mpsc::channel(256);
        let drain = settings.node.drain;
        let gateway =
            Gateway::connect(settings, process.transport.clone(), &process.telemetry).unwrap();
        let gateway = Arc::new(gateway);
        let table = gateway.clone();
        process.table("waits", move || table.waiting());
        self.listen(Some(sender));
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = process.stopped() => break,
                Some((request, mut reply)) = calls.recv() => {
                    let routes = gateway.routes.clone();
                    open.spawn(async move {
                        tokio::select! {
                            biased;
                            Ok(response) = routes.oneshot(request) => {
                                // The client may have hung up.
                                let _ = reply.send(response);
                            }
                            () = reply.closed() => {}
                        }
                    });
                }
                Some(_) = open.join_next() => {}
            }
        }
        self.listen(None);
        gateway.stop_waiting();
        let _ = timeout(drain, open.join_all()).await;
    }

    /// Sends a request once. None: there is no answer.
    async fn send(&self, method: Method, path: &str) -> Option<Answer> {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let (reply, response) = oneshot::channel();
        let calls = self.0.lock().unwrap().clone()?;
        calls.try_send((request, reply)).ok()?;
        let response = timeout(PATIENCE, response).await.ok()?.ok()?;
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.ok()?;
        Some(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }

    /// Sends a request until it is answered with something else than 503, and hangs up after
    /// `patience` the first time.
    pub async fn ask(&self, method: Method, path: &str, patience: Option<Duration>) -> Answer {
        if let Some(patience) = patience {
            let _ = timeout(patience, self.send(method.clone(), path)).await;
        }
        loop {
            match self.send(method.clone(), path).await {
                Some(answer) if answer.status != 503 => return answer,
                _ => tokio::time::sleep(RETRY).await,
            }
        }
    }
}
